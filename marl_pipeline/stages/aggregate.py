"""Stage `aggregate`: windows become one out-of-sample track record per strategy and seed, beside the baselines on the
same bars."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from marl_pipeline.data.windows import walk_forward_windows
from marl_pipeline.evaluation.baselines import baselines
from marl_pipeline.evaluation.track_record import chain
from marl_pipeline.evaluation.units import corporate_events, units_of, with_traded_units
from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.pipeline.records import BASELINES, EQUITY, EVENTS, TRADES, load_record, record_folder, save_table
from marl_pipeline.store.bars import load_companions
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.models import load_signals
from marl_pipeline.store.paths import DATASET, SIGNALS, WALK_FORWARD

COMPANIONS = Path("data/companions")


def run(context: StageContext) -> None:
    params, root = context.params, context.root
    dataset = load_dataset(root / DATASET, mmap=True)
    windows = walk_forward_windows(dataset.bars, params.spans, params.walk_forward)
    section, actions = params.data, load_companions(root / COMPANIONS).corporate_actions
    units = units_of(
        dataset.panel,
        actions,
        adjustment=section.adjustment,
        frequency=section.frequency,
        calendar=section.calendar,
    )
    played = [(name, seed) for name in params.strategies for seed in params.run.seeds]
    equities, trades, events = [], [], []
    for step, (name, seed) in enumerate(played, start=1):
        records = [load_record(record_folder(name, window.index, seed, root / WALK_FORWARD)) for window in windows]
        equity, fills = chain(records, dataset.panel.symbols, params.market)
        equities.append(_named("strategy", name, equity))
        trades.append(_named("strategy", name, with_traded_units(fills, dataset.panel, units)))
        events.append(_named("strategy", name, corporate_events(equity, dataset.panel, units)))
        growth = float(equity["equity"].iloc[-1] / equity["equity"].iloc[0])
        context.on_step("track record", step, len(played) + 1, {"net_return": growth - 1.0})
    accounts = baselines(dataset, load_signals(root / SIGNALS), windows, params.market)
    named = [_named("name", name, table) for name, table in accounts.items()]
    context.on_step("baselines", len(played) + 1, len(played) + 1, {})
    for path, tables in ((EQUITY, equities), (TRADES, trades), (EVENTS, events), (BASELINES, named)):
        with context.output(path) as target:
            save_table(target, pd.concat(tables, ignore_index=True))


def _named(column: str, name: str, table: pd.DataFrame) -> pd.DataFrame:
    """`table` with a first column that holds `name`."""
    names = pd.DataFrame({column: pd.Series([name] * len(table), index=table.index, dtype="str")})
    return pd.concat([names, table], axis=1)


if __name__ == "__main__":
    main(run)
