"""Stage `strategies`: checks what params.yaml names and writes what each stage needs to know of each strategy."""

from __future__ import annotations

from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.store.paths import STRATEGIES
from marl_pipeline.strategies.resolve import resolve


def run(context: StageContext) -> None:
    resolved = resolve(context.params.strategies)
    with context.output(STRATEGIES) as folder:
        for name, stages in resolved.items():
            (folder / name).mkdir(parents=True)
            for stage, specification in stages.items():
                (folder / name / f"{stage}.json").write_text(specification.as_json())


if __name__ == "__main__":
    main(run)
