"""What several algorithms share: rollouts, replay, returns, targets, optimizer steps, schedules."""
