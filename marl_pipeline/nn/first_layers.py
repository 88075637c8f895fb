"""First layers of networks: what a network sees of its agent's observation, of the global state, or of both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marl_pipeline.nn.linear import AgentLinear, Initialisation
from marl_pipeline.nn.running_norm import RunningNorm


class ObservationLayer(nn.Module):
    """The first layer of a network that sees an agent's own row.

    Attributes:
        norm: of the rows as they come in; None where they are not normalised.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        normalise: bool,
        sets: int,
        initial: Initialisation,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.norm = RunningNorm(inputs) if normalise else None
        self.linear = AgentLinear(inputs, width, sets=sets, initial=initial, generator=generator)

    def forward(self, rows: Tensor) -> Tensor:
        """[..., A, inputs] to [..., A, width]."""
        first: Tensor = self.linear(rows if self.norm is None else self.norm(rows))
        return first


class StateLayer(nn.Module):
    """The first layer of a network that sees the global state [..., S], read once for all agents.

    One set of weights gives one row [..., 1, width] for all; A sets give [..., A, width].
    """

    def __init__(
        self,
        state: int,
        width: int,
        *,
        normalise: bool,
        sets: int,
        initial: Initialisation,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.norm = RunningNorm(state) if normalise else None
        self.linear = AgentLinear(state, width, sets=sets, initial=initial, generator=generator)

    def forward(self, state: Tensor) -> Tensor:
        return self.linear.seen_by_all(state if self.norm is None else self.norm(state))


class AgentStateLayer(nn.Module):
    """The first layer of a critic that sees the state, the agent's own row and which agent it is (Yu et al. 2022, the
    agent-specific state).

    A linear layer of the three side by side is the sum of three: the state's share is computed once for all agents, so
    the cost grows with their number and not with its square. Of an absent agent only its identity is seen (death
    masking).

    Attributes:
        identity: [A, width], starts at zero.
    """

    def __init__(
        self,
        state: int,
        inputs: int,
        width: int,
        *,
        agents: int,
        normalise: bool,
        sets: int,
        initial: Initialisation,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.state = StateLayer(state, width, normalise=normalise, sets=sets, initial=initial, generator=generator)
        self.rows = ObservationLayer(
            inputs, width, normalise=normalise, sets=sets, initial=initial, generator=generator
        )
        self.identity = nn.Parameter(torch.zeros(agents, width))

    def forward(self, rows: Tensor, state: Tensor, present: Tensor) -> Tensor:
        """Rows [..., A, inputs], state [..., S] and present [..., A] to [..., A, width]."""
        seen: Tensor = self.state(state) + self.rows(rows)
        return seen.masked_fill(~present.unsqueeze(-1), 0.0) + self.identity
