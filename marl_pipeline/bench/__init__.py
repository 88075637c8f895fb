"""Measurements of speed and learning, beside peers."""
