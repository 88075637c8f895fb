"""params.yaml is complete, typed and refuses what it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from marl_pipeline.config import load_params, parse_params, restrict
from marl_pipeline.errors import UserError

ROOT = Path(__file__).parents[1]


def values() -> dict:
    return YAML(typ="safe", pure=True).load((ROOT / "profiles" / "quickstart.yaml").read_text())


def test_quickstart_is_complete() -> None:
    assert parse_params(values(), "quickstart").run.seeds


def test_unknown_parameter_is_named_with_the_nearest_known_one() -> None:
    wrong = values()
    wrong["market"]["slipage_bps"] = 1.0
    with pytest.raises(UserError, match=r"x: unknown parameter 'market.slipage_bps'; did you mean 'slippage_bps'"):
        parse_params(wrong, "x")


def test_missing_parameter_is_named() -> None:
    wrong = values()
    del wrong["spans"]["embargo"]
    with pytest.raises(UserError, match=r"parameter 'spans.embargo' is missing"):
        parse_params(wrong, "x")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("run", "workers", 0), ("run", "seeds", []), ("spans", "test_fraction", 0.9), ("data", "frequency", "5Min")],
)
def test_value_out_of_range_is_named(section: str, key: str, value: object) -> None:
    wrong = values()
    wrong[section][key] = value
    with pytest.raises(UserError, match=f"'{section}.{key}'"):
        parse_params(wrong, "x")


def test_windows_that_do_not_count_up_are_refused() -> None:
    wrong = values()
    wrong["walk_forward"]["windows"] = [0, 2]
    with pytest.raises(UserError, match="count up from 0"):
        parse_params(wrong, "x")


def test_missing_file_and_malformed_yaml_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("run: [1,\n")
    with pytest.raises(UserError, match="not valid YAML") as error:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(error.value)


def test_a_stage_cannot_read_what_it_does_not_declare() -> None:
    seen = restrict(parse_params(values(), "x"), ["run.threads", "spans"])
    assert seen.run.threads >= 1
    assert seen.spans.embargo >= 0
    with pytest.raises(AttributeError, match=r"run\.device.*not declared"):
        _ = seen.run.device
    with pytest.raises(AttributeError, match=r"market.*not declared"):
        _ = seen.market
