"""The report as one self-contained HTML page: nothing is fetched, light and dark, readable on a phone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from marl_pipeline.reporting.blocks import bullets, card, document, figure, grid, note, section, table, tiles
from marl_pipeline.reporting.canvas import Picture
from marl_pipeline.reporting.inputs import input_lines, notes_of
from marl_pipeline.reporting.text import (
    ALWAYS_CAREFUL,
    COST_TITLES,
    METRIC_TITLES,
    accounts_of,
    gate_rows,
    headline,
    left_out,
    lineage_rows,
    others_of,
    seed_rows,
    statistics_lines,
    strategy_head,
    strategy_rows,
    window_rows,
    written,
)

MOST_FINDINGS = 20
"""Data findings shown on the page; the rest stays in `data/validation_report.json`."""

HOW_TO_READ = (
    "Every figure is out of sample: models and policies were fitted on data that ended before the bar they trade, and "
    "the test span was never used to choose anything.",
    "Costs are always in: commission, slippage, borrowing, and the cost of selling out at the end of each window.",
    "The policy is run once per seed. The headline is the mean of the seeds' returns; one lucky seed cannot carry it.",
    "An interval that includes zero means that this much data cannot tell the edge from luck. That is a reason for "
    "NO-GO, not a failure of the run: more history, more symbols or a stronger signal would be needed.",
    "The benchmark and equal weight pay to get in and are then left alone. They are hard to beat in a rising market.",
)


def page(
    summary: Mapping[str, Any],
    pictures: Sequence[Picture],
    training: Sequence[Picture],
    quality: Sequence[tuple[str, ...]],
) -> str:
    """The whole page.

    Args:
        summary: of `summarise`.
        pictures: equity first (it gets the full width), then the rest.
        training: training curves; may be empty.
        quality: rule, hits, symbols, first time and effect of every rule that found something.
    """
    hero, *others = pictures
    cards = [card(figure(picture)) for picture in others]
    windows = table(("window", "from", "to", "Sharpe", "equal weight", "benchmark", "return"), window_rows(summary))
    windows += note("Sharpe ratios of the window alone; the last column is the policy's return in it.")
    seeds = table(("seed", "Sharpe", "return", "deepest drawdown", "turnover a day"), seed_rows(summary))
    body = [
        _first_screen(summary),
        card(figure(hero)),
        grid(*cards, section("What trading cost", _costs(summary))),
        section("Gates", _gates(summary)),
        *([section("Strategies side by side", _strategies(summary))] if others_of(summary) else []),
        section("The policy beside its baselines", _metrics(summary)),
        section("How sure this is", bullets(statistics_lines(summary))),
        section("Window by window", windows),
        grid(section("Seed by seed", seeds), section("The data", _data(summary, quality))),
        section("Training", _training(training)),
        section("How to read this", bullets([*HOW_TO_READ, ALWAYS_CAREFUL])),
        section("Lineage", _lineage(summary)),
    ]
    return document(summary["decision"], body)


def _first_screen(summary: Mapping[str, Any]) -> str:
    go = summary["decision"] == "GO"
    policy, equal = summary["policy"], summary["baselines"]["equal_weight"]
    edge = summary["statistics"]["excess_sharpe"]["equal_weight"]
    failed = sum(not passed for *_, passed in gate_rows(summary))
    count = len(summary["gates"])
    said = "every gate passed" if go else f"{failed} of {count} gates failed"
    figures = [
        (
            "Return a year",
            written(policy["annual_return"], "percent"),
            f"equal weight {written(equal['annual_return'], 'percent')}",
        ),
        ("Sharpe ratio", written(policy["sharpe"], "number"), f"equal weight {written(equal['sharpe'], 'number')}"),
        (
            "Edge in Sharpe",
            written(edge["value"], "number"),
            f"{100 * edge['confidence']:.0f}%: {written(edge['low'], 'number')} to {written(edge['high'], 'number')}",
        ),
        (
            "Deepest drawdown",
            written(policy["max_drawdown"], "percent"),
            f"equal weight {written(equal['max_drawdown'], 'percent')}",
        ),
    ]
    return (
        f'<header class="{"go" if go else "nogo"}"><p class="what">Would this policy have made money after costs, on '
        f"data it never saw, by more than luck?</p>"
        f'<h1><span class="verdict">{escape(summary["decision"])}</span> <span class="said">{escape(said)}</span></h1>'
        f"{bullets(summary['reasons'])}{''.join(note(remark) for remark in summary['remarks'])}"
        f'<p class="what">{escape(headline(summary))}</p></header>{tiles(figures)}'
    )


def _gates(summary: Mapping[str, Any]) -> str:
    rows = []
    for (title, value, asked, passed), gate in zip(gate_rows(summary), summary["gates"], strict=True):
        mark = '<span class="pass">pass</span>' if passed else '<span class="fail">fail</span>'
        rows.append(
            f'<tr><td>{mark}</td><td>{escape(title)}</td><td class="n">{value}</td><td class="n">{asked}</td></tr>'
            f'<tr class="words"><td></td><td colspan="3">{escape(gate["words"])}</td></tr>'
        )
    head = '<tr><th></th><th>gate</th><th class="n">value</th><th class="n">asked for</th></tr>'
    return f'<div class="scroll"><table class="gates"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _metrics(summary: Mapping[str, Any]) -> str:
    accounts = accounts_of(summary)
    rows = [
        (title, *(written(figures[name], kind) for figures in accounts.values()))
        for name, (title, kind) in METRIC_TITLES.items()
    ]
    return table(("", *accounts), rows, kind="metrics")


def _strategies(summary: Mapping[str, Any]) -> str:
    words = (
        "The gates are applied to the primary strategy only; the others traded the same windows with the same seeds at "
        "the same costs. An interval that includes zero cannot be distinguished from no difference."
    )
    return table(strategy_head(summary), strategy_rows(summary), kind="strategies") + note(words)


def _costs(summary: Mapping[str, Any]) -> str:
    costs = summary["costs"]
    largest = max((costs[name] for name in COST_TITLES), default=0.0)
    rows = "".join(
        f'<tr><td>{escape(title)}</td><td class="bar"><i style="width:'
        f'{100 * costs[name] / largest if largest > 0 else 0:.1f}%"></i></td>'
        f'<td class="n">{written(costs[name], "fine percent")}</td></tr>'
        for name, title in COST_TITLES.items()
    )
    total = (
        f'<tr class="sum"><td>Together</td><td></td><td class="n">{written(costs["total"], "fine percent")}</td></tr>'
    )
    policy = summary["policy"]
    words = (
        f"Over the whole test span, as a share of mean equity. {summary['test']['fills']} fills over all seeds; "
        f"{written(policy['turnover_per_day'], 'percent')} of the account was traded on an average day."
    )
    if policy["cost_share"] is not None:
        words += f" Costs took {written(policy['cost_share'], 'percent')} of the profit before costs."
    if summary["test"]["kill_switch_bars"]:
        words += f" The kill switch was on at {summary['test']['kill_switch_bars']} bars (all seeds together)."
    return f"<table>{rows}{total}</table>{note(words)}"


def _data(summary: Mapping[str, Any], quality: Sequence[tuple[str, ...]]) -> str:
    data = summary["data"]
    parts = [
        f"<p>{data['symbols']} symbols, {data['bars']} bars, {data['first']} to {data['last']}; "
        f"{len(data['features'])} features per bar.</p>"
    ]
    missing = [*input_lines(summary), *notes_of(summary), *left_out(summary)]
    if missing:
        parts.append(bullets(missing))
    if quality:
        parts.append(table(("finding", "hits", "symbols", "first", "effect"), quality[:MOST_FINDINGS]))
        parts.append(note("Examples with symbol and time are in data/validation_report.json."))
    else:
        parts.append("<p>The data checks found nothing.</p>")
    hidden = data["quality"].get("bars_hidden", 0)
    if hidden:
        share = written(data["quality"]["share_hidden"], "fine percent")
        parts.append(note(f"{hidden} bars ({share}) are hidden from features, models and trading."))
    return "".join(parts)


def _training(training: Sequence[Picture]) -> str:
    if not training:
        return "<p>The policies left no training curves.</p>"
    return grid(*(card(figure(picture)) for picture in training))


def _lineage(summary: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td><code>{escape(value)}</code></td></tr>"
        for name, value in lineage_rows(summary)
    )
    words = note("Hashes of content: the same inputs give the same page, byte for byte.")
    return f'<table class="lineage">{rows}</table>{words}'
