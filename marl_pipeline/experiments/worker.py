"""The process of one training run: its order is a line of JSON on standard input, its answer one on standard output.

It ends as by Ctrl-C when its standard input is closed, so that it never outlives the command that started it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from marl_pipeline.errors import UserError
from marl_pipeline.experiments.job import Job
from marl_pipeline.experiments.run import train_one
from marl_pipeline.pipeline import terminal
from marl_pipeline.pipeline.harness import INTERRUPTED, USER_ERROR


def main() -> int:
    order = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_owner, daemon=True).start()
    try:
        with terminal.progress("train") as show:
            done = train_one(
                Job.model_validate(order["job"]),
                Path(order["root"]),
                Path(order["out"]),
                fresh=order["fresh"],
                on_step=show,
                pictures=order["pictures"],
            )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    print(json.dumps(done.as_json()))
    return 0


def _end_with_owner() -> None:
    while os.read(sys.stdin.fileno(), 1024):  # not sys.stdin.read: its lock would be held when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
