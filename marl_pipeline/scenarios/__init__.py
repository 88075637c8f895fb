"""Environments by name, with what the networks read of them."""
