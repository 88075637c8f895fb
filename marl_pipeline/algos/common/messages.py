"""What one group of agents shows another at the same step, before it decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from torch import Tensor

from marl_pipeline.envs.protocol import GroupSpec, GroupStep


class Message(Protocol):
    """From the action distributions of group `sender` to one more field `field` in the observation of `receiver`.

    The sender comes before the receiver in the environment's groups. An environment without the receiver is played
    without the message.
    """

    sender: str
    receiver: str
    field: str

    def width(self, sender: GroupSpec) -> int:
        """Of the field."""
        ...

    def __call__(self, parameters: Tensor, action_mask: Tensor) -> Tensor:
        """[E, width] from the parameters of the sender's distributions [E, A, P] and its mask."""
        ...


def with_message(groups: Mapping[str, GroupSpec], message: Message | None) -> dict[str, GroupSpec]:
    """The groups as their agents see them: the receiver's observation has the field of the message."""
    extended = dict(groups)
    if message is not None and message.receiver in extended:
        spec = extended[message.receiver]
        width = message.width(extended[message.sender])
        extended[message.receiver] = replace(spec, observation={**spec.observation, message.field: (width,)})
    return extended


def delivered(step: GroupStep, name: str, shown: Tensor) -> GroupStep:
    """The receiver's step with the message [E, width] in every agent's observation, as field `name`."""
    agents = step.acts.shape[1]
    field = shown.unsqueeze(1).expand(-1, agents, -1)
    return replace(step, observation={**step.observation, name: field})
