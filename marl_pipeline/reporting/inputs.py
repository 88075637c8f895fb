"""What a run read, in sentences: the data set, the profile, and each companion with its span."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ADJUSTMENTS = {
    "none": "prices as they were traded",
    "split": "prices adjusted for splits",
    "total": "prices adjusted for splits and dividends",
}

MOST_NOTES = 12
"""Notes that a terminal shows; the page and the Markdown show all."""


def span_in_words(entry: Mapping[str, Any]) -> str:
    """One line on a companion: its file, rows, symbols, span and what is known on how many bars."""
    parts = [entry.get("name", entry.get("file", "")), f"{entry['rows']:,} rows"]
    if "symbols" in entry:
        parts.append(f"{entry['symbols']} symbols")
    if "first" in entry:
        parts.append(f"{entry['first']} to {entry['last']}")
    known = entry.get("known", {})
    if known:
        parts.append(", ".join(f"{name} known on {one['bars']:,} bars" for name, one in list(known.items())[:8]))
    return "; ".join(parts)


def input_lines(summary: Mapping[str, Any]) -> list[str]:
    """The data set and the profile, then a line for every companion that was given."""
    inputs = summary["data"].get("inputs", {})
    if not inputs:
        return []
    adjustment = inputs["adjustment"]
    lines = [
        f"Data set {inputs['name']} (source {inputs['source']}), profile {inputs['profile']}: {inputs['frequency']} "
        f"bars, calendar {inputs['calendar']}, {ADJUSTMENTS[adjustment]} (data.adjustment {adjustment})."
    ]
    companions = inputs["companions"]
    if "membership" not in companions:
        lines.append("Membership: none given; every symbol counts as a member throughout.")
    return lines + [f"{name.replace('_', ' ').capitalize()}: {span_in_words(one)}." for name, one in companions.items()]


def notes_of(summary: Mapping[str, Any]) -> list[str]:
    """What had to be said of the universe and the companions when they were read."""
    return list(summary["data"].get("inputs", {}).get("notes", ()))
