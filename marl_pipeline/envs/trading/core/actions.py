"""The words of the market game: what a symbol agent may do, and what a master's directive says.

A master's action is one number for a joint choice of risk multiplier, position cap and mode. This module is the one
place that packs and unpacks it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from marl_pipeline.config import DirectivesParams, LimitsParams


class Action(IntEnum):
    """What a symbol agent may do with its position."""

    HOLD = 0
    BUY_SMALL = 1
    BUY_MEDIUM = 2
    BUY_LARGE = 3
    SELL_PARTIAL = 4
    SELL_ALL = 5
    ADD_TO_WINNER = 6


ACTIONS: tuple[str, ...] = tuple(action.name for action in Action)

MODES: tuple[str, ...] = ("defensive", "neutral", "aggressive")

RISK_LEVELS, CAP_LEVELS = 4, 4
DIRECTIVE_ACTIONS = RISK_LEVELS * CAP_LEVELS * len(MODES)
"""The master's 48 joint actions."""

DIRECTIVE_FIELDS: tuple[str, ...] = ("risk", "cap", "open", *MODES)
"""The observed directive: risk multiplier, cap as a share of `limits.position`, share of `limits.open_positions`, mode
one-hot."""


class DirectiveIndex(NamedTuple):
    """Positions of a directive in the parameters' lists; int64 tensors of one shape."""

    risk: Tensor
    cap: Tensor
    mode: Tensor


def decode_directive(action: Tensor) -> DirectiveIndex:
    """Unpacks the master's joint action (any shape, 0..47): `(risk x 4 + cap) x 3 + mode`."""
    modes = len(MODES)
    return DirectiveIndex(
        risk=torch.div(action, CAP_LEVELS * modes, rounding_mode="floor"),
        cap=torch.div(action, modes, rounding_mode="floor") % CAP_LEVELS,
        mode=action % modes,
    )


def encode_directive(risk: int, cap: int, mode: int) -> int:
    """The joint action of risk level `risk`, cap level `cap` and mode `mode`; the inverse of `decode_directive`."""
    return (risk * CAP_LEVELS + cap) * len(MODES) + mode


def directive_table(directives: DirectivesParams | None, limits: LimitsParams) -> Tensor:
    """What each directive means: [rows, 6] float64 with the columns of `DIRECTIVE_FIELDS`.

    Rows 0..47 are the master's actions; the last row is the full directive of a market without a master: no more than
    the hard limits (risk 1, whole cap, all positions, mode neutral). A cap beyond `limits.position` counts as that: a
    directive tightens limits, it never loosens them.
    """
    full = torch.tensor([[1.0, 1.0, 1.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    if directives is None:
        return full
    index = decode_directive(torch.arange(DIRECTIVE_ACTIONS))
    risk = torch.tensor(directives.risk_multipliers, dtype=torch.float64)[index.risk]
    cap = (torch.tensor(directives.position_caps, dtype=torch.float64)[index.cap] / limits.position).clamp(max=1.0)
    share = torch.tensor(directives.open_positions, dtype=torch.float64)[index.mode]
    mode = torch.nn.functional.one_hot(index.mode, len(MODES)).double()
    return torch.cat([torch.cat([torch.stack([risk, cap, share], -1), mode], -1), full])
