"""Symbols in parameters are text from the first byte, in files, lists and overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from marl_pipeline.pipeline import overlay
from marl_pipeline.yaml_text import load_yaml
from tests.data.bar_tables import ROOT

SYMBOLS = ("000001", "TRUE", "NA", "1E5", "null", "NO", "0x1F", "1_000", "12:30", "2021-01-04", "-", "~", "BRK.A")


def universe_of(merged: overlay.Merged) -> list[str]:
    (content,) = merged.inputs.values()
    return content.splitlines()


def test_a_list_of_symbols_keeps_every_byte_in_a_profile_and_in_an_override(tmp_path: Path) -> None:
    listed = f"[{', '.join(SYMBOLS)}]"
    assert universe_of(overlay.merge(ROOT, None, [f"data.universe={listed}"])) == list(SYMBOLS)
    profile = tmp_path / "mine.yaml"
    profile.write_text("data:\n  universe:\n" + "".join(f"    - {symbol}\n" for symbol in SYMBOLS if symbol != "-"))
    merged = overlay.merge(ROOT, str(profile))
    assert universe_of(merged) == [symbol for symbol in SYMBOLS if symbol != "-"]


@pytest.mark.parametrize("written", ["null", "~", ""])
def test_a_lone_null_still_means_none(written: str) -> None:
    assert load_yaml(f"data:\n  universe: {written}\n  number_format: {written}\n") == {
        "data": {"universe": None, "number_format": None}
    }


def test_names_of_columns_and_formats_of_numbers_are_text() -> None:
    values = load_yaml("data:\n  columns: {1: close, TRUE: symbol, 1E5: volume}\n  number_format: 1234.56\n")
    assert values == {
        "data": {"columns": {"1": "close", "TRUE": "symbol", "1E5": "volume"}, "number_format": "1234.56"}
    }
    merged = overlay.merge(ROOT, None, ["data.number_format=1234.56", "data.columns={TRUE: symbol}"])
    kept = load_yaml(merged.text)["data"]
    assert kept["number_format"] == "1234.56"
    assert kept["columns"] == {"TRUE": "symbol"}


def test_other_values_keep_their_types() -> None:
    text = "run: {seeds: [0, 1], device: cpu}\ndata: {frequency: 1Day, synthetic: {bars: 1600, signal: 1e-3}}\n"
    assert load_yaml(text) == {
        "run": {"seeds": [0, 1], "device": "cpu"},
        "data": {"frequency": "1Day", "synthetic": {"bars": 1600, "signal": 0.001}},
    }
    assert load_yaml("") is None
