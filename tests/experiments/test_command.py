"""`marl train` as a user meets it: its JSON, its records, and that nothing is lost when it is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from checkouts import environment, small_checkout
from typer.testing import CliRunner

from marl_pipeline.checkpoint import FileCheckpointer
from marl_pipeline.cli.main import app
from marl_pipeline.errors import UserError
from marl_pipeline.experiments.job import CHECKPOINTS

SMALL = ("-S", "envs=8", "-S", "epochs=2", "--test-episodes", "16")
STEPS = 8 * 25 * 40
RUN = ("train", "--algo", "mappo", "--env", "mpe/simple_spread", "--timesteps", str(STEPS), *SMALL)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def trained(root: Path) -> Any:
    """Two seeds, undisturbed, in models/runs."""
    done = marl(root, *RUN, "--seeds", "0", "1", "--json")
    assert done.exit_code == 0, done.output
    return done


def marl(root: Path, *arguments: str) -> Any:
    """The command in this process, in the checkout."""
    with contextlib.chdir(root):
        return CliRunner().invoke(app, arguments)


def results(folder: Path) -> dict[str, bytes]:
    """The bytes of a run that must not depend on how it went."""
    return {name: (folder / name).read_bytes() for name in ("policy.safetensors", "run.json")}


def test_json_stands_alone_on_standard_output_and_says_what_every_seed_earned(root: Path, trained: Any) -> None:
    found = json.loads(trained.stdout)
    assert {key: found[key] for key in ("algo", "env", "timesteps")} == {
        "algo": "mappo",
        "env": "mpe/simple_spread",
        "timesteps": STEPS,
    }
    assert [run["seed"] for run in found["runs"]] == [0, 1]
    assert found["optimum"] is None
    for run in found["runs"]:
        assert -200.0 < run["test_return"] < -10.0
        assert run["test_return"] == run["evaluations"][-1]["mean"]
        assert run["interval"][0] < run["test_return"] < run["interval"][1]
        assert run["steps_per_s"] > 0.0
        assert set(run["metrics"]) == {"collisions", "landmark_distance"}
        for name, figure in run["metrics"].items():
            assert figure["interval"][0] < figure["mean"] < figure["interval"][1]
            assert figure["mean"] == run["evaluations"][-1]["metrics"][name]["mean"]
            assert figure["better"] == "lower"
        assert run["evaluations"][-1]["steps"] == run["steps"] == STEPS
        assert Path(run["folder"]) == root / "models/runs/mpe/simple_spread/mappo" / str(run["seed"])
        assert [Path(path).name for path in run["pictures"]] == ["trajectories-0.svg"]
        assert Path(run["pictures"][0]).parent == Path(run["folder"]) / "pictures"
        assert f"mappo on mpe/simple_spread, seed {run['seed']}" in Path(run["pictures"][0]).read_text()
    assert Path(found["picture"]).read_bytes().startswith(b"<?xml")
    assert "mappo on mpe/simple_spread, seed 1" in trained.stderr


@pytest.mark.slow
def test_a_killed_run_resumes_and_ends_in_the_same_bytes(root: Path, trained: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "marl_pipeline.cli", *RUN, "--seeds", "0", "--out", str(tmp_path), "--fresh"]
    process = subprocess.Popen(
        command, cwd=root, env=environment(root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 120
    while not list((root / CHECKPOINTS).glob("*/state.pt")):
        assert time.monotonic() < until, "no checkpoint appeared"
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "mpe/simple_spread/mappo/0").exists()
    again = marl(root, *RUN, "--seeds", "0", "--out", str(tmp_path), "--json")
    assert again.exit_code == 0, again.output
    folder = tmp_path / "mpe/simple_spread/mappo/0"
    assert json.loads((folder / "timing.json").read_text())["timed_steps"] < STEPS, "it began anew"
    assert results(folder) == results(root / "models/runs/mpe/simple_spread/mappo/0")
    assert not list((root / CHECKPOINTS).glob("*")), "a finished run leaves no checkpoint"


@pytest.mark.slow
def test_seeds_side_by_side_end_in_the_bytes_of_seeds_one_by_one(root: Path, trained: Any, tmp_path: Path) -> None:
    done = marl(root, *RUN, "--seeds", "0,1", "--jobs", "2", "--out", str(tmp_path), "--json")
    assert done.exit_code == 0, done.output
    assert [run["seed"] for run in json.loads(done.stdout)["runs"]] == [0, 1]
    for seed in ("0", "1"):
        place = Path("mpe/simple_spread/mappo") / seed
        assert results(tmp_path / place) == results(root / "models/runs" / place)


def test_a_finished_run_is_kept_and_one_of_other_settings_takes_its_place_only_on_request(
    root: Path, trained: Any, tmp_path: Path
) -> None:
    short = ("train", "--algo", "mappo", "--env", "mpe/simple_spread", "--timesteps", "400", *SMALL)
    other = ("-S", "gamma=0.9")
    runs = [
        json.loads(marl(root, *short, *more, "--out", str(tmp_path), "--json").stdout)["runs"][0]
        for more in (("--no-pictures",), (), (*other, "--fresh"), ("--fresh",))
    ]
    assert [len(run["pictures"]) for run in runs] == [0, 1, 1, 1], "a run that lacks its pictures is given them"
    assert [run["reused"] for run in runs] == [False, True, False, False]
    assert runs[0]["test_return"] == runs[1]["test_return"] == runs[3]["test_return"] != runs[2]["test_return"]
    kept = results(Path(runs[3]["folder"]))
    refused = marl(root, *short, *other, "--out", str(tmp_path))
    assert isinstance(refused.exception, UserError)
    assert "another run is there (settings.gamma 0.97 there, 0.9 here); --out keeps it" in str(refused.exception)
    assert results(Path(runs[3]["folder"])) == kept


OWN = """
from marl_pipeline.envs.particle.spread import SimpleSpread

class Mine(SimpleSpread):
    scale = 1.0

    def step(self, actions):
        after = super().step(actions)
        after.team_reward.mul_(self.scale)
        return after
"""


def test_an_edited_environment_is_another_one(root: Path, trained: Any, tmp_path: Path) -> None:
    """In processes of their own: one that has imported a module does not see its file change."""

    def run(*arguments: str) -> Any:
        words = [sys.executable, "-m", "marl_pipeline.cli", *arguments, "--json"]
        done = subprocess.run(words, cwd=root, env=environment(root), capture_output=True, text=True, check=True)
        return json.loads(done.stdout), done.stderr

    file = root / "edited_environment.py"
    short = ("train", "--algo", "ippo", "--env", "edited_environment:Mine", "--timesteps", "400", *SMALL)
    returns = []
    for scale in ("1.0", "1.0", "100.0"):
        file.write_text(OWN.replace("scale = 1.0", f"scale = {scale}"))
        found, _ = run(*short, "--out", str(tmp_path))
        returns.append((found["runs"][0]["test_return"], found["runs"][0]["reused"]))
    assert [reused for _, reused in returns] == [False, True, False]
    assert returns[2][0] < 50.0 * returns[0][0] < 0.0
    file.write_text(OWN)
    _, reported = run("evaluate", "--checkpoint", found["runs"][0]["folder"], "--episodes", "16")
    assert "not as in training: source of the environment" in reported


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    checkpoint = FileCheckpointer(tmp_path)
    checkpoint.save({"steps": torch.arange(1000)})
    path = tmp_path / "state.pt"
    for size in (0, 10, 2000):
        path.write_bytes(path.read_bytes()[:size] if size else b"")
        with pytest.raises(UserError, match=r"state\.pt: damaged .*; delete it to start this run anew"):
            checkpoint.load()
        checkpoint.save({"steps": torch.arange(1000)})


def test_a_saved_policy_earns_what_training_said(root: Path, trained: Any) -> None:
    run = json.loads(trained.stdout)["runs"][1]
    done = marl(root, "evaluate", "--checkpoint", run["folder"], "--episodes", "16", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["test_return"] == run["test_return"]
    assert found["metrics"] == run["metrics"]
    assert (found["algo"], found["train_seed"], found["changed"]) == ("mappo", 1, [])
    assert found["pictures"] == run["pictures"], "the same episode, in the same place"
    other = marl(root, "evaluate", "--checkpoint", run["folder"], "--episodes", "16", "--seed", "7", "--json")
    assert [Path(path).name for path in json.loads(other.stdout)["pictures"]] == ["trajectories-7.svg"]
    assert json.loads(other.stdout)["test_return"] != run["test_return"]


def test_every_seed_is_a_run_in_mlflow(root: Path, trained: Any) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("marl-pipeline")
    runs = client.search_runs([experiment.experiment_id], "tags.stage = 'training_run' and tags.seed = '1'")
    run = runs[-1]
    assert run.info.status == "FINISHED"
    assert run.data.params["settings.envs"] == "8"
    assert run.data.tags["algo"] == "mappo"
    curve = client.get_metric_history(run.info.run_id, "test_return")
    assert [point.step for point in curve][-1] == STEPS
    assert len(curve) == 20
    for figure in ("collisions", "landmark_distance"):
        assert len(client.get_metric_history(run.info.run_id, f"test/{figure}")) == 20
        assert len(client.get_metric_history(run.info.run_id, f"episode/{figure}")) > 20
    assert {file.path for file in client.list_artifacts(run.info.run_id, "1")} == {
        "1/pictures",
        "1/policy.safetensors",
        "1/run.json",
        "1/timing.json",
    }


def test_several_algorithms_are_drawn_together(root: Path, trained: Any, tmp_path: Path) -> None:
    done = marl(root, "curves", "models/runs", "--out", str(tmp_path / "curves.png"))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    done = marl(root, "curves", "models/runs", "--metric", "collisions", "--out", str(tmp_path / "collisions.svg"))
    assert done.exit_code == 0, done.output
    assert "collisions" in (tmp_path / "collisions.svg").read_text()
    done = marl(root, "curves", "models/runs", "--metric", "crashes", "--out", str(tmp_path / "no.svg"))
    assert "no episode metric 'crashes' in this run (found: collisions, landmark_distance)" in str(done.exception)


def test_the_optimum_stands_beside_the_runs(root: Path, tmp_path: Path) -> None:
    short = ("--timesteps", "600", "--test-episodes", "4", "--out", str(tmp_path), "--json")
    done = marl(root, "train", "--algo", "vdn", "--env", "matrix/two_step", *short)
    found = json.loads(done.stdout)
    assert found["optimum"] == 8.0
    assert 0.0 <= found["runs"][0]["metrics"]["optimal_share"]["mean"] <= 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "--algo", "qmx", "--env", "mpe/simple_spread"), "'qmx' is not known; did you mean 'qmix'"),
        (("train", "--algo", "qmix", "--env", "mpe/spread"), "'mpe/spread' is not known"),
        (("train", "--algo", "qmix", "--env", "market/shop"), "'market/shop' is not known"),
        (("train", "--algo", "qmix", "--env", "mpe/simple_spread", "-S", "gama=1"), "'gama'; did you mean 'gamma'"),
        (("train", "--algo", "qmix", "--env", "mpe/simple_spread", "-S", "gamma"), "-S gamma: write key=value"),
        (("train", "--algo", "qmix", "--env", "mpe/simple_spread", "--env-set", "agent=2"), "option 'agent'"),
        (("train", "--algo", "qmix", "--env", "mpe/simple_spread", "--seeds", "one"), "--seeds one: write whole"),
        (("train", "--algo", "qmix", "--env", "mpe/simple_spread", "--seeds", "1", "1"), "each once"),
        (("train", "--algo", "qmix", "--env", "mpe/simple_spread", "--engine", "jax"), "engine 'jax' is not known"),
        (
            ("train", "--algo", "qmix", "--env", "mpe/simple_spread", "--timesteps", "2000"),
            "2000 timesteps end before learning (learning_starts 5000)",
        ),
        (("train", "--algo", "mappo", "--env", "mpe/simple_spread", "--device", "cuda"), "torch finds no GPU here"),
        (("evaluate", "--checkpoint", "nowhere"), "nowhere/run.json: no such file"),
        (("curves", "nowhere"), "nowhere: no finished run here or below"),
    ],
)
def test_a_mistake_is_one_line(
    root: Path, arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = marl(root, *arguments)
    assert isinstance(done.exception, UserError), done.output
    assert done.stdout == ""
    assert words in str(done.exception)
    assert "\n" not in str(done.exception)


def test_an_environment_is_checked_by_playing_it(root: Path) -> None:
    good = marl(root, "env", "check", "mpe/simple_spread", "--env-set", "agents=2", "--steps", "30")
    assert (good.exit_code, good.stderr) == (0, "")
    (root / "broken.py").write_text(
        "from marl_pipeline.envs.particle.spread import SimpleSpread\n"
        "class Broken(SimpleSpread):\n"
        "    def load_state_dict(self, state):\n        pass\n"
    )
    bad = marl(root, "env", "check", "broken:Broken", "--steps", "30")
    assert isinstance(bad.exception, UserError)
