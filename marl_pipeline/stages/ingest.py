"""Stage ingest: bars and companions from wherever they are into the canonical tables, one file per symbol."""

from __future__ import annotations

from marl_pipeline.data.intake import take_in
from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.store.bars import save_bars, save_companions


def run(context: StageContext) -> None:
    """Writes `data/historical` and `data/companions`."""
    params = context.params.data
    taken = take_in(params)
    size = {"bars": float(len(taken.bars)), "symbols": float(taken.bars["symbol"].nunique())}
    context.on_step("bars read", 1, 2, size)
    with context.output("data/historical") as folder:
        save_bars(folder, taken.bars, params.frequency)
    with context.output("data/companions") as folder:
        save_companions(folder, taken.companions, taken.info)
    missing = taken.info["universe_absent"]
    context.on_step("stored", 2, 2, {"universe_absent": float(len(missing))})
    if missing:
        context.set_tags({"universe_absent": ", ".join(missing)})


if __name__ == "__main__":
    main(run)
