"""Examines the simulator and its rewards: smoke tests, recorded episodes, reward studies."""
