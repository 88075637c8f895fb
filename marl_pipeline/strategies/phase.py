"""One phase of one strategy and seed, as its stage runs it: learn, or hand the policy of the phase before on."""

from __future__ import annotations

import shutil
from pathlib import Path

from marl_pipeline.errors import UserError
from marl_pipeline.pipeline.harness import StageContext
from marl_pipeline.store.dataset import load_dataset
from marl_pipeline.store.paths import DATASET, policy_folder
from marl_pipeline.store.policies import load_metadata, save_policy
from marl_pipeline.strategies.kind import Work, kind
from marl_pipeline.strategies.specification import Specification, load_specification


def run_phase(context: StageContext, phase: str, before: Path | None, after: Path) -> None:
    """Reads the strategy's policy below `before` and writes the one of this phase below `after`.

    A strategy without this phase hands on what it was given; in the first phase that is a note that there is nothing
    to learn.
    """
    name, seed = context.item["strategy"], context.item["seed"]
    specification = load_specification(context.root, name, phase)
    given = None if before is None else context.root / policy_folder(before, name, seed)
    target = policy_folder(after, name, seed)
    if not specification.acts:
        with context.output(target) as folder:
            if given is None:
                save_policy(folder, {}, {"seed": seed, "curves": []})
            else:
                hand_on(given, folder)
        return
    learned = kind(specification.module).learn(phase, work_of(context, specification), given)
    context.set_tags({"reward_version": context.params.market.reward, **learned.tags})
    context.log_metrics(learned.metrics)
    with context.output(target) as folder:
        save_policy(folder, learned.networks, {"seed": seed, **learned.metadata})


def work_of(context: StageContext, specification: Specification) -> Work:
    return Work(
        options=specification.options,
        params=context.params,
        dataset=load_dataset(context.root / DATASET),
        seed=context.item["seed"],
        root=context.root,
        on_step=context.on_step,
        checkpoint=context.checkpoint,
    )


def hand_on(given: Path, folder: Path) -> None:
    """The same policy again, without the curves: they are drawn where they were made.

    Raises:
        UserError: it is not there.
    """
    try:
        metadata = load_metadata(given)
    except FileNotFoundError:
        raise UserError(f"{given}: no policy here; run `dvc repro` first") from None
    save_policy(folder, {}, {**metadata, "curves": []})
    for weights in sorted(given.glob("*.safetensors")):
        shutil.copyfile(weights, folder / weights.name)
