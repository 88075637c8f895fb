"""What a reward pays plain policies: the gap to what the account earns, the balance, the picture."""

from __future__ import annotations

import numpy as np
import pytest

from marl_pipeline.config import load_params
from marl_pipeline.data.windows import Span
from marl_pipeline.diagnostics.reward_study import RewardStudy, picture, study_policies
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.rewards.shaped import COMPONENTS
from tests.envs.markets import market_params, panel


def studies(reward: str) -> dict[str, RewardStudy]:
    rng = np.random.default_rng(0)
    params = market_params(reward=reward)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, (70, 3)), 0))
    found = study_policies(
        Market.from_panel(panel(close), params), params, load_params().train_master.directives,
        mode="accounts", span=Span(0, 70), gamma=1.0, episodes=4, seed=0,
    )  # fmt: skip
    return {study.policy: study for study in found}


def test_the_guides_preset_pays_for_churning_and_the_study_says_so() -> None:
    found = studies("guide_v3_2")
    assert set(found) == {"random", "hold", "buy_and_hold"}
    churning, idle = found["random"], found["hold"]
    assert churning.net < 0.0 < churning.gap
    assert churning.paid > 0.0
    assert idle.net == 0.0
    assert idle.paid < 0.0
    assert tuple(part.component for part in churning.components) == COMPONENTS
    assert {part.component: part.flags for part in idle.components}["diversification"] == ("dominant",)
    assert churning.as_json()["gap"] == churning.gap


def test_potentials_pay_no_more_than_they_can_hold() -> None:
    """With gamma = 1 the gap is Phi(end) - Phi(start), which is bounded; the preset's gap is not."""
    unit = market_params().reward_scale / 10.0
    shaped = studies("net_shaped")
    assert all(abs(study.gap) <= 1.0 * unit for study in shaped.values())
    assert abs(shaped["random"].gap) < 0.2 * abs(studies("guide_v3_2")["random"].gap)


def test_the_picture_is_the_same_for_the_same_values() -> None:
    found = tuple(studies("guide_v3_2").values())
    drawn = picture(found)
    assert drawn == picture(found)
    assert drawn.startswith(b"<?xml")
    assert all(name.encode() in drawn for name in COMPONENTS)


def test_net_has_no_components_to_study() -> None:
    with pytest.raises(ValueError, match="net has no components"):
        studies("net")
