"""Atomic checkpoints: a killed run resumes where it was and ends in the same bytes as an undisturbed one.

They live outside DVC's outputs (DVC deletes a stage's outputs before it starts) and are keyed by the stage's
inputs, so a changed parameter or bar never meets an old checkpoint.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any, Protocol

import torch

from marl_pipeline.errors import UserError

State = dict[str, Any]


class Checkpointer(Protocol):
    """Where a long computation leaves its state. `load` gives None when there is nothing to resume."""

    def load(self) -> State | None: ...

    def save(self, state: State) -> None: ...

    def child(self, name: str) -> Checkpointer: ...


class NoCheckpoint:
    """For computations too short to be worth resuming, and for tests."""

    def load(self) -> State | None:
        return None

    def save(self, state: State) -> None:
        return None

    def child(self, name: str) -> NoCheckpoint:
        return self


class FileCheckpointer:
    """Keeps the latest state in `<folder>/state.pt`, replaced atomically.

    The state may hold tensors, numbers, strings, and lists, tuples and dicts of them (`torch.load` with
    `weights_only=True` reads it back: no code runs on load).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "state.pt"

    def load(self) -> State | None:
        """Raises:
        UserError: the file is damaged.
        """
        if not self._path.exists():
            return None
        try:
            state: State = torch.load(self._path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{self._path}: damaged ({reason}); delete it to start this run anew") from error
        return state

    def save(self, state: State) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._path)

    def child(self, name: str) -> FileCheckpointer:
        """A separate checkpoint for one part of the computation (one fold, one refit)."""
        return FileCheckpointer(self.folder / name)
