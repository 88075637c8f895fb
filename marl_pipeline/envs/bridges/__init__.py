"""Environments to and from other libraries."""
