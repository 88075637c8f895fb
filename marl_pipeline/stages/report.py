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
)
from marl_pipeline.reporting.text import markdown
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.paths import DATASET, HIERARCHY, MASTER, SYMBOL_AGENTS, seed_folder
from marl_pipeline.store.policies import load_metadata
from marl_pipeline.store.trials import TRIALS, read_trials

SUMMARY = Path("reports/rl_validation_summary")
VALIDATION = Path("data/validation_report.json")

TIERS = (("Symbol agents", SYMBOL_AGENTS), ("Master", MASTER), ("Fine-tuning", HIERARCHY))
CURVES_PER_TIER = 4
TELLING = ("validation", "net", "reward", "return", "entropy", "value", "policy")
"""Words in the names of curves worth showing, most telling first."""


def run(context: StageContext) -> None:
    root, params = context.root, context.params
    record = TrackRecord(
        equity=load_table(root / EQUITY),
        trades=load_table(root / TRADES),
        baselines=load_table(root / BASELINES),
        dataset=load_dataset(root / DATASET, mmap=True),
    )
    validation = json.loads((root / VALIDATION).read_text())
    summary = summarise(
        record,
        params.report,
        trials=read_trials(root / TRIALS),
        lineage={**lineage("report", root), "seeds": ", ".join(map(str, params.run.seeds))},
        quality={
            "bars_hidden": validation["totals"]["hidden_bars"],
            "share_hidden": validation["totals"]["hidden_share"],
            "findings": {rule["rule"]: rule["count"] for rule in validation["rules"] if rule["count"]},
        },
    )
    training = training_pictures(root, params.run.seeds)
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
    """Equity, drawdown, positions, and exposure with the directives."""
    headline, seeds, accounts = record.headline, record.seeds, record.baseline_accounts
    named = {
        "policy": headline,
        "equal weight": accounts["equal_weight"],
        f"benchmark ({record.dataset.benchmark_name})": accounts["benchmark"],
        "SL thresholds": accounts["sl_thresholds"],
    }
    tables = list(seeds.values())
    weights, what = grouped_weights(tables, record.dataset)
    mode = np.stack([table["directive_mode"].to_numpy() for table in tables])
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
    ]


def training_pictures(root: Path, seeds: Sequence[int]) -> list[Picture]:
    """The most telling curves of each tier, one line per seed; a tier that left none is passed over."""
    pictures: list[Picture] = []
    for title, tier in TIERS:
        curves: dict[str, dict[str, Curve]] = defaultdict(dict)
        for seed in seeds:
            folder = seed_folder(root / tier, seed)
            metadata: Mapping[str, Any] = load_metadata(folder) if (folder / "metadata.json").exists() else {}
            for value in metadata.get("curves", ()):
                curve = Curve.from_json(value)
                if curve.x:
                    curves[curve.name][f"seed {seed}"] = curve
        for name in sorted(curves, key=_how_telling)[:CURVES_PER_TIER]:
            shown = name.replace("_", " ").replace("/", ": ")
            pictures.append(curve_picture(f"curve-{len(pictures)}", f"{title}: {shown}", curves[name]))
    return pictures


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
