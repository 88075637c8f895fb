"""What is around every stage: parameters, threads, outputs that appear whole or not at all, progress, checkpoints,
the record in MLflow, and errors reported in one line.

A stage is a module with `def run(context: StageContext) -> None` and `main(run)` under `if __name__ == "__main__"`.
Exit codes: 0 done, 1 a bug (with traceback), 2 wrong input, 3 no disk space, 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from marl_pipeline.config import Params, restrict
from marl_pipeline.errors import UserError
from marl_pipeline.pipeline import dag, terminal
from marl_pipeline.pipeline.compute import configure
from marl_pipeline.pipeline.tracking import NoRecorder, Recorder, SpoolRecorder, git_tags, ship_unless_shipped
from marl_pipeline.progress import OnStep, silent

if TYPE_CHECKING:
    from marl_pipeline.checkpoint import Checkpointer

CHECKPOINTS = Path(".marl/checkpoints")
DURATIONS = Path(".marl/durations")
PARTIAL = ".partial-"

USER_ERROR, NO_SPACE, INTERRUPTED = 2, 3, 130


def _no_checkpoint() -> Checkpointer:
    from marl_pipeline.checkpoint import NoCheckpoint

    return NoCheckpoint()


@dataclass
class StageContext:
    """What a stage is given. The defaults serve tests: no record, no progress, nothing to resume.

    Attributes:
        params: the parameters, restricted to those that dvc.yaml declares for the stage.
        item: which of a matrix this is, as {"strategy": "hierarchy", "window": 0, "seed": 1}; empty for a single stage.
        on_step: to be called after each unit of work.
        root: outputs are relative to it.
    """

    params: Params
    item: Mapping[str, Any] = field(default_factory=dict)
    on_step: OnStep = silent
    root: Path = Path()
    recorder: Recorder = field(default_factory=NoRecorder)
    make_checkpoint: Callable[[], Checkpointer] = _no_checkpoint
    _checkpoint: Checkpointer | None = field(default=None, init=False, repr=False)

    @property
    def checkpoint(self) -> Checkpointer:
        """State that outlives a killed run: keyed by all inputs of the stage, removed when it succeeds."""
        if self._checkpoint is None:
            self._checkpoint = self.make_checkpoint()
        return self._checkpoint

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        self.recorder.log_metrics(metrics, step)

    def log_artifact(self, path: str | Path) -> None:
        """Keeps a copy of a file or folder with the run."""
        self.recorder.log_artifact(self.root / path)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.recorder.set_tags(tags)

    @contextmanager
    def output(self, path: str | Path) -> Iterator[Path]:
        """A place to write `path` (a file, or a folder to be made) that becomes it when the body ends well.

        The place has the same suffix and lies beside the final one; DVC ignores it. Its parent exists.
        """
        final = self.root / path
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(PARTIAL + final.name)
        _remove(partial)
        try:
            yield partial
            if not partial.exists():
                raise FileNotFoundError(f"{path}: the stage ended without writing it")
            _remove(final)
            os.replace(partial, final)
        finally:
            _remove(partial)


def main(run: Callable[[StageContext], None]) -> None:
    """Runs the stage of the calling module as dvc.yaml describes it, and exits the process."""
    _end_on_signal()
    module = sys.modules["__main__"].__spec__
    if module is None:
        raise RuntimeError("a stage is run as `python -m marl_pipeline.stages.<name>`")
    sys.exit(execute(run, module.name, sys.argv[1:]))


def run_forked(module: str, argv: list[str], task: dag.Task | None) -> int:
    """What `python -m module argv` does, in a process that was forked for it from a warm one; the exit code."""
    _end_on_signal()
    run: Callable[[StageContext], None] = importlib.import_module(module).run
    return execute(run, module, argv, task=task)


def _end_on_signal() -> None:
    signal.signal(signal.SIGTERM, _interrupt)
    if "DVC_ROOT" in os.environ:
        threading.Thread(target=_end_with_parents, daemon=True).start()


def execute(
    run: Callable[[StageContext], None],
    module: str,
    argv: list[str],
    root: Path = Path(),
    record: bool = True,
    task: dag.Task | None = None,
) -> int:
    """Runs one stage; the exit code.

    Args:
        record: whether MLflow gets a run.
        task: what `dag.resolve` would say now, if the caller knows it.
    """
    name = module.rpartition(".")[2]
    try:
        item = _parse_item(argv)
        task = task or dag.resolve([module, *argv], root)
        name = task.stage.name
        if _prune(task.stage, task.stages, root):
            task = dag.resolve([module, *argv], root)
        _run_recorded(run, task, item, root, record)
    except BaseException as error:
        return _explain(error, name)
    return 0


def _run_recorded(
    run: Callable[[StageContext], None],
    task: dag.Task,
    item: Mapping[str, Any],
    root: Path,
    record: bool,
) -> None:
    started = time.monotonic()
    stage, params, inputs = task.stage, task.params, task.inputs
    configure(params.run.threads, params.run.device)
    recorder = SpoolRecorder(root, stage.name, params.model_dump(), _tags(task, item, root))
    checkpoints = root / CHECKPOINTS / stage.name

    def make_checkpoint() -> Checkpointer:
        from marl_pipeline.checkpoint import FileCheckpointer

        return FileCheckpointer(checkpoints / inputs.key[:32])

    try:
        with recorder:
            with terminal.progress(stage.name) as show:

                def on_step(label: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
                    show(label, step, total, metrics)
                    place = label.replace("/", " of ")
                    recorder.log_metrics({f"{place}/{key}": value for key, value in metrics.items()}, step)

                run(StageContext(restrict(params, stage.params), item, on_step, root, recorder, make_checkpoint))
            seconds = time.monotonic() - started
            recorder.log_metrics({"seconds": seconds})
            _note_duration(root, stage.name, seconds)
            _remove(checkpoints)
    finally:
        if record:
            ship_unless_shipped(root)


def _tags(task: dag.Task, item: Mapping[str, Any], root: Path) -> dict[str, str]:
    """What every run can be found by; a stage of learning overrides the two "none" by `context.set_tags`."""
    return {
        "stage": task.stage.group,
        "agent_type": "none",
        "curriculum_stage": "none",
        "reward_version": task.params.market.reward,
        **{key: str(value) for key, value in item.items()},
        "data_hash": task.inputs.data,
        "inputs_key": task.inputs.key,
        "flow_run": os.environ.get("MARL_FLOW_RUN", "none"),
        **git_tags(root),
    }


def _parse_item(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--strategy")
    parser.add_argument("--window", type=int)
    parser.add_argument("--seed", type=int)
    try:
        known, rest = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from None
    if rest:
        raise UserError(f"unknown arguments {rest}; a stage takes --strategy, --window and --seed")
    return {key: value for key, value in vars(known).items() if value is not None}


def _prune(stage: dag.Stage, stages: tuple[dag.Stage, ...], root: Path) -> bool:
    """Removes what other parameters left in the folders that `stage` reads: a window or seed no longer asked for.

    A folder of several stages' outputs (`reports/walk_forward`) is read as a whole, so a leftover would change
    what the stage sees, and its hash. Nothing is lost: DVC's cache still has it. Says whether there was any.
    """
    outs = [Path(out) for other in stages for out in other.outs]
    left = [
        path
        for dep in map(Path, stage.deps)
        if any(dep in out.parents for out in outs)
        for path in _leftovers(root, dep, outs)
    ]
    for path in left:
        _remove(path)
    return bool(left)


def _leftovers(root: Path, folder: Path, outs: list[Path]) -> Iterator[Path]:
    for path in sorted((root / folder).iterdir()) if (root / folder).is_dir() else []:
        inside = folder / path.name
        if any(inside in out.parents for out in outs):
            yield from _leftovers(root, inside, outs)
        elif inside not in outs:
            yield path


def _note_duration(root: Path, name: str, seconds: float) -> None:
    path = root / DURATIONS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"seconds": round(seconds, 2)}))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _end_with_parents(every: float = 1.0) -> None:
    """Ends this process like Ctrl-C when DVC or the flow above it was killed: nobody waits for it any more."""
    parent, flow = os.getppid(), os.environ.get("MARL_FLOW_PID")
    while os.getppid() == parent and (flow is None or _is_alive(int(flow))):
        time.sleep(every)
    os.kill(os.getpid(), signal.SIGTERM)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _explain(error: BaseException, name: str) -> int:
    """Tells the user what happened; the exit code."""
    match error:
        case UserError():
            line, code = str(error), USER_ERROR
        case KeyboardInterrupt():
            line, code = "interrupted; run again to resume", INTERRUPTED
        case OSError(errno=errno.ENOSPC) | OSError(errno=errno.EDQUOT):
            where = f" (writing {error.filename})" if error.filename else ""
            line, code = f"no disk space left{where}; free some and run again to resume", NO_SPACE
        case Exception():
            traceback.print_exception(error)
            line, code = f"{type(error).__name__}: {error}", 1
        case _:
            raise error
    print(f"error: {name}: {' '.join(line.split())}", file=sys.stderr, flush=True)
    return code
