"""Particle worlds (Lowe et al. 2017) in batched tensors."""
