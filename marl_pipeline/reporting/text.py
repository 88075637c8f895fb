"""The judgement in words and tables: for the terminal and as Markdown. The page is in `page.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from marl_pipeline.reporting.inputs import MOST_NOTES, input_lines, notes_of

BASELINE_TITLES = {
    "equal_weight": "Equal weight",
    "equal_weight_monthly": "Equal weight, monthly",
    "benchmark": "Benchmark",
    "sl_thresholds": "SL thresholds",
    "cash": "Cash",
}

METRIC_TITLES: Mapping[str, tuple[str, str]] = {
    "total_return": ("Total return", "percent"),
    "annual_return": ("Return a year", "percent"),
    "volatility": ("Volatility a year", "percent"),
    "sharpe": ("Sharpe ratio", "number"),
    "sortino": ("Sortino ratio", "number"),
    "max_drawdown": ("Deepest drawdown", "percent"),
    "calmar": ("Calmar ratio", "number"),
    "hit_rate": ("Days with a gain", "percent"),
    "skew": ("Skew", "number"),
    "excess_kurtosis": ("Excess kurtosis", "number"),
    "exposure": ("Invested", "percent"),
    "turnover_per_day": ("Turnover a day", "percent"),
    "annual_cost": ("Costs a year", "fine percent"),
    "cost_share": ("Costs / gross profit", "percent"),
}

SHORT_TITLES = {
    "annual_return": "return/yr",
    "volatility": "vol/yr",
    "sharpe": "Sharpe",
    "max_drawdown": "drawdown",
    "turnover_per_day": "turnover/d",
    "annual_cost": "costs/yr",
}
"""The metrics a terminal has room for."""

GATE_KINDS = {
    "net_return": "percent",
    "max_drawdown": "percent",
    "deflated_sharpe": "percent",
    "seeds_positive": "percent",
    "enough_data": "count",
}
"""How a gate's value is written; the others are plain numbers."""

COST_TITLES = {
    "commission": "Commission",
    "slippage": "Slippage and impact",
    "borrow": "Borrowing",
    "closing": "Selling out at each window's end",
}

ALWAYS_CAREFUL = (
    "A GO says that this policy, on these bars, after these costs, did better than holding everything, by more than "
    "luck explains. It is not a promise about next year."
)


def written(value: float | None, kind: str) -> str:
    """A figure as the report writes it; an undefined one is a dash."""
    if value is None:
        return "\u2013"
    match kind:
        case "percent":
            text = f"{100 * value:.1f}%"
        case "fine percent":
            text = f"{100 * value:.2f}%"
        case "count":
            text = f"{value:.0f}"
        case _:
            text = f"{value:.2f}"
    if not text.strip("-0.%"):
        text = text.lstrip("-")
    return text.replace("-", "\u2212")


def gate_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    """Title, value, what was asked for, and whether it passed, of every gate."""
    rows = []
    for gate in summary["gates"]:
        kind = GATE_KINDS.get(gate["name"], "number")
        sign = {">": ">", ">=": "\u2265", "<=": "\u2264"}[gate["comparison"]]
        asked = f"{sign} {written(gate['threshold'], kind)}"
        rows.append((gate["title"], written(gate["value"], kind), asked, bool(gate["passed"])))
    return rows


def accounts_of(summary: Mapping[str, Any]) -> dict[str, Mapping[str, float | None]]:
    """Title -> metrics, the policy (the primary strategy) first."""
    named = {BASELINE_TITLES.get(name, name): figures for name, figures in summary["baselines"].items()}
    benchmark = f"Benchmark ({summary['data']['benchmark']})"
    return {"Policy": summary["policy"]} | {
        benchmark if title == "Benchmark" else title: figures for title, figures in named.items()
    }


def summary_table(summary: Mapping[str, Any]) -> RenderableType:
    """What `marl run` prints at its end: the decision, why, the gates, and the policy beside its baselines."""
    go = summary["decision"] == "GO"
    head = Text(f" {summary['decision']} ", style="bold white on green" if go else "bold white on red")
    head.append(f"  {headline(summary)}", style="not bold default on default")
    reasons = Text("\n".join(f"\u2022 {reason}" for reason in summary["reasons"]))
    reasons.append("".join(f"\n{remark}" for remark in summary["remarks"]), style="italic")
    gates = Table(title="Gates", title_justify="left")
    for column in ("gate", "value", "asked for", ""):
        gates.add_column(column, justify="right" if column in ("value", "asked for") else "left")
    for title, value, asked, passed in gate_rows(summary):
        gates.add_row(title, value, asked, Text("pass", style="green") if passed else Text("fail", style="red"))
    figures = Table(title="Out of sample, after costs", title_justify="left")
    figures.add_column("")
    for title in SHORT_TITLES.values():
        figures.add_column(title, justify="right", no_wrap=True)
    said = [Text(f"Note: {note}") for note in notes_of(summary)[:MOST_NOTES]]
    policy, *baselines = accounts_of(summary).items()
    strategies = [(name, part["metrics"]) for name, part in others_of(summary).items()]
    for title, metrics in ((policy_title(summary), policy[1]), *strategies, *baselines):
        figures.add_row(title, *(written(metrics[name], METRIC_TITLES[name][1]) for name in SHORT_TITLES))
    if not strategies:
        return Group(head, reasons, gates, figures, *said)
    edges = Table(title=f"Edges in Sharpe ratio, with their {level(summary)} intervals", title_justify="left")
    for column in ("strategy", "over equal weight", f"over {summary['primary']}", "seeds from"):
        edges.add_column(column, justify="left" if column == "strategy" else "right")
    for row in edge_rows(summary):
        edges.add_row(*row)
    return Group(head, reasons, gates, figures, edges, *said)


def policy_title(summary: Mapping[str, Any]) -> str:
    """The policy bears its name where others stand beside it."""
    return f"{summary['primary']} (primary)" if others_of(summary) else "Policy"


def others_of(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Every strategy but the primary one."""
    return {name: part for name, part in summary["strategies"].items() if name != summary["primary"]}


def level(summary: Mapping[str, Any]) -> str:
    """Confidence of the intervals: 95%."""
    return f"{100 * summary['statistics']['sharpe']['confidence']:.0f}%"


def interval(edge: Mapping[str, float] | None) -> str:
    """0.12 (-0.30 to 0.55)."""
    if edge is None:
        return "\u2013"
    low, high = written(edge["low"], "number"), written(edge["high"], "number")
    return f"{written(edge['value'], 'number')} ({low} to {high})"


def edge_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Strategy, its edge over equal weight, over the primary strategy, and the range of its seeds."""
    primary = summary["strategies"][summary["primary"]]
    return [
        (name, interval(part["excess_sharpe"]), interval(part["against_primary"]), _range_of_seeds(part))
        for name, part in ((policy_title(summary), primary), *others_of(summary).items())
    ]


def _range_of_seeds(part: Mapping[str, Any]) -> str:
    sharpes = [seed["sharpe"] for seed in part["seeds"]]
    low, high = written(min(sharpes), "number"), written(max(sharpes), "number")
    return low if low == high else f"{low} to {high}"


STRATEGY_HEAD = (
    "strategy", "kind", "Sharpe", "seeds", "return a year", "deepest drawdown", "turnover a day", "costs a year",
)  # fmt: skip


def strategy_head(summary: Mapping[str, Any]) -> tuple[str, ...]:
    words = level(summary)
    return (*STRATEGY_HEAD, f"over equal weight ({words})", f"over {summary['primary']} ({words})")


def strategy_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The one table of all strategies, the primary one first, and of the baselines on the same days."""
    shown = ("annual_return", "max_drawdown", "turnover_per_day", "annual_cost")
    rows = []
    primary = summary["strategies"][summary["primary"]]
    parts = ((policy_title(summary), primary), *others_of(summary).items())
    for (title, part), (_, over_equal, over_primary, seeds) in zip(parts, edge_rows(summary), strict=True):
        metrics = part["metrics"]
        figures = (written(metrics[name], METRIC_TITLES[name][1]) for name in shown)
        rows.append(
            (title, part["kind"], written(metrics["sharpe"], "number"), seeds, *figures, over_equal, over_primary)
        )
    excess = summary["statistics"]["excess_sharpe"]
    for name, metrics in summary["baselines"].items():
        figures = (written(metrics[figure], METRIC_TITLES[figure][1]) for figure in shown)
        own = excess.get(name)
        turned = None if own is None else {"value": -own["value"], "low": -own["high"], "high": -own["low"]}
        sharpe = written(metrics["sharpe"], "number")
        title = BASELINE_TITLES.get(name, name)
        rows.append((title, "baseline", sharpe, "\u2013", *figures, "\u2013", interval(turned)))
    return rows


def headline(summary: Mapping[str, Any]) -> str:
    """One line on what was tested."""
    test, seeds, windows = summary["test"], len(summary["seeds"]), len(summary["windows"])
    return (
        f"{test['sessions']} unseen trading days, {test['first']} to {test['last']}, {windows} "
        f"{'window' if windows == 1 else 'windows'}, {seeds} {'seed' if seeds == 1 else 'seeds'}, "
        f"{summary['data']['symbols']} symbols"
    )


def left_out(summary: Mapping[str, Any]) -> list[str]:
    """What this run could not use, in sentences."""
    data, lines = summary["data"], []
    if not data["has_range"]:
        lines.append(
            "The bars have closes only: features that need open, high or low are left out, and orders fill at the next "
            "bar's close."
        )
    if not data["has_volume"]:
        lines.append(
            "The bars have no volume: features that need it are left out, and no order is limited by volume or moves "
            "the price."
        )
    if data["sectors"] <= 1:
        lines.append("No sector map was given.")
    for name in ("macro", "sentiment"):
        if not data[name]:
            lines.append(f"No {name} data were given.")
    if data["benchmark"].lower() == "equal weight":
        lines.append("No benchmark was given: the equal-weighted universe stands in for it.")
    return lines


def statistics_lines(summary: Mapping[str, Any]) -> list[str]:
    """What the statistics say, in sentences."""
    figures = summary["statistics"]
    own, excess = figures["sharpe"], figures["excess_sharpe"]
    level = f"{100 * own['confidence']:.0f}%"
    lines = [
        f"Sharpe ratio {written(own['value'], 'number')}, {level} interval {written(own['low'], 'number')} to "
        f"{written(own['high'], 'number')} (stationary bootstrap, {figures['bootstrap_samples']} samples, blocks of "
        f"{own['block']:.1f} days on average)."
    ]
    for name, interval in excess.items():
        title = BASELINE_TITLES.get(name, name)
        lines.append(
            f"Against {title if title.startswith('SL') else title.lower()}: {written(interval['value'], 'number')} "
            f"({written(interval['low'], 'number')} to {written(interval['high'], 'number')}), "
            f"{_p_value(interval['p_value'])}."
        )
    trials = figures["trials"]
    lines += [
        f"Smallest edge over equal weight that this much data shows with {100 * figures['power']:.0f}% probability: "
        f"{written(figures['smallest_detectable_edge'], 'number')} in Sharpe ratio.",
        f"Deflated Sharpe ratio {written(figures['deflated_sharpe'], 'percent')} for {trials} "
        f"{'trial' if trials == 1 else 'trials'} (the best of them would show "
        f"{written(figures['sharpe_of_best_lucky_trial'], 'number')} by luck).",
    ]
    return lines


def _p_value(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def markdown(summary: Mapping[str, Any]) -> str:
    """The judgement as Markdown, tables and sentences without pictures."""
    parts = [
        f"# {summary['decision']}",
        headline(summary) + ".",
        "\n".join(f"- {reason}" for reason in summary["reasons"]),
        *summary["remarks"],
        "## Gates",
        _table(
            ("gate", "value", "asked for", "result"),
            [
                (title, value, asked, "pass" if passed else "**fail**")
                for title, value, asked, passed in gate_rows(summary)
            ],
        ),
        *(
            ("## Strategies side by side", _table(strategy_head(summary), strategy_rows(summary)))
            if others_of(summary)
            else ()
        ),
        "## Policy beside its baselines",
        metrics_markdown(summary),
        "## Statistics",
        "\n".join(f"- {line}" for line in statistics_lines(summary)),
        "## Windows",
        _table(
            ("window", "from", "to", "policy Sharpe", "equal weight", "benchmark", "policy return"),
            window_rows(summary),
        ),
        "## Seeds",
        _table(("seed", "Sharpe", "return", "deepest drawdown", "turnover a day"), seed_rows(summary)),
        *(("## Data", "\n".join(f"- {line}" for line in input_lines(summary))) if input_lines(summary) else ()),
        *(("## Notes", "\n".join(f"- {line}" for line in notes_of(summary))) if notes_of(summary) else ()),
        "## Left out",
        "\n".join(f"- {line}" for line in left_out(summary)) or "Nothing.",
        "## Lineage",
        _table(("what", "hash"), [(name, str(value)) for name, value in lineage_rows(summary)]),
        ALWAYS_CAREFUL,
    ]
    return "\n\n".join(parts) + "\n"


def metrics_markdown(summary: Mapping[str, Any]) -> str:
    accounts = accounts_of(summary)
    rows = [
        (title, *(written(figures[name], kind) for figures in accounts.values()))
        for name, (title, kind) in METRIC_TITLES.items()
    ]
    return _table(("", *accounts), rows)


def window_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            str(row["window"]),
            row["first"],
            row["last"],
            *(written(row[name]["sharpe"], "number") for name in ("policy", "equal_weight", "benchmark")),
            written(row["policy"]["total_return"], "percent"),
        )
        for row in summary["windows"]
    ]


def seed_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            str(row["seed"]),
            written(row["sharpe"], "number"),
            written(row["total_return"], "percent"),
            written(row["max_drawdown"], "percent"),
            written(row["turnover_per_day"], "percent"),
        )
        for row in summary["seeds"]
    ]


def lineage_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested hashes as flat rows."""
    rows = []
    for name, value in summary["lineage"].items():
        if isinstance(value, Mapping):
            rows += [(f"{name}: {part}", str(item)) for part, item in value.items()]
        else:
            rows.append((name, "\u2013" if value is None else str(value)))
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    lines.insert(1, "|" + " --- |" * len(head))
    return "\n".join(lines)
