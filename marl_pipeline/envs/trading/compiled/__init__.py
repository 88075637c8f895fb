"""The step of the trading game compiled for CPUs."""
