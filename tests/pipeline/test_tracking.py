"""What a stage records arrives in MLflow, whatever becomes of the stage."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from marl_pipeline.errors import UserError
from marl_pipeline.pipeline import tracking
from marl_pipeline.pipeline.tracking import (
    SPOOL,
    Shipper,
    SpoolRecorder,
    flatten,
    git_tags,
    metric_name,
    ship_unless_shipped,
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def runs(root: Path) -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking.tracking_uri(root))
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    assert experiment is not None
    return {run.info.run_name: (client, run) for run in client.search_runs([experiment.experiment_id])}


@pytest.mark.slow
def test_params_metrics_tags_and_artifacts_arrive_and_a_killed_run_is_distinguished(root: Path) -> None:
    (root / "note.txt").write_text("kept as it was")
    done = SpoolRecorder(root, "copy@0", {"run": {"seeds": [0]}}, {"stage": "copy"})
    for step in range(3):
        done.log_metrics({"loss (mean)": 1.0 / (step + 1)}, step)
    done.set_tags({"agent_type": "symbol"})
    done.log_artifact(root / "note.txt")
    (root / "note.txt").write_text("changed since")
    killed = SpoolRecorder(root, "killed", {}, {})
    alive = SpoolRecorder(root, "alive", {}, {})
    shipper = Shipper(root)
    done.end("FINISHED")
    killed._file.close()  # what the kernel does for a process that was killed
    assert shipper.ship() == 1
    alive.log_metrics({"loss": 2.0}, 1)
    shipper.ship()

    found = runs(root)
    client, run = found["copy@0"]
    assert run.info.status == "FINISHED"
    assert run.data.params == {"run.seeds": "[0]"}
    assert (run.data.tags["stage"], run.data.tags["agent_type"]) == ("copy", "symbol")
    history = client.get_metric_history(run.info.run_id, metric_name("loss (mean)"))
    assert [(point.step, round(point.value, 3)) for point in history] == [(0, 1.0), (1, 0.5), (2, 0.333)]
    place = Path(run.info.artifact_uri.removeprefix("file://")) / "note.txt"
    assert place.read_text() == "kept as it was"
    assert found["killed"][1].info.status == "KILLED"
    assert found["alive"][1].info.status == "RUNNING"
    assert found["alive"][1].data.metrics == {"loss": 2.0}
    assert len(list((root / SPOOL).glob("*-alive"))) == len(list((root / SPOOL).glob("*-*-*"))) == 1


@pytest.mark.slow
def test_records_stay_in_a_checkout_whose_path_would_end_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "my bücher #1 50%?x"
    root.mkdir()
    with pytest.raises(UserError, match="inside of that folder"):
        tracking.tracking_uri(root)
    monkeypatch.chdir(root)
    done = SpoolRecorder(root, "copy", {}, {})
    (root / "note.txt").write_text("kept")
    done.log_artifact(root / "note.txt")
    done.end("FINISHED")
    Shipper(root).ship()
    assert "copy" in runs(root)
    assert [path.name for path in tmp_path.iterdir()] == [root.name]
    assert len(list((root / tracking.ARTIFACTS).rglob("note.txt"))) == 1


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (ValueError("bad"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_a_run_ends_as_its_block_did(root: Path, error: BaseException | None, status: str) -> None:
    with contextlib.suppress(ValueError, KeyboardInterrupt), SpoolRecorder(root, "copy", {}, {}):
        if error is not None:
            raise error
    (events,) = (root / SPOOL).glob("*/events.jsonl")
    kind, values = json.loads(events.read_text().splitlines()[-1])
    assert (kind, values["status"]) == ("end", status)


def test_names_mlflow_would_refuse_are_made_ones_it_takes() -> None:
    for kept in ("curriculum: broad/loss", "symbols/policy_loss", "p-value 0.05", "a.b"):
        assert metric_name(kept) == kept
    assert metric_name("speed[m/s]").startswith("speed_m/s__")
    odd = [
        "speed[m/s]",
        "speed(m/s)",
        "",
        "/",
        "//",
        ".",
        "..",
        "../up",
        "a//b",
        "/a",
        "a/",
        " ",
        "größe",
        "速度",
        "x" * 300,
    ]
    odd += ["x" * 301, "a\nb", "a" * 249 + "/b", "drop'; --", "a/./b", "\ud800"]
    names = [metric_name(name) for name in odd]
    assert len(set(names)) == len(odd)
    assert names == [metric_name(name) for name in odd]


@pytest.mark.slow
def test_mlflow_takes_every_name_and_value(root: Path) -> None:
    from mlflow.utils.validation import _validate_metric_name

    odd = {
        "speed[m/s]": 1.0, "größe/速度": 2.0, "x" * 300: 3.0, "../up": 4.0, "a//b": 5.0, "": 6.0,
        "nan": float("nan"), "inf": float("inf"),
    }  # fmt: skip
    for name in odd:
        _validate_metric_name(metric_name(name))
    with SpoolRecorder(root, "größe " * 80, {"env_options": {"speed[m/s]": 1, "y" * 400: 2}}, {}) as recorder:
        recorder.log_metrics(odd, 1)
    Shipper(root).ship()
    ((_, run),) = runs(root).values()
    assert run.info.status == "FINISHED"
    assert run.data.metrics[metric_name("speed[m/s]")] == 1.0
    assert {metric_name(name) for name in odd} <= set(run.data.metrics)
    assert not list((root / SPOOL).glob("*-*-*"))


def test_sections_are_flattened_with_numbered_lists() -> None:
    nested = {"a": {"b": 1, "c": [{"d": 2}, {"d": 3}]}, "e": (1, 2)}
    assert flatten(nested) == {"a.b": 1, "a.c.0.d": 2, "a.c.1.d": 3, "e": [1, 2]}


def test_outside_git_the_commit_is_unknown(tmp_path: Path) -> None:
    assert git_tags(tmp_path) == {"git_sha": "unknown", "git_dirty": "unknown"}


def test_a_server_that_is_away_costs_one_line_and_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with SpoolRecorder(tmp_path, "run", {}, {}) as recorder:
        recorder.log_metrics({"a": 1.0})
    ship_unless_shipped(tmp_path)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("note: MLflow at http://127.0.0.1:9 did not take the records")
    assert list((tmp_path / ".marl").rglob("events.jsonl")), "the records wait"
