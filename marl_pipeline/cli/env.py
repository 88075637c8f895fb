"""`marl env`: play the trading simulator, and look at what was played."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from marl_pipeline.cli.console import Json, fail, print_json, print_rich, repository

if TYPE_CHECKING:
    from marl_pipeline.config import Params

env = typer.Typer(no_args_is_help=True, help="Look at the trading simulator: the current data set, or a synthetic one.")

Reward = Literal["net", "guide_v3_2", "net_shaped"]
Preset = Literal["guide_v3_2", "net_shaped"]
Mode = Literal["accounts", "portfolio"]
Seed = Annotated[int, typer.Option(help="Of the actions and of the starts.")]


def _params(root: Path, **market: Any) -> Params:
    """params.yaml with those fields of `market` changed that are not None."""
    from marl_pipeline.config import load_params

    params = load_params(root / "params.yaml")
    changed = {name: value for name, value in market.items() if value is not None}
    return params.model_copy(update={"market": params.market.model_copy(update=changed)})


@env.command("smoke")
def smoke(
    steps: Annotated[int, typer.Option(min=1, help="Random steps to play in each mode.")] = 10_000,
    seed: Seed = 0,
    reward: Annotated[Reward | None, typer.Option(help="By default as in params.yaml.")] = None,
    as_json: Json = False,
) -> None:
    """Plays random steps and checks what must always hold; prints the size of every component.

    Exits with 1 if an invariant broke.
    """
    from marl_pipeline.diagnostics.simulator import smoke_table, smoke_test

    root = repository()
    params = _params(root, reward=reward)
    results, source = smoke_test(root, params, steps=steps, seed=seed)
    passed = all(result.passed for result in results)
    if as_json:
        found = [result.as_json() for result in results]
        print_json({"source": source, "reward": params.market.reward, "passed": passed, "modes": found})
    else:
        print_rich(smoke_table(results, source))
    if not passed:
        fail("an invariant of the simulator is broken", 1)


@env.command("record")
def record(
    out: Annotated[Path, typer.Option(help="The episode file to write, as parquet.")],
    policy: Annotated[
        str,
        typer.Option(help="random, hold, buy_and_hold, or a folder of weights such as models/rl/policies/hierarchy."),
    ] = "random",
    episodes: Annotated[int, typer.Option(min=1, max=32_767, help="Recording side by side.")] = 16,
    steps: Annotated[int, typer.Option(min=0, help="Of an episode, from random starts; 0 plays the span.")] = 128,
    mode: Annotated[Mode, typer.Option()] = "portfolio",
    span: Annotated[
        Literal["train", "validation", "test", "all"], typer.Option(help="Where the episodes lie.")
    ] = "validation",
    reward: Annotated[Reward | None, typer.Option(help="What is paid; by default as in params.yaml.")] = None,
    seed: Annotated[int, typer.Option(help="Of the actions and of the starts; also which seed's weights.")] = 0,
    as_json: Json = False,
) -> None:
    """Plays episodes and writes them to one file, for `marl env monitor` and `marl env rewards`."""
    from marl_pipeline.diagnostics.record import Recording, record

    root = repository()
    played = Recording(policy, mode, span, episodes, steps or None, seed)
    recorded = record(root, _params(root, reward=reward), out, played)
    figures = {"file": str(out), "rows": len(recorded.table), "episodes": recorded.count, **recorded.about.as_json()}
    if as_json:
        print_json(figures)
    else:
        print_rich(
            f"{out}: {recorded.count} episodes, {len(recorded.table):,} rows; `marl env monitor {out}` shows them"
        )


@env.command("monitor")
def monitor(
    file: Annotated[Path, typer.Argument(help="Episodes from `marl env record`.")],
    out: Annotated[Path | None, typer.Option(help="The page; FILE with the ending .html by default.")] = None,
    as_json: Json = False,
) -> None:
    """Shows recorded episodes as a page: variety of actions, quality of the reward, accounts, risk events."""
    from marl_pipeline.diagnostics.recorded import write_monitor

    path = out if out is not None else file.with_suffix(".html")
    seen = write_monitor(file, path)
    if as_json:
        print_json({"file": str(file), "page": str(path), **seen.as_json()})
    else:
        print_rich(*seen.findings(), f"page: {path}")


@env.command("rewards")
def rewards(
    file: Annotated[
        Path | None, typer.Argument(help="Episodes from `marl env record`; without it plain policies play some.")
    ] = None,
    reward: Annotated[Preset, typer.Option(help="Whose components; a file brings its own.")] = "guide_v3_2",
    mode: Annotated[Mode, typer.Option(help="A file brings its own.")] = "portfolio",
    episodes: Annotated[int, typer.Option(min=1, help="Recording side by side by each policy.")] = 32,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="The picture; reports/reward_components.svg by default.")] = None,
    as_json: Json = False,
) -> None:
    """Balance and signal-to-noise of a reward's components, and what it pays beside what the account earns.

    Of recorded episodes, or else of three plain policies on the same episodes: random, hold, buy and hold.
    """
    from marl_pipeline.diagnostics.recorded import write_study
    from marl_pipeline.diagnostics.simulator import reward_table, study

    root = repository()
    path = out if out is not None else root / "reports" / "reward_components.svg"
    if file is None:
        studies, source = study(root, _params(root, reward=reward), mode=mode, episodes=episodes, seed=seed, out=path)
    else:
        studies, source = (write_study(file, path),), str(file)
    if as_json:
        print_json({"source": source, "picture": str(path), "policies": [study.as_json() for study in studies]})
    else:
        print_rich(reward_table(studies), f"picture: {path}")


@env.command("gap")
def gap(
    reward: Annotated[Preset | None, typer.Option(help="Both by default.")] = None,
    horizon: Annotated[int, typer.Option(min=3, max=7, help="Decisions; all sequences of actions are played.")] = 6,
    as_json: Json = False,
) -> None:
    """What a reward pays for beside what the account earns: exact, on small markets whose every path is known.

    Every sequence of actions is played, at this repository's costs, limits and coefficients; dynamic programming finds
    the policy that is paid most and the one that earns most.
    """
    from marl_pipeline.diagnostics.simulator import gap_table, gaps

    found = gaps(_params(repository()), (reward,) if reward is not None else ("guide_v3_2", "net_shaped"), horizon)
    if as_json:
        print_json({"horizon": horizon, "markets": [one.as_json() for one in found]})
    else:
        print_rich(gap_table(found))


@env.command("calibrate")
def calibrate(
    trials: Annotated[int | None, typer.Option(min=1, help="By default as in params.yaml.")] = None,
    sampler: Annotated[Literal["grid", "tpe"] | None, typer.Option(help="By default as in params.yaml.")] = None,
    as_json: Json = False,
) -> None:
    """Searches the coefficients of a preset for those that teach the most net growth on the validation span.

    Goes on where it was interrupted. Every trial is a run in MLflow and a line of reports/trials.jsonl.
    """
    from marl_pipeline.diagnostics.calibrate_rewards import calibrate, calibration_table
    from marl_pipeline.pipeline.terminal import progress

    root = repository()
    with progress("calibrate") as show:
        found = calibrate(root, _params(root), sampler=sampler, trials=trials, on_step=show)
    if as_json:
        print_json(found.as_json())
    else:
        print_rich(calibration_table(found), "the best: " + " ".join(f"-S {one}" for one in found.overrides()))
