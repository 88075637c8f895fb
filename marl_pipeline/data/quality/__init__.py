"""Data quality: rules that find what is wrong with bars, and a causal mask of what must not be used."""

from marl_pipeline.data.quality.verdict import QualityResult, check, clean

__all__ = ["QualityResult", "check", "clean"]
