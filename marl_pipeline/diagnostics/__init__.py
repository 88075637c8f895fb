"""Looks at the simulator and its rewards: smoke play, recorded episodes, reward studies."""
