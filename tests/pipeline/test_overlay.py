"""Profiles and overrides become a checked params.yaml, and nothing is written when they are wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from marl_pipeline.config import load_params
from marl_pipeline.errors import UserError
from marl_pipeline.pipeline.overlay import _inline, merge, overrides_of, write

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "data" / "not_set", tmp_path / "data" / "not_set")
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copy(ROOT / "profiles" / "quickstart.yaml", tmp_path / "params.yaml")
    return tmp_path


def apply(root: Path, profile: str | None = None, *overrides: str, cwd: Path | None = None) -> None:
    write(root, merge(root, profile, overrides, cwd or root))


def test_override_changes_its_value_and_keeps_every_comment(root: Path) -> None:
    before = (root / "params.yaml").read_text()
    apply(root, None, "run.seeds=[5, 6, 7]")
    after = (root / "params.yaml").read_text()
    assert load_params(root / "params.yaml").run.seeds == (5, 6, 7)
    changed = [(old, new) for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new]
    assert len(changed) == 1
    assert changed[0][0].partition("#")[2] == changed[0][1].partition("#")[2] != ""


def test_quickstart_restores_the_default_byte_for_byte(root: Path) -> None:
    apply(root, "smoke", "run.workers=1", "data.columns={Date: timestamp}")
    assert (root / "params.yaml").read_bytes() != (root / "profiles" / "quickstart.yaml").read_bytes()
    apply(root, "quickstart")
    assert (root / "params.yaml").read_bytes() == (root / "profiles" / "quickstart.yaml").read_bytes()


def test_a_profile_is_laid_over_quickstart_not_over_what_was_there(root: Path) -> None:
    apply(root, None, "market.slippage_bps=9.0")
    apply(root, "smoke")
    assert load_params(root / "params.yaml").market.slippage_bps == 1.0


@pytest.mark.parametrize("profile", sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml")))
def test_every_shipped_profile_is_valid(root: Path, profile: str) -> None:
    apply(root, profile)
    load_params(root / "params.yaml")


def test_merging_twice_changes_nothing_more(root: Path) -> None:
    apply(root, "smoke", "data.start=2001-02-03")
    once = (root / "params.yaml").read_text()
    apply(root, None)
    assert (root / "params.yaml").read_text() == once


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("run.worker=1", "unknown parameter 'run.worker'; did you mean 'workers'"),
        ("nonsense.key=1", "unknown parameter 'nonsense'"),
        ("run=1", "write section.key=value"),
        ("run.workers", "write section.key=value"),
        ("run.workers=0", "'run.workers'"),
        ("run.seeds=[1,", "not valid YAML"),
        ("data.path=nowhere.csv", "no such file or folder: nowhere.csv"),
        ("data.vix=nowhere.csv", "'data.vix'"),
        ("validate_data.severity.stal=mask", "unknown parameter 'validate_data.severity.stal'"),
        ("train_symbol_agents.curriculum.7.iterations=1", "no entry 7"),
    ],
)
def test_a_wrong_override_is_one_line_and_writes_nothing(root: Path, override: str, words: str) -> None:
    before = sorted((path, path.read_bytes()) for path in root.rglob("*") if path.is_file())
    with pytest.raises(UserError) as error:
        apply(root, None, override)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted((path, path.read_bytes()) for path in root.rglob("*") if path.is_file()) == before


def test_unknown_profile_names_those_there_are(root: Path) -> None:
    with pytest.raises(UserError, match=r"--profile nope.*quickstart.*smoke"):
        apply(root, "nope")


def test_null_becomes_the_file_that_stands_for_none(root: Path) -> None:
    apply(root, None, "data.vix=null")
    assert load_params(root / "params.yaml").data.vix == "data/not_set"


def test_null_written_by_hand_is_understood_too(root: Path) -> None:
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("vix: data/not_set", "vix: null"))
    apply(root)
    assert load_params(root / "params.yaml").data.vix == "data/not_set"


def test_a_list_of_symbols_becomes_a_file_named_by_its_content(root: Path) -> None:
    apply(root, None, "data.universe=[MSFT, AAPL]")
    path = root / load_params(root / "params.yaml").data.universe
    assert path.read_text() == "MSFT\nAAPL\n"
    apply(root, None, "data.universe=[MSFT]")
    assert load_params(root / "params.yaml").data.universe != str(path.relative_to(root))


def test_a_benchmark_symbol_becomes_a_file_and_a_benchmark_file_stays_one(root: Path) -> None:
    apply(root, None, "data.benchmark=^GSPC")
    path = load_params(root / "params.yaml").data.benchmark
    assert path == "data/inputs/benchmark-^GSPC.txt"
    assert (root / path).read_text() == "^GSPC\n"
    (root / "spy.csv").write_text("x\n")
    apply(root, None, "data.benchmark=spy.csv")
    assert load_params(root / "params.yaml").data.benchmark == "spy.csv"


def test_paths_in_a_users_profile_are_relative_to_where_the_user_is(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "bars.csv").write_text("x\n")
    (elsewhere / "mine.yaml").write_text("data:\n  source: csv\n  path: bars.csv\n  start: 2011-01-03\n")
    apply(root, "mine.yaml", cwd=elsewhere)
    params = load_params(root / "params.yaml")
    assert params.data.path == "elsewhere/bars.csv"
    assert params.data.start == "2011-01-03"


def test_a_profile_that_is_not_a_mapping_is_refused(root: Path) -> None:
    (root / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match=r"list\.yaml: expected sections"):
        apply(root, "list.yaml")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9999, 9999) | st.text("abc -:#'\"\\,é", max_size=12),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    )
)
def test_any_value_survives_being_written_as_an_override(value: object) -> None:
    text = _inline(value)
    assert "\n" not in text
    assert YAML(typ="safe", pure=True).load(text) == value


def test_nested_and_dotted_overrides_are_the_same() -> None:
    nested = overrides_of({"run": {"seeds": [1, 2], "device": "cpu"}})
    dotted = overrides_of({"run.seeds": [1, 2], "run.device": "cpu"})
    assert nested == dotted == ["run.seeds=[1, 2]", "run.device=cpu"]
