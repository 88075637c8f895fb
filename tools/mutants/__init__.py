"""Mutation testing: small faults planted in the code one at a time, and the count of those that no test notices."""
