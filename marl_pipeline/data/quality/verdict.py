"""What the findings do: bars and symbols that are hidden, and the clean table that the features are built from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from marl_pipeline.config import ValidateDataParams
from marl_pipeline.data.calendar import utc_array
from marl_pipeline.data.calendar_fit import refuse_other_calendar
from marl_pipeline.data.dataset import BoolArray
from marl_pipeline.data.quality.catalogue import NOT_APPLIED, RULES, Need
from marl_pipeline.data.quality.rules import HIDING, Flags, find_flags
from marl_pipeline.data.quality.table import VALUES, sort_bars, standing
from marl_pipeline.data.quality.words import details
from marl_pipeline.data.spacing import refuse_other_spacing
from marl_pipeline.errors import UserError

UNHIDING = ("ignore", "warn", "fail")
"""Severities of a rule that cannot hide a bar."""


@dataclass(frozen=True)
class QualityResult:
    """The outcome of a check.

    Attributes:
        findings: symbol, timestamp, rule, severity, detail; sorted by rule (in the order of the catalogue), symbol,
            time. A duplicate or a row out of order is found once per row.
        quarantine: symbol, timestamp, until, reason: the symbol's bars from `timestamp` to `until` (both
            included; NaT: from then on) are hidden because of the rule `reason`. Sorted.
        not_applied: rules that say nothing about this source, and why.
        notes: lines about the bars as a whole.
        bars: the sorted rows with one boolean column a rule, and `conflict`: a duplicate with other values.
        fatal: the findings of severity `fail`.
    """

    findings: pd.DataFrame
    quarantine: pd.DataFrame
    not_applied: dict[str, str]
    notes: tuple[str, ...]
    bars: pd.DataFrame

    @property
    def fatal(self) -> pd.DataFrame:
        return self.findings[self.findings["severity"] == "fail"]

    def raise_fatal(self, origin: str = "bars") -> None:
        """Raises UserError that names the first rule of severity `fail` with hits."""
        if not self.fatal.empty:
            raise UserError(self.refusal(str(self.fatal["rule"].iloc[0]), origin))

    def refusal(self, rule: str, origin: str, count: int | None = None) -> str:
        """One line that says what `rule` found, in `count` bars (by default its findings), and the way on."""
        hits = self.findings[self.findings["rule"] == rule].sort_values(["timestamp", "symbol"], kind="stable")
        way_on = f"To go on without those bars, set validate_data.severity.{rule} to mask"
        if RULES[rule].hides_nothing:
            way_on = f"To go on all the same, set validate_data.severity.{rule} to warn"
        found = f"{len(hits) if count is None else count} bars of {hits['symbol'].nunique()} symbols"
        if len(hits):
            first = hits.iloc[0]
            found += f", first {first['symbol']} at {first['timestamp']:%Y-%m-%d %H:%M} UTC ({first['detail']})"
        return f"{origin}: {rule}: {found}; {RULES[rule].remedy} {way_on}"


def check(
    bars: pd.DataFrame,
    *,
    calendar: str,
    frequency: str,
    adjustment: str,
    params: ValidateDataParams,
    corporate_actions: pd.DataFrame | None = None,
) -> QualityResult:
    """Applies every rule to a canonical bar table, in the row order of the source, duplicates included.

    A finding on a bar needs the rows with its own stamp or earlier ones only, but for the rules that hide nothing.

    Args:
        bars: symbol, timestamp (UTC), open, high, low, close, volume; NaN columns where the source gives none.
        calendar: exchange calendar such as XNYS.
        frequency: `1Day` or `1Hour`.
        adjustment: `none`, `split` or `total`: what the prices already contain.
        corporate_actions: symbol, ex_date, kind, value; those that the prices do not contain are expected as steps.

    Raises:
        UserError: no bars; bars of another frequency or exchange; a severity for an unknown
            rule, for none, or one that a rule cannot have. Findings of severity `fail` do not raise here: see
            `QualityResult.raise_fatal`.
    """
    _check_severity(params)
    if bars.empty:
        raise UserError("bars: no rows to check")
    stamps = utc_array(bars["timestamp"])
    refuse_other_spacing(bars["symbol"], stamps, frequency, "bars")
    note = refuse_other_calendar(stamps, frequency, calendar)
    table = sort_bars(bars, calendar=calendar, frequency=frequency)
    flags = find_flags(table, params, adjustment=adjustment, actions=corporate_actions)
    not_applied = rules_not_applied(bars, frequency)
    conflict = flags.figures["conflict"]
    stamp = pd.DatetimeIndex(table.stamp).tz_localize("UTC")
    symbol = pd.array(table.names[table.symbol], dtype="str")
    return QualityResult(
        findings=_findings(flags, symbol, stamp, params, not_applied),
        quarantine=_quarantine(flags, symbol, stamp, params),
        not_applied=not_applied,
        notes=() if note is None else (note,),
        bars=pd.DataFrame(
            {"symbol": symbol, "timestamp": stamp, **table.values, **flags.columns, "conflict": conflict}
        ),
    )


def _check_severity(params: ValidateDataParams) -> None:
    unknown = sorted(set(params.severity) - set(RULES))
    if unknown:
        raise UserError(f"validate_data.severity: unknown rule '{unknown[0]}' (known: {', '.join(RULES)})")
    missing = [rule for rule in RULES if rule not in params.severity]
    if missing:
        raise UserError(
            f"validate_data.severity: rule '{missing[0]}' has no severity; add it, such as {missing[0]}: warn"
        )
    for rule in RULES.values():
        if rule.hides_nothing and params.severity[rule.name] not in UNHIDING:
            raise UserError(
                f"validate_data.severity.{rule.name}: {rule.hides_nothing}, so it is one of {', '.join(UNHIDING)} "
                f"(found '{params.severity[rule.name]}')"
            )


def rules_not_applied(bars: pd.DataFrame, frequency: str) -> dict[str, str]:
    """The rules that say nothing about these bars, and why."""
    absent: dict[Need, bool] = {
        "close": False,
        "range": not bars[["open", "high", "low"]].notna().to_numpy().any(),
        "volume": not bars["volume"].notna().to_numpy().any(),
        "hourly": frequency != "1Hour",
    }
    return {rule.name: NOT_APPLIED[rule.needs] for rule in RULES.values() if absent[rule.needs]}


def _findings(
    flags: Flags,
    symbol: pd.api.extensions.ExtensionArray,
    stamp: pd.DatetimeIndex,
    params: ValidateDataParams,
    not_applied: dict[str, str],
) -> pd.DataFrame:
    parts = []
    for rule, column in flags.columns.items():
        severity = params.severity[rule]
        if severity == "ignore" or rule in not_applied:
            continue
        rows = np.flatnonzero(column)
        parts.append(
            pd.DataFrame(
                {
                    "symbol": symbol[rows],
                    "timestamp": stamp[rows],
                    "rule": pd.array([rule] * len(rows), dtype="str"),
                    "severity": pd.array([severity] * len(rows), dtype="str"),
                    "detail": pd.array(details(flags, rule, rows), dtype="str"),
                }
            )
        )
    if not parts:
        return pd.DataFrame({"symbol": symbol[:0], "timestamp": stamp[:0], "rule": [], "severity": [], "detail": []})
    return pd.concat(parts, ignore_index=True)


def _quarantine(
    flags: Flags, symbol: pd.api.extensions.ExtensionArray, stamp: pd.DatetimeIndex, params: ValidateDataParams
) -> pd.DataFrame:
    """Duplicates are not in it: another row of the bar stands."""
    parts = []
    for rule, column in flags.columns.items():
        if params.severity[rule] not in HIDING or rule == "duplicate":
            continue
        rows = np.flatnonzero(column)
        until: pd.Index[pd.Timestamp] = stamp[rows]
        if params.severity[rule] == "mask_after":
            end = flags.moves.until_row[rows] if rule == "split_like" and flags.moves else np.full(len(rows), -1)
            until = stamp[np.maximum(end, 0)].where(end >= 0)
        parts.append(pd.DataFrame({"symbol": symbol[rows], "timestamp": stamp[rows], "until": until, "reason": rule}))
    if not parts:
        empty = {"symbol": symbol[:0], "timestamp": stamp[:0], "until": stamp[:0]}
        return pd.DataFrame({**empty, "reason": pd.array([], dtype="str")})
    table = pd.concat(parts, ignore_index=True)
    return table.sort_values(["symbol", "timestamp", "reason"], kind="stable", ignore_index=True)


def clean(bars: pd.DataFrame, quarantine: pd.DataFrame) -> pd.DataFrame:
    """The bars sorted by symbol and time, the row that stands of each bar only, with a boolean column `quarantined`.

    Args:
        bars: a canonical bar table as ingested.
        quarantine: symbol, timestamp, until, reason, as from `check`.
    """
    codes, _ = pd.factorize(bars["symbol"], sort=True)
    stamp = utc_array(bars["timestamp"])
    order = np.lexsort((stamp, codes))
    values = {name: bars[name].to_numpy(dtype=np.float64)[order] for name in VALUES}
    stands = standing(codes[order].astype(np.int64), stamp[order], values)
    table = bars.iloc[order[stands]].reset_index(drop=True)
    return table.assign(quarantined=covered(table, quarantine))


def covered(bars: pd.DataFrame, quarantine: pd.DataFrame) -> BoolArray:
    """[n] whether the quarantine hides each row."""
    names = pd.Index(quarantine["symbol"].unique()).sort_values()
    symbol = names.get_indexer(pd.Index(bars["symbol"]))
    stamp = utc_array(bars["timestamp"]).astype(np.int64)
    of = names.get_indexer(pd.Index(quarantine["symbol"]))
    start, until = utc_array(quarantine["timestamp"]).astype(np.int64), utc_array(quarantine["until"])
    end = np.where(np.isnat(until), np.iinfo(np.int64).max, until.astype(np.int64))
    # A row is hidden if the latest end among its symbol's spans that started by then is not before it.
    order = np.lexsort((start, of))
    spans = pd.DataFrame({"symbol": of[order], "stamp": start[order], "end": end[order]})
    spans["end"] = spans.groupby("symbol")["end"].cummax()
    rank_of = np.unique(np.concatenate([stamp, spans["stamp"].to_numpy()]))
    width = np.int64(len(rank_of) + 1)
    key = spans["symbol"].to_numpy() * width + np.searchsorted(rank_of, spans["stamp"].to_numpy())
    place = np.searchsorted(key, symbol * width + np.searchsorted(rank_of, stamp), side="right") - 1
    if len(spans) == 0:
        return np.zeros(len(bars), dtype=bool)
    found = spans.iloc[np.maximum(place, 0)]
    hidden: BoolArray = (
        (place >= 0) & (symbol >= 0) & (found["symbol"].to_numpy() == symbol) & (found["end"].to_numpy() >= stamp)
    )
    return hidden
