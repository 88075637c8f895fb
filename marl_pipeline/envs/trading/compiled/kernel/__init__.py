"""The step of `stepping` fused for a CPU: a pass over the environments, compiled by numba on first use and cached.

Same rules, same order of operations per symbol; only sums over symbols associate differently, so results agree with
the tensor code to rounding (a test holds it). No environment reads another's state: bits do not depend on threads.
"""
