"""Figures of whole episodes, formed from what `Timestep.info` says of every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from marl_pipeline.envs.protocol import Environment, Timestep
from marl_pipeline.envs.wrappers import View
from marl_pipeline.errors import UserError

Over = Literal["sum", "mean", "last", "highest"]
"""How the figures of an episode's steps become one: `highest` is their maximum."""


@dataclass(frozen=True)
class EpisodeMetric:
    """One figure of an episode.

    Attributes:
        of: the figure of a step, [E] or [E, A], from `Timestep.info`; of several agents the mean counts. A name stands
            for the entry of that name.
        over: how the steps' figures become the episode's.
        unit: of the figure ("share of the initial cash").
        better: which way is good; None where neither is.
    """

    of: str | Callable[[Mapping[str, Tensor]], Tensor]
    over: Over
    unit: str
    better: Literal["higher", "lower"] | None = None

    def step(self, name: str, info: Mapping[str, Tensor]) -> Tensor:
        """[E] float64, of one step.

        Raises:
            UserError: `info` lacks the entry.
        """
        try:
            figure = info[self.of] if isinstance(self.of, str) else self.of(info)
        except KeyError as error:
            found = ", ".join(info) or "nothing"
            raise UserError(
                f"episode metric '{name}' needs {error} in the info of every step (found: {found})"
            ) from None
        return figure.double().flatten(1).mean(1) if figure.dim() > 1 else figure.double()


class MeasuredEpisodes(View):
    """An environment that measures its episodes as they are played; its timesteps are those of the one below.

    Attributes:
        first: name -> [E] figures of the first episode of every environment; nan until it has ended.
    """

    def __init__(self, environment: Environment, metrics: Mapping[str, EpisodeMetric]) -> None:
        super().__init__(environment)
        self._metrics = dict(metrics)
        kinds = [metric.over for metric in metrics.values()]
        self._sums, self._mean, self._highest = (
            torch.tensor([kind in wanted for kind in kinds], device=self.device).unsqueeze(-1)
            for wanted in (("sum", "mean"), ("mean",), ("highest",))
        )
        self._start = torch.where(self._highest, -torch.inf, 0.0).double()
        self._running = self._start.repeat(1, self.num_envs)
        self._steps = torch.zeros(self.num_envs, dtype=torch.float64, device=self.device)
        self._first = torch.full_like(self._running, torch.nan)
        self._total = torch.zeros(len(kinds), dtype=torch.float64, device=self.device)
        self._episodes = 0

    @property
    def first(self) -> dict[str, Tensor]:
        return dict(zip(self._metrics, self._first, strict=True))

    def reset(self, where: Tensor | None = None) -> Timestep:
        if where is None:
            where = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        self._running = torch.where(where, self._start, self._running)
        self._steps = self._steps.masked_fill(where, 0.0)
        return super().reset(where)

    def collected(self) -> dict[str, float]:
        """Means over the episodes that have ended since the last call; empty where none has."""
        if not self._episodes:
            return {}
        means = (self._total / self._episodes).tolist()
        self._total, self._episodes = torch.zeros_like(self._total), 0
        return dict(zip(self._metrics, means, strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {
            "environment": super().state_dict(),
            "running": self._running.cpu().clone(),
            "steps": self._steps.cpu().clone(),
            "first": self._first.cpu().clone(),
            "total": self._total.cpu().clone(),
            "episodes": self._episodes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state["environment"])
        self._running, self._steps, self._first, self._total = (
            state[name].to(self.device) for name in ("running", "steps", "first", "total")
        )
        self._episodes = int(state["episodes"])

    def _shown(self, timestep: Timestep) -> Timestep:
        return timestep

    def step(self, actions: Mapping[str, Tensor]) -> Timestep:
        timestep = super().step(actions)
        figures = torch.stack([metric.step(name, timestep.info) for name, metric in self._metrics.items()])
        further = torch.where(self._highest, torch.maximum(self._running, figures), figures)
        self._running = torch.where(self._sums, self._running + figures, further)
        self._steps = self._steps + 1.0
        done = timestep.done
        ended = int(done.sum())
        if ended:
            episode = torch.where(self._mean, self._running / self._steps, self._running)
            self._first = torch.where(done & self._first.isnan(), episode, self._first)
            self._total = self._total + torch.where(done, episode, 0.0).sum(-1)
            self._episodes += ended
        return timestep
