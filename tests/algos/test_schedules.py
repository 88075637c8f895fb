"""What a schedule is at each share of a run, by hand."""

from __future__ import annotations

import pytest

from marl_pipeline.algos.common.schedules import Probability, Rate


@pytest.mark.parametrize(
    ("kind", "share", "values"),
    [
        ("constant", 1.0, [3.0] * 5),
        ("linear", 1.0, [3.0, 2.5, 2.0, 1.5, 1.0]),
        ("linear", 0.5, [3.0, 2.0, 1.0, 1.0, 1.0]),
        # half of (1 - cos(pi x)) is 0.1464 at a quarter of the way and 0.8536 at three quarters
        ("cosine", 1.0, [3.0, 3 - 2 * 0.1464466, 2.0, 3 - 2 * 0.8535534, 1.0]),
        ("cosine", 0.5, [3.0, 2.0, 1.0, 1.0, 1.0]),
    ],
)
def test_a_schedule_goes_from_its_start_to_its_end_over_its_share(kind: str, share: float, values: list[float]) -> None:
    end = 3.0 if kind == "constant" else 1.0
    schedule = Rate.model_validate({"kind": kind, "start": 3.0, "end": end, "share": share})
    assert [schedule.at(progress) for progress in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx(values)


def test_a_schedule_may_rise() -> None:
    rising = Probability.model_validate("linear 0.25 to 0.75 over 80%")
    assert [rising.at(progress) for progress in (0.0, 0.2, 0.4, 0.8, 1.0)] == pytest.approx(
        [0.25, 0.375, 0.5, 0.75, 0.75]
    )
