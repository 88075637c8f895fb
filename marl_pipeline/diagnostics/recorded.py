"""Behind `marl env monitor` and `marl env rewards FILE`: looks at a file of recorded episodes."""

from __future__ import annotations

from pathlib import Path

from marl_pipeline.diagnostics.episode_file import load_episodes
from marl_pipeline.diagnostics.monitor import Monitor, monitor
from marl_pipeline.diagnostics.page import monitor_page
from marl_pipeline.diagnostics.reward_study import RewardStudy, picture, study_episodes
from marl_pipeline.errors import UserError


def write_monitor(file: Path, out: Path) -> Monitor:
    """Writes the page of `file` to `out`.

    Raises:
        UserError: the file is no episode file, or too short.
    """
    seen = monitor(load_episodes(file))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(monitor_page(seen), encoding="utf-8")
    return seen


def write_study(file: Path, out: Path) -> RewardStudy:
    """Draws the components of `file` into `out`.

    Raises:
        UserError: as above, or the reward recorded has no components.
    """
    study = study_episodes(load_episodes(file))
    if not study.components:
        raise UserError(f"{file}: paid by `{study.reward}`, which has no components; record with --reward guide_v3_2")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(picture((study,)))
    return study
