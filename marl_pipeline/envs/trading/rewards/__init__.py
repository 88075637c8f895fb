"""What an environment of the market pays its agents."""
