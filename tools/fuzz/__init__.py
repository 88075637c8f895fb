"""Writes files of bars as people and vendors write them and holds what is read of them against what they mean."""
