"""Perceptrons over the agents of a group: what follows a first linear layer, and whole networks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from marl_pipeline.nn.linear import AgentLayerNorm, AgentLinear, Initialisation, uniform
from marl_pipeline.nn.recurrent import GRU, RecurrentState
from marl_pipeline.nn.settings import Activation, NetworkSettings, activation


class HiddenLayers(nn.Module):
    """From the first linear layer before its activation to the last hidden layer after it.

    Args:
        widths: of the hidden layers, the first one's included.
        layer_norm: before each activation.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        nonlinearity: Activation,
        layer_norm: bool,
        sets: int,
        initial: Initialisation,
        generator: torch.Generator,
        replicas: int | None = None,
    ) -> None:
        super().__init__()
        self._activation = activation(nonlinearity)
        self.norms = nn.ModuleList(AgentLayerNorm(width, sets) for width in widths) if layer_norm else None
        self.layers = nn.ModuleList(
            AgentLinear(width, following, sets=sets, initial=initial, generator=generator, replicas=replicas)
            for width, following in pairwise(widths)
        )

    def forward(self, first: Tensor) -> Tensor:
        """[..., A, widths[0]] to [..., A, widths[-1]]."""
        rows = self._activated(first, 0)
        for index, layer in enumerate(self.layers, start=1):
            rows = self._activated(layer(rows), index)
        return rows

    def _activated(self, rows: Tensor, index: int) -> Tensor:
        return self._activation(rows if self.norms is None else self.norms[index](rows))


class Trunk(nn.Module):
    """All between the first linear layer and the output: hidden layers, and a GRU where the settings ask for one."""

    def __init__(
        self,
        settings: NetworkSettings,
        *,
        sets: int,
        initial: Initialisation,
        recurrent_initial: Initialisation,
        generator: torch.Generator,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        width = settings.hidden[-1]
        self.hidden = HiddenLayers(
            settings.hidden,
            nonlinearity=settings.activation,
            layer_norm=layer_norm,
            sets=sets,
            initial=initial,
            generator=generator,
        )
        self.gru = (
            GRU(width, width, sets=sets, initial=recurrent_initial, generator=generator)
            if settings.recurrence == "gru"
            else None
        )

    def forward(self, first: Tensor, state: RecurrentState | None) -> tuple[Tensor, Tensor | None]:
        """[..., A, width] of the first layer to [..., A, width] for the output, and the memory [B, A, H] by then.

        With a GRU the rows are sequences [T, B, A, width] and `state` is needed; without one it is not looked at.
        """
        rows: Tensor = self.hidden(first)
        if self.gru is None:
            return rows, None
        assert state is not None
        rows = self.gru(rows, state)
        return rows, rows[-1].float()


class MLP(nn.Module):
    """A network of an agent's own row: [..., A, inputs] to [..., A, outputs]; with replicas both [K, ...].

    Agents that share weights have a first bias each, which is what a one-hot agent id among the inputs would add.

    Args:
        output_scale: factor on the output's initial weights; below 1 the first outputs are close to 0.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        settings: NetworkSettings,
        *,
        agents: int,
        output_scale: float,
        generator: torch.Generator,
        replicas: int | None = None,
    ) -> None:
        super().__init__()
        sets, hidden, initial = settings.sets(agents), settings.hidden, uniform()
        self.first = AgentLinear(
            inputs, hidden[0], sets=sets, biases=agents, replicas=replicas, initial=initial, generator=generator
        )
        self.hidden = HiddenLayers(
            hidden,
            nonlinearity=settings.activation,
            layer_norm=False,
            sets=sets,
            replicas=replicas,
            initial=initial,
            generator=generator,
        )
        self.output = AgentLinear(
            hidden[-1], outputs, sets=sets, replicas=replicas, initial=uniform(output_scale), generator=generator
        )

    def forward(self, rows: Tensor) -> Tensor:
        return self.finish(self.first(rows))

    def finish(self, first: Tensor) -> Tensor:
        """From the first layer before its activation to the outputs."""
        outputs: Tensor = self.output(self.hidden(first))
        return outputs
