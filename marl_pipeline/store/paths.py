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
HIERARCHY = Path("models/rl/hierarchy")
WALK_FORWARD = Path("reports/walk_forward")


def seed_folder(tier: Path, seed: int) -> Path:
    """Where one seed's policy of a tier lies."""
    return tier / f"seed_{seed}"
