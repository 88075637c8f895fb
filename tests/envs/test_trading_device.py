"""The step loop leaves the device alone: nothing in `step` waits for it or moves data off it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from marl_pipeline.config import load_params
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.core.partition import Mode
from marl_pipeline.envs.trading.env import TradingEnv
from tests.envs.markets import hostile, market_params

WAITING = {
    "_local_scalar_dense",  # .item(), float(), bool()
    "nonzero",  # and indexing by a mask
    "masked_select",
    "unique",
    "_unique2",
    "equal",
    "is_nonzero",
    "repeat_interleave",  # its size depends on data
}
"""Operations that make a host wait for a GPU: their results, or the shapes of them, are needed here."""


class NoWaiting(TorchDispatchMode):
    """Raises on an operation that would synchronise, or copy between devices."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        indexed = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in WAITING or indexed:
            raise AssertionError(f"{name} in the step loop waits for the device")
        kwargs = dict(kwargs or {})
        made_here = name == "lift_fresh"  # torch.tensor(...): data of the host
        if made_here or (name == "_to_copy" and kwargs.get("device") is not None):
            raise AssertionError(f"{name} in the step loop copies between host and device")
        return func(*args, **kwargs)


def environment(mode: Mode, changes: dict[str, Any]) -> TradingEnv:
    params = market_params(cpu_step="plain", volume_window=3, **changes)
    market = Market.from_panel(hostile(np.random.default_rng(1), 30, 7, 2), params)
    directives = load_params().train_master.directives
    return TradingEnv(market, params, directives, mode=mode, num_envs=4, span=Span(0, 30), episode=12, seed=1)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"allow_short": True, "gross_leverage": 2.0},
        {"reward": "guide_v3_2", "master_reward": "risk_adjusted"},
        {"reward": "net_shaped"},
    ],
    ids=["net", "short", "shaped", "potential"],
)
@pytest.mark.parametrize("mode", ["accounts", "portfolio"])
def test_a_step_does_not_wait_for_the_device(mode: Mode, changes: dict[str, Any]) -> None:
    env = environment(mode, changes)
    env.reset()
    generator = torch.Generator().manual_seed(0)
    for _ in range(14):  # through the end of the episode, and beyond
        actions = {
            "symbols": torch.randint(7, (4, 7), generator=generator),
            "master": torch.randint(48, (4, 1), generator=generator),
        }
        with NoWaiting():
            env.step(actions)


@pytest.mark.parametrize(
    "wait",
    [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: torch.nonzero(x), lambda x: torch.tensor(1.0) + x],
)
def test_what_waits_is_caught(wait: Any) -> None:
    values = torch.arange(3.0)
    with NoWaiting(), pytest.raises(AssertionError, match="in the step loop"):
        wait(values)
