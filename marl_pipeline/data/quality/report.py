"""The validation report: every rule with what it found, in figures and words, and nothing volatile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from marl_pipeline.config import ValidateDataParams
from marl_pipeline.data.dataset import BoolArray
from marl_pipeline.data.quality.catalogue import RULES
from marl_pipeline.data.quality.verdict import QualityResult, covered

EXAMPLES = 50
"""Findings of a rule that are listed one by one: the first in time of every symbol in turn."""

EFFECT = {
    "warn": "noted only",
    "mask": "these bars are hidden",
    "mask_after": "the symbol is hidden from then on",
    "fail": "the stage stops",
    "ignore": "not looked at",
}


@dataclass(frozen=True)
class Used:
    """What becomes of the rows of a source: dropped as duplicates, hidden, or used."""

    rows: int
    dropped: int
    conflicting: int
    hidden: int

    @property
    def unused(self) -> int:
        return self.dropped + self.hidden

    def in_words(self) -> str:
        """One sentence that accounts for every row."""
        if not self.dropped:
            return f"{self.hidden:,} of {self.rows:,} bars ({100 * self.hidden / self.rows:.2f}%) are hidden."
        return (
            f"{self.unused:,} of {self.rows:,} rows ({100 * self.unused / self.rows:.2f}%) are not used: "
            f"{self.dropped:,} dropped as duplicates ({self.conflicting:,} of them with other values), "
            f"{self.hidden:,} of the {self.rows - self.dropped:,} bars left are hidden."
        )


def build_report(
    result: QualityResult,
    params: ValidateDataParams,
    *,
    calendar: str,
    frequency: str,
    adjustment: str,
    counts: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """The report as JSON values. `counts` of the rules are those of the checkpoint, or else of the findings.

    Keys: `frequency`, `calendar`, `adjustment`; `totals` (rows of the source, bars, symbols, span, findings; rows
    dropped as duplicates and how many of them differ from the row used; hidden bars and their share of the bars; the
    share of the rows that is not used for either reason); `notes` (on the bars as a whole); `summary` (these and a
    sentence a rule with findings); `rules` (every rule: severity, count, hits of each symbol, first, last, examples, or
    why it did not apply); `symbols` (of each: span, bars, how many are hidden and, of hourly ones, the minutes of the
    hour that they start at).
    """
    bars = result.bars[~result.bars["duplicate"]]
    hidden = covered(bars, result.quarantine)
    used = Used(len(result.bars), len(result.bars) - len(bars), int(result.bars["conflict"].sum()), int(hidden.sum()))
    if counts is None:
        counts = {str(rule): int(count) for rule, count in result.findings["rule"].value_counts(sort=False).items()}
    rules = [_rule(result, rule, params.severity[rule], counts.get(rule, 0)) for rule in RULES]
    return {
        "frequency": frequency,
        "calendar": calendar,
        "adjustment": adjustment,
        "totals": {
            "rows": used.rows,
            "bars": len(bars),
            "dropped_rows": used.dropped,
            "conflicting_rows": used.conflicting,
            "symbols": int(bars["symbol"].nunique()),
            "first": _moment(bars["timestamp"].min()),
            "last": _moment(bars["timestamp"].max()),
            "findings": sum(counts.values()),
            "hidden_bars": used.hidden,
            "hidden_share": round(used.hidden / len(bars), 6),
            "unused_share": round(used.unused / used.rows, 6),
        },
        "notes": list(result.notes),
        "summary": [*result.notes, *_summary(rules, bars, used)],
        "rules": rules,
        "symbols": _symbols(bars, hidden, frequency),
    }


def _symbols(bars: pd.DataFrame, hidden: BoolArray, frequency: str) -> dict[str, dict[str, Any]]:
    spans = bars.assign(hidden=hidden).groupby("symbol", sort=True)
    table = spans.agg(bars=("timestamp", "size"), first=("timestamp", "min"), last=("timestamp", "max"))
    columns = (table.index, table["bars"].tolist(), spans["hidden"].sum().tolist(), table["first"], table["last"])
    out: dict[str, dict[str, Any]] = {
        str(name): {"bars": count, "hidden": hidden_bars, "first": _moment(first), "last": _moment(last)}
        for name, count, hidden_bars, first, last in zip(*columns, strict=True)
    }
    if frequency == "1Hour":
        minutes = bars["timestamp"].dt.strftime(":%M")
        for name, counts in minutes.groupby(bars["symbol"], sort=True):
            out[str(name)]["minutes"] = counts.value_counts(sort=False).sort_index().to_dict()
    return out


def _rule(result: QualityResult, rule: str, severity: str, count: int) -> dict[str, Any]:
    hits = result.findings[result.findings["rule"] == rule]
    entry: dict[str, Any] = {
        "rule": rule,
        "severity": severity,
        "effect": EFFECT[severity],
        "meaning": RULES[rule].meaning,
        "remedy": RULES[rule].remedy,
        "applied": rule not in result.not_applied and severity != "ignore",
        "count": count,
        "symbols": {},
    }
    if rule in result.not_applied:
        entry["why_not"] = result.not_applied[rule]
    if len(hits):
        counts = hits["symbol"].value_counts(sort=False).sort_index()
        examples = hits.assign(turn=hits.groupby("symbol").cumcount()).sort_values(
            ["turn", "timestamp", "symbol"], kind="stable"
        )
        entry |= {
            "first": _moment(hits["timestamp"].min()),
            "last": _moment(hits["timestamp"].max()),
            "symbols": {str(name): int(count) for name, count in counts.items()},
            "examples": [
                {"symbol": str(row.symbol), "timestamp": _moment(row.timestamp), "detail": str(row.detail)}
                for row in examples.head(EXAMPLES).sort_values(["timestamp", "symbol"], kind="stable").itertuples()
            ],
        }
    return entry


def _summary(rules: Sequence[dict[str, Any]], bars: pd.DataFrame, used: Used) -> list[str]:
    lines = []
    for entry in rules:
        if "examples" not in entry:
            continue
        most = sorted(entry["symbols"].items(), key=lambda item: (-item[1], item[0]))
        names = ", ".join(name for name, _ in most[:5]) + (", ..." if len(most) > 5 else "")
        example = entry["examples"][0]
        lines.append(
            f"{entry['rule']}: {_counted(entry['count'], 'bar')} of {_counted(len(entry['symbols']), 'symbol')} "
            f"({names}), from {entry['first'][:10]} to {entry['last'][:10]}: {entry['effect']}. {entry['meaning']} "
            f"First: {example['symbol']}, {example['detail']}."
        )
        if entry["rule"] == "zero_volume":
            sizes = bars["symbol"].value_counts()
            never = [name for name, count in entry["symbols"].items() if count == sizes[name]]
            if never:
                lines.append(f"zero_volume: {', '.join(never)} never trade: an index cannot be bought.")
    lines.append(used.in_words() if lines else "Nothing was found.")
    return lines


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _moment(moment: Any) -> str:
    return pd.Timestamp(moment).strftime("%Y-%m-%dT%H:%M:%SZ")
