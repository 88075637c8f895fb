"""Runs one algorithm of BenchMARL on VMAS's simple_spread and prints its speed as JSON; needs no package of ours.

Called by `marl bench learning --peer-python` with the settings of our preset, or with `null` for BenchMARL's own.
Counted are environment steps summed over the environments, from the second batch on: collecting and learning together.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
from benchmarl.algorithms import MappoConfig, QmixConfig
from benchmarl.environments import VmasTask
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig

ALGORITHMS = {"mappo": MappoConfig, "qmix": QmixConfig}


class Clock(Callback):
    """When each batch was collected."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[float] = []

    def on_batch_collected(self, batch: Any) -> None:
        del batch
        self.moments.append(time.perf_counter())


def configured(algo: str, settings: dict[str, Any] | None, batches: int) -> tuple[Any, Any, Any, int]:
    """The experiment, task and model configurations, and the frames of a batch."""
    config, task, model = (
        ExperimentConfig.get_from_yaml(),
        VmasTask.SIMPLE_SPREAD.get_from_yaml(),
        MlpConfig.get_from_yaml(),
    )
    config.loggers, config.evaluation, config.render, config.create_json = [], False, False, False
    config.prefer_continuous_actions = False
    task.config["max_steps"] = 25
    if settings is not None:
        model.num_cells = settings["hidden"]
        config.on_policy_n_envs_per_worker = config.off_policy_n_envs_per_worker = settings["envs"]
        config.on_policy_collected_frames_per_batch = config.off_policy_collected_frames_per_batch = settings["frames"]
        config.on_policy_n_minibatch_iters = config.off_policy_n_optimizer_steps = settings["updates"]
        config.on_policy_minibatch_size = config.off_policy_train_batch_size = settings["batch"]
        config.off_policy_memory_size = settings["memory"]
    frames = (
        config.on_policy_collected_frames_per_batch if algo == "mappo" else config.off_policy_collected_frames_per_batch
    )
    config.max_n_iters, config.max_n_frames = None, frames * batches
    return config, task, model, frames


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--algo", choices=ALGORITHMS, required=True)
    parser.add_argument("--settings", type=json.loads, required=True)
    parser.add_argument("--batches", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--folder", required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    config, task, model, frames = configured(given.algo, given.settings, given.batches)
    config.save_folder = given.folder
    clock = Clock()
    Experiment(
        algorithm_config=ALGORITHMS[given.algo].get_from_yaml(),
        task=task,
        config=config,
        seed=0,
        model_config=model,
        critic_model_config=model,
        callbacks=[clock],
    ).run()
    seconds = clock.moments[-1] - clock.moments[0]
    print(json.dumps({"steps_per_s": frames * (len(clock.moments) - 1) / seconds}))


if __name__ == "__main__":
    main()
