"""The validation report: every rule with what it found, in figures and words, and nothing volatile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from marl_pipeline.config import ValidateDataParams
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


def build_report(
    result: QualityResult,
    params: ValidateDataParams,
    *,
    calendar: str,
    frequency: str,
    adjustment: str,
) -> dict[str, Any]:
    """The report as JSON values.

    Keys: `bars`, `symbols`, `first`, `last`, `frequency`, `calendar`, `adjustment`; `summary` (a sentence a rule with
    findings); `rules` (every rule: severity, hits, symbols, first, last, hits per symbol, examples, or why it did not
    apply); `hidden` (bars hidden in all, and per symbol); `per_symbol` (span and number of bars).
    """
    bars = result.bars[~result.bars["duplicate"]]
    hidden = covered(bars, result.quarantine)
    per_symbol = bars.assign(hidden=hidden).groupby("symbol", sort=True)
    spans = per_symbol.agg(
        bars=("timestamp", "size"), first=("timestamp", "min"), last=("timestamp", "max"), hidden=("hidden", "sum")
    )
    names = [str(name) for name in spans.index]
    rules = [_rule(result, rule, params.severity[rule]) for rule in RULES]
    return {
        "bars": len(result.bars),
        "symbols": len(spans),
        "first": _moment(bars["timestamp"].min()),
        "last": _moment(bars["timestamp"].max()),
        "frequency": frequency,
        "calendar": calendar,
        "adjustment": adjustment,
        "summary": _summary(rules, int(hidden.sum()), len(bars)),
        "rules": rules,
        "hidden": {
            "bars": int(hidden.sum()),
            "share": round(float(hidden.mean()), 6),
            "per_symbol": {name: count for name, count in zip(names, spans["hidden"].tolist(), strict=True) if count},
        },
        "per_symbol": {
            str(row.Index): {"bars": int(row.bars), "first": _moment(row.first), "last": _moment(row.last)}
            for row in spans.itertuples()
        },
    }


def _rule(result: QualityResult, rule: str, severity: str) -> dict[str, Any]:
    hits = result.findings[result.findings["rule"] == rule]
    entry: dict[str, Any] = {
        "rule": rule,
        "severity": severity,
        "effect": EFFECT[severity],
        "meaning": RULES[rule].meaning,
        "remedy": RULES[rule].remedy,
        "applied": rule not in result.not_applied and severity != "ignore",
        "hits": len(hits),
        "symbols": int(hits["symbol"].nunique()),
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
            "per_symbol": {str(name): int(count) for name, count in counts.items()},
            "examples": [
                {"symbol": str(row.symbol), "timestamp": _moment(row.timestamp), "detail": str(row.detail)}
                for row in examples.head(EXAMPLES).sort_values(["timestamp", "symbol"], kind="stable").itertuples()
            ],
        }
    return entry


def _summary(rules: Sequence[dict[str, Any]], hidden: int, bars: int) -> list[str]:
    lines = []
    for entry in rules:
        if not entry["hits"]:
            continue
        most = sorted(entry["per_symbol"].items(), key=lambda item: (-item[1], item[0]))
        names = ", ".join(name for name, _ in most[:5]) + (", ..." if len(most) > 5 else "")
        lines.append(
            f"{entry['rule']}: {_counted(entry['hits'], 'bar')} of {_counted(entry['symbols'], 'symbol')} ({names}), "
            f"from {entry['first'][:10]} to {entry['last'][:10]}: {entry['effect']}. "
            f"{entry['meaning']} {entry['examples'][0]['symbol']}: {entry['examples'][0]['detail']}."
        )
    lines.append(
        f"{hidden:,} of {bars:,} bars ({100 * hidden / bars:.2f}%) are hidden." if lines else "Nothing was found."
    )
    return lines


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _moment(moment: Any) -> str:
    return pd.Timestamp(moment).strftime("%Y-%m-%dT%H:%M:%SZ")
