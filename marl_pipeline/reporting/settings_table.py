"""The presets as tables for documents: one row a setting, one column an algorithm."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from marl_pipeline.agents.registry import ALGORITHMS, preset
from marl_pipeline.scenarios.presets import all_presets

SCHEDULE = frozenset({"kind", "start", "end", "share"})
"""The keys of a schedule (`algos.schedules`)."""


def settings_tables() -> str:
    """Markdown: a table for each family of algorithms with equal settings, then what environments change."""
    families: dict[str, list[str]] = {}
    for name, entry in ALGORITHMS.items():
        families.setdefault(entry.algorithm.__name__, []).append(name)
    tables = [_table(names) for names in families.values()]
    changes = [
        f"| {name} | `{environment}` | `{key}` | {_written(value)} |"
        for environment, presets in all_presets().items()
        for name, overrides in presets.items()
        for key, value in _flat(overrides)
    ]
    head = ["| algorithm | environment | setting | value |", "|---|---|---|---|"]
    return "\n\n".join([*tables, "\n".join(head + changes)])


def _table(names: Sequence[str]) -> str:
    columns = []
    for name in names:
        values = preset(name)
        columns.append(dict(_flat({key: values[key] for key in ("envs",) if key in values} | values["default"])))
    rows = dict.fromkeys(key for column in columns for key in column)
    lines = [f"| setting | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for key in rows:
        cells = [_written(column[key]) if key in column else "" for column in columns]
        lines.append(f"| `{key}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings by dotted key; a schedule stays whole."""
    for key, value in values.items():
        if isinstance(value, Mapping) and not value.keys() >= SCHEDULE:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _written(value: Any) -> str:
    """A value as in YAML; a schedule as `linear 0.001 to 0.0001 over 100%`."""
    if isinstance(value, Mapping):
        if value["kind"] == "constant":
            return f"{value['start']:g}"
        return f"{value['kind']} {value['start']:g} to {value['end']:g} over {value['share']:.0%}"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)
