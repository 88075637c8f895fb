"""Environments by name, each in a folder with its presets, episode metrics, baselines, optimum and picture."""

from marl_pipeline.scenarios.registry import make, scenario
from marl_pipeline.scenarios.scenario import Baseline, Scenario

__all__ = ["Baseline", "Scenario", "make", "scenario"]
