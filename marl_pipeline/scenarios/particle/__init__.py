"""Particle worlds: cooperative navigation."""

NAMES = ("mpe/simple_spread",)
