"""Stage ingest: bars and companions from wherever they are into the canonical tables, one file per symbol."""

from __future__ import annotations

from marl_pipeline.data.companions import load_companions
from marl_pipeline.data.sources import absent, read_source, select, synthetic_from
from marl_pipeline.data.sources.names import read_universe
from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.store.bars import save_bars, save_companions


def run(context: StageContext) -> None:
    """Writes `data/historical` and `data/companions`."""
    params = context.params.data
    universe = read_universe(params.universe)
    source = read_source(params)
    bars = select(source, universe=universe, start=params.start, end=params.end)
    context.on_step("bars read", 1, 2, {"bars": float(len(bars)), "symbols": float(bars["symbol"].nunique())})
    sectors = synthetic_from(params).sectors if params.source == "synthetic" else None
    companions = load_companions(params, source, sectors)
    missing = absent(bars, universe)
    info = {
        "source": params.source,
        "frequency": params.frequency,
        "calendar": params.calendar,
        "adjustment": params.adjustment,
        "symbols": {str(name): int(rows) for name, rows in bars["symbol"].value_counts().sort_index().items()},
        "universe_absent": missing,
    }
    with context.output("data/historical") as folder:
        save_bars(folder, bars, params.frequency)
    with context.output("data/companions") as folder:
        save_companions(folder, companions, info)
    context.on_step("stored", 2, 2, {"universe_absent": float(len(missing))})
    if missing:
        context.set_tags({"universe_absent": ", ".join(missing)})


if __name__ == "__main__":
    main(run)
