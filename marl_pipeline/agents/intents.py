"""What the symbol agents intend, pooled into a message for the master."""

from __future__ import annotations

import torch
from torch import Tensor

from marl_pipeline.envs.protocol import GroupSpec, discrete_actions
from marl_pipeline.nn.distributions import masked_log_softmax


class PooledIntents:
    """Implements `algos.common.messages.Message`: the mean and the maximum of the symbols' action probabilities.

    Its width does not depend on the number of symbols.
    """

    sender = "symbols"
    receiver = "master"
    field = "intents"

    def width(self, sender: GroupSpec) -> int:
        return 2 * discrete_actions(sender)

    def __call__(self, parameters: Tensor, action_mask: Tensor) -> Tensor:
        return pooled_intents(parameters, action_mask)


def pooled_intents(logits: Tensor, mask: Tensor) -> Tensor:
    """[E, 2 x actions] from the logits [E, N, actions] of the symbol agents and their action mask.

    Symbols that can only hold do not count; all zeros says that no symbol can do anything else.
    """
    probabilities = masked_log_softmax(logits, mask).exp()
    free = (mask.sum(-1) > 1).unsqueeze(-1)
    counted = torch.where(free, probabilities, 0.0)
    mean = counted.sum(1) / free.sum(1).clamp(min=1)
    return torch.cat([mean, counted.amax(1)], dim=-1)
