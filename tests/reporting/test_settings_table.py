"""The documented settings are those of the presets."""

from __future__ import annotations

from pathlib import Path

from marl_pipeline.reporting.settings_table import settings_tables

PAGE = Path(__file__).parents[2] / "docs" / "algorithms.md"


def test_the_documented_settings_are_those_of_the_presets() -> None:
    documented = PAGE.read_text().partition("<!-- settings -->\n")[2].partition("\n<!-- /settings -->")[0]
    assert documented == settings_tables(), "put what `marl settings` prints between the marks in docs/algorithms.md"


def test_a_schedule_is_printed_in_words() -> None:
    assert "| `exploration` | linear 1 to 0.05 over 30% |" in settings_tables()
