"""Stage `report`: GO or NO-GO and why, as JSON, Markdown and one self-contained page."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marl_pipeline.config import ReportParams
from marl_pipeline.evaluation.records import MODES, Curve
from marl_pipeline.evaluation.summary import TrackRecord, summarise
from marl_pipeline.evaluation.track_record import grouped_weights, window_edges
from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.pipeline.lineage import lineage
from marl_pipeline.pipeline.records import BASELINES, EQUITY, TRADES, load_table
from marl_pipeline.reporting.canvas import Picture
from marl_pipeline.reporting.page import page
from marl_pipeline.reporting.pictures import (
    curve_picture,
    directives_picture,
    drawdown_picture,
    equity_picture,
    positions_picture,
    strategies_picture,
)
from marl_pipeline.reporting.text import markdown
from marl_pipeline.store.bars import load_info
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.paths import DATASET, MASTER, POLICIES, SYMBOL_AGENTS, policy_folder
from marl_pipeline.store.policies import load_metadata
from marl_pipeline.store.trials import TRIALS, read_trials

SUMMARY = Path("reports/rl_validation_summary")
VALIDATION = Path("data/validation_report.json")
COMPANIONS = Path("data/companions")

TIERS = (("Symbol agents", SYMBOL_AGENTS), ("Master", MASTER), ("Fine-tuning", POLICIES))
CURVES_PER_TIER, CURVES_OF_OTHERS = 4, 1
TELLING = ("validation", "net", "reward", "return", "entropy", "value", "policy")
"""Words in the names of curves worth showing, most telling first."""


def run(context: StageContext) -> None:
    root, params = context.root, context.params
    record = TrackRecord(
        equity=load_table(root / EQUITY),
        trades=load_table(root / TRADES),
        baselines=load_table(root / BASELINES),
        dataset=load_dataset(root / DATASET, mmap=True),
        kinds={name: strategy.kind for name, strategy in params.strategies.items()},
        primary=params.report.primary,
    )
    validation = json.loads((root / VALIDATION).read_text())
    info = load_info(root / COMPANIONS)
    shown = ("name", "source", "frequency", "calendar", "adjustment", "companions", "notes")
    summary = summarise(
        record,
        params.report,
        trials=read_trials(root / TRIALS),
        lineage={**lineage("report", root), "seeds": ", ".join(map(str, params.run.seeds))},
        quality={
            "bars_hidden": validation["totals"]["hidden_bars"],
            "share_hidden": validation["totals"]["hidden_share"],
            "rows_dropped": validation["totals"]["dropped_rows"],
            "share_unused": validation["totals"]["unused_share"],
            "findings": {rule["rule"]: rule["count"] for rule in validation["rules"] if rule["count"]},
        },
        inputs={"profile": params.run.profile, **{name: info[name] for name in shown}},
    )
    training = training_pictures(root, list(record.kinds), params.report.primary, params.run.seeds)
    html = page(summary, track_pictures(record, params.report), training, quality_rows(validation))
    text = json.dumps(summary, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    for suffix, content in ((".json", text), (".md", markdown(summary)), (".html", html)):
        path = SUMMARY.with_suffix(suffix)
        with context.output(path) as target:
            target.write_text(content, encoding="utf-8")
        context.log_artifact(path)
    context.log_metrics({name: value for name, value in summary["policy"].items() if value is not None})
    context.set_tags({"decision": summary["decision"]})


def track_pictures(record: TrackRecord, params: ReportParams) -> list[Picture]:
    """Equity, drawdown, positions, exposure with the directives, and all strategies where there are several."""
    headline, seeds, accounts = record.headline, record.seeds, record.baseline_accounts
    named = {
        "policy": headline,
        "equal weight": accounts["equal_weight"],
        f"benchmark ({record.dataset.benchmark_name})": accounts["benchmark"],
        "SL thresholds": accounts["sl_thresholds"],
    }
    others = {name: record.headline_of(name) for name in record.kinds if name != record.primary}
    tables = list(seeds.values())
    weights, what = grouped_weights(tables, record.dataset)
    mode = np.stack([table["directive_mode"].to_numpy() for table in tables])
    side_by_side = [strategies_picture({record.primary: headline, **others, "equal weight": accounts["equal_weight"]})]
    return [
        equity_picture(named, seeds, window_edges(record.equity)),
        drawdown_picture(dict(list(named.items())[:3]), params.gates.max_drawdown),
        positions_picture(headline["timestamp"], weights, what),
        directives_picture(
            headline["timestamp"],
            headline["exposure"].to_numpy(),
            np.mean([table["directive_risk"].to_numpy() for table in tables], axis=0),
            np.stack([(mode == index).mean(axis=0) for index in range(len(MODES))], axis=1),
        ),
        *(side_by_side if others else ()),
    ]


def training_pictures(root: Path, strategies: Sequence[str], primary: str, seeds: Sequence[int]) -> list[Picture]:
    """The most telling curves of each phase, one line per seed, the primary strategy first; a phase that left none is
    passed over."""
    pictures: list[Picture] = []
    for strategy in sorted(strategies, key=lambda name: name != primary):
        most = CURVES_PER_TIER if strategy == primary else CURVES_OF_OTHERS
        for title, tier in TIERS:
            curves = _curves([policy_folder(root / tier, strategy, seed) for seed in seeds], seeds)
            for name in sorted(curves, key=_how_telling)[:most]:
                shown = name.replace("_", " ").replace("/", ": ")
                words = f"{title}: {shown}" if strategy == primary else f"{strategy}, {title.lower()}: {shown}"
                pictures.append(curve_picture(f"curve-{len(pictures)}", words, curves[name]))
    return pictures


def _curves(folders: Sequence[Path], seeds: Sequence[int]) -> dict[str, dict[str, Curve]]:
    """Name of a figure -> seed -> its curve, of what has one."""
    curves: dict[str, dict[str, Curve]] = defaultdict(dict)
    for seed, folder in zip(seeds, folders, strict=True):
        metadata: Mapping[str, Any] = load_metadata(folder) if (folder / "metadata.json").exists() else {}
        for value in metadata.get("curves", ()):
            curve = Curve.from_json(value)
            if curve.x:
                curves[curve.name][f"seed {seed}"] = curve
    return curves


def _how_telling(name: str) -> tuple[int, str]:
    places = [place for place, word in enumerate(TELLING) if word in name]
    return (min(places, default=len(TELLING)), name)


def _named(symbols: Mapping[str, int], most: int = 3) -> str:
    """The symbols with the most hits, and how many more there are."""
    ranked = sorted(symbols, key=lambda name: (-symbols[name], name))
    more = len(ranked) - most
    return ", ".join(ranked[:most]) + (f" and {more} more" if more > 0 else "")


def quality_rows(validation: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rule, hits, symbols, first day and effect of each rule of the validation report that found something."""
    return [
        (
            rule["rule"].replace("_", " "),
            str(rule["count"]),
            _named(rule["symbols"]),
            rule["first"][:10],
            rule["effect"],
        )
        for rule in validation["rules"]
        if rule["count"]
    ]


if __name__ == "__main__":
    main(run)
