"""Small common-payoff games whose optimum is known, to see what a learner can and cannot represent."""
