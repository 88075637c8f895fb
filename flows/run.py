"""`marl run`: the retraining flow in this process, without a server to start."""

from __future__ import annotations

from pathlib import Path

from flows.processes import StageFailedError, prepared
from marl_pipeline.errors import UserError


def run_flow() -> None:
    """Runs the flow on the parameters as they are.

    Raises:
        UserError: a stage failed; the message is the stage's own line.
    """
    with prepared(Path.cwd()):  # before Prefect is imported: the warm process imports at the same time
        from flows.killed import end_orphaned_servers, mark_killed_runs, tagged_with_process
        from flows.retrain import retrain

        end_orphaned_servers()
        mark_killed_runs()
        try:
            with tagged_with_process():
                retrain()
        except StageFailedError as error:
            raise UserError(str(error)) from error
