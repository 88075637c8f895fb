"""Runs of `marl train`: what they are given, how they go, what they leave."""
