"""The words that the settings of all algorithms describe their networks in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from marl_pipeline.config import Count, Section

Activation = Literal["tanh", "relu"]


class NetworkSettings(Section):
    """Shape of the networks of a group.

    Attributes:
        hidden: widths of the hidden layers.
        activation: after each of them.
        recurrence: `gru` puts a gated recurrent unit as wide as the last hidden layer between it and the output.
        share_parameters: one set of weights for all agents of a group, or one set for each.
    """

    hidden: Annotated[tuple[Count, ...], Field(min_length=1)]
    activation: Activation
    recurrence: Literal["none", "gru"]
    share_parameters: bool

    @property
    def recurrent_width(self) -> int:
        """Width of the recurrent memory; 0 without one."""
        return self.hidden[-1] if self.recurrence == "gru" else 0

    def sets(self, agents: int) -> int:
        """How many sets of weights a group of so many agents has."""
        return 1 if self.share_parameters else agents


def activation(name: Activation) -> Callable[[Tensor], Tensor]:
    return torch.tanh if name == "tanh" else functional.relu
