"""A small share of the 20,000 files of `make fuzz`, and two planted faults that it must find."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marl_pipeline.data import number_format, written_dates
from tools.fuzz.compare import outcome
from tools.fuzz.files import draw

SEED = 11


def kinds(folder: Path, indices: range) -> dict[str, int]:
    counts = {"equal": 0, "refused": 0, "wrong": 0, "crash": 0}
    for index in indices:
        found = outcome(draw(SEED, index), folder)
        counts[found.kind] += 1
        assert found.kind in ("equal", "refused") or not found.words.startswith("Traceback"), found.words
    return counts


def is_found(folder: Path) -> bool:
    """Whether one of the first files is wrong."""
    return any(outcome(draw(SEED, index), folder).kind == "wrong" for index in range(400))


def test_a_file_is_the_same_whenever_it_is_drawn() -> None:
    assert draw(SEED, 3).data == draw(SEED, 3).data
    assert draw(SEED, 3).data != draw(SEED, 4).data


def test_no_drawn_file_is_silently_wrong(tmp_path: Path) -> None:
    counts = kinds(tmp_path, range(150))
    assert counts["wrong"] == counts["crash"] == 0
    assert counts["equal"] > 100


def test_a_number_format_guessed_from_the_first_cell_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def guess(cores: object, written: object) -> bool:
        return number_format._all(cores.slice(0, 1), written.core)  # type: ignore[attr-defined]

    monkeypatch.setattr(number_format, "_fits", guess)
    monkeypatch.setattr(number_format, "_between", lambda left, *_: left[-1])
    assert is_found(tmp_path)


def test_a_month_taken_for_the_day_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written_dates, "_undecided", lambda whole, texts: next(iter(whole.values())))
    real = written_dates._finish
    monkeypatch.setattr(
        written_dates, "_dated", lambda shape, fields, texts, order: _first_order(real, shape, fields, texts)
    )
    assert is_found(tmp_path)


def _first_order(finish: object, shape: str, fields: object, texts: object) -> object:
    time, _ = written_dates._time_of_day(fields)
    if shape == "named":
        return written_dates.Refused("{0}", [0])
    a, b, c = (written_dates._int(fields, name) for name in "abc")
    days = written_dates._day(a, b, c) if shape in ("year", "han", "compact") else written_dates._day(c, a, b)
    days = np.where(np.isnat(days), written_dates._day(c, b, a), days)
    return finish(days, time, fields, texts, "")  # type: ignore[operator]
