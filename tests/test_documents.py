"""The documents name what there is, no more and no less."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from marl_pipeline.agents.rules import RULES

ROOT = Path(__file__).parents[1]


def keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_every_parameter_is_explained_and_none_that_is_not_there() -> None:
    params = YAML(typ="safe", pure=True).load((ROOT / "profiles" / "quickstart.yaml").read_text())
    rows = re.findall(r"^\| (`[a-z_.`, ]+`) \|", (ROOT / "docs" / "parameters.md").read_text(), re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`([a-z_]+\.[a-z_.]+)`", row)}
    there = set(keys(params))
    by_section = {
        "strategies",
        "validate_data.severity",
        "train_master.mappo",
        "train_symbol_agents.ppo",
        "calibrate_rewards.ranges",
    }
    unexplained = {key for key in there - documented if not any(key.startswith(f"{name}.") for name in by_section)}
    assert not unexplained
    assert documented - by_section <= there


def test_every_profile_is_listed() -> None:
    text = (ROOT / "docs" / "parameters.md").read_text()
    for profile in (ROOT / "profiles").glob("*.yaml"):
        assert f"| `{profile.stem}` |" in text


def test_links_between_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        if page.exists():
            for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
                assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_every_rule_and_its_options_are_listed() -> None:
    listed = dict(re.findall(r"^\| `([a-z_]+)` \| (.*?) \|", (ROOT / "docs" / "rules.md").read_text(), re.MULTILINE))
    assert listed.keys() == RULES.keys()
    for name, kind in RULES.items():
        assert set(re.findall(r"([a-z_]+)=", listed[name])) == set(kind.model_fields), name
