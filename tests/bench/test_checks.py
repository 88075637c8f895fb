"""The bench of `marl data check`: clean bars in a file of their own, and figures of the process that checked them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marl_pipeline.bench.checks import bench_checks, made_bars
from marl_pipeline.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_the_check_of_made_bars_is_measured(file_format: str) -> None:
    found = bench_checks(ROOT, symbols=3, years=2, calendar="XNYS", seed=0, file_format=file_format)
    assert found.bars == 3 * (250 + 252), "sessions of 2023 and 2024"
    assert found.findings == 0
    assert found.cpu_s > 0
    assert 0.05 < found.peak_gib < 4
    assert json.loads(json.dumps(found.as_dict()))["symbols"] == 3
    assert "peak memory" in found.lines()[1]


def test_a_calendar_that_is_too_short_is_refused() -> None:
    with pytest.raises(UserError, match="does not reach back 400 years"):
        made_bars(2, 400, "XNYS", 0)
