"""Small games of two agents whose optimum is known."""

NAMES = ("matrix/two_step", "matrix/climbing", "matrix/penalty")
