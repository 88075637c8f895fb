"""`marl schedule`: the deployments, for a schedule and for runs triggered from the Prefect UI."""

from __future__ import annotations

from prefect.schedules import Cron

from flows.killed import ship_heartbeat_automation
from flows.retrain import retrain

QUARTERLY = "0 6 1 1,4,7,10 *"
"""06:00 on the first day of each quarter."""

TIMEZONE = "UTC"


def serve_forever() -> None:
    """Serves until Ctrl-C; one retraining at a time."""
    ship_heartbeat_automation()
    retrain.serve(
        name="quarterly",
        schedule=Cron(QUARTERLY, timezone=TIMEZONE),
        limit=1,
        pause_on_shutdown=False,
        tags=["marl-pipeline"],
        description="Every stage of dvc.yaml. Parameters `profile` and `overrides` make it work in its own worktree.",
    )
