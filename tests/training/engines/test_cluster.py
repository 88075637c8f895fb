"""A private cluster of Ray: a slow start is tried again, another error is not."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from marl_pipeline.errors import UserError
from marl_pipeline.training.engines import cluster

SLOW = Exception("The current node timed out during startup. This could happen because the GCS has become overloaded.")


@pytest.mark.parametrize("slow_starts", [0, 1, 4])
def test_a_start_that_timed_out_is_tried_again(monkeypatch: pytest.MonkeyPatch, slow_starts: int) -> None:
    failures, stopped = [SLOW] * slow_starts, []

    def init(**_: Any) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: stopped.append(True))
    if slow_starts == 4:
        with pytest.raises(UserError, match="did not start in 4 attempts"), cluster.connected(cpus=1):
            pass
    else:
        with cluster.connected(cpus=1):
            pass
        assert len(stopped) == slow_starts + 1


def test_another_error_of_ray_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def init(**_: Any) -> None:
        asked.append(True)
        raise ValueError("no such resource")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ValueError, match="no such resource"), cluster.connected(cpus=1):
        pass
    assert len(asked) == 1
