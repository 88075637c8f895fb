"""Options that take a list."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

from marl_pipeline.errors import UserError

LISTS = frozenset({"--seeds", "--algos"})


class ListCommand(TyperCommand):
    """A command whose `LISTS` take several words: `--seeds 0 1 2` is read as `--seeds 0,1,2`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        joined: list[str] = []
        words: list[str] | None = None
        for arg in args:
            if words is not None and not arg.startswith("-"):
                words.append(arg)
                continue
            if words:
                joined.append(",".join(words))
            words = [] if arg in LISTS else None
            joined.append(arg)
        return super().parse_args(ctx, joined + ([",".join(words)] if words else []))


def listed(text: str) -> list[str]:
    """The entries of `a,b,c`."""
    return [part for part in text.split(",") if part]


def seeds_of(text: str) -> list[int]:
    """`0,1,2` or `0..4` (both ends included) as numbers.

    Raises:
        UserError: it is neither, or a seed is named twice.
    """
    seeds: list[int] = []
    for part in listed(text):
        match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", part)
        if match is None:
            raise UserError(f"--seeds {text}: write whole numbers, as in --seeds 0 1 2 or --seeds 0..4")
        first, last = int(match[1]), int(match[2] or match[1])
        seeds += range(first, last + 1)
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text}: name at least one seed, and each once")
    return seeds
