"""The trading market of params.yaml: a portfolio with its master, accounts of single symbols, or one agent for all."""

NAMES = ("market/portfolio", "market/accounts", "market/single")
