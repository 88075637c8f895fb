"""Where the stages leave their work; dvc.yaml says the same, and a test holds the two together."""

from __future__ import annotations

from pathlib import Path

DATASET = Path("data/training_data_rl")
SIGNALS = Path("data/precomputed/sl_signals")
SL_CHECKPOINTS = Path("models/sl_checkpoints")
SL_BENCHMARKS = Path("reports/sl_inference_benchmarks.json")
ENCODER = Path("models/encoder")
SYMBOL_AGENTS = Path("models/rl/symbol_agents")
MASTER = Path("models/rl/master")
POLICIES = Path("models/rl/policies")
STRATEGIES = Path("models/strategies")
WALK_FORWARD = Path("reports/walk_forward")


def specification_file(strategy: str, stage: str) -> Path:
    """What a stage needs to know of a strategy, as the stage `strategies` has resolved it."""
    return STRATEGIES / strategy / f"{stage}.json"


def policy_folder(tier: Path, strategy: str, seed: int) -> Path:
    """Where the policy of one strategy and seed lies after a phase of training."""
    return seed_folder(tier / strategy, seed)


def seed_folder(tier: Path, seed: int) -> Path:
    """Where one seed's policy of a tier lies."""
    return tier / f"seed_{seed}"
