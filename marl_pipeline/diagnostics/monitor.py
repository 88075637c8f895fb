"""Everything there is to say of recorded episodes: actions, reward, accounts, and what the rules had to do."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from marl_pipeline.diagnostics.account_figures import (
    EVENTS,
    AccountFigures,
    account_figures,
    account_steps,
    risk_events,
)
from marl_pipeline.diagnostics.action_diversity import ActionDiversity, action_diversity
from marl_pipeline.diagnostics.episodes import About, Episodes
from marl_pipeline.diagnostics.reward_study import RewardStudy, correlation, recorded_of, study_episodes
from marl_pipeline.envs.trading.rewards.component_log import Balance, check_balance

UNRELATED = 0.1
"""A reward whose episodes correlate less than this with `net` does not teach what the account earns."""


@dataclass(frozen=True)
class Monitor:
    """Attributes:
    about: the recording; episodes, symbols: how many.
    reward: of the symbol agents; master: balance of the master's components, empty under `net`.
    by_agent: one row per episode and symbol: `paid` and `net`, sums over the episode.
    episode_correlation: of the two; None where one of them does not vary.
    accounts, account_steps: figures, and the rows behind them (`account_figures.account_steps`).
    events: `account_figures.risk_events`.
    """

    about: About
    episodes: int
    symbols: int
    actions: ActionDiversity
    reward: RewardStudy
    master: tuple[Balance, ...]
    by_agent: pd.DataFrame
    episode_correlation: float | None
    accounts: AccountFigures
    account_steps: pd.DataFrame
    events: pd.DataFrame

    @property
    def event_counts(self) -> dict[str, int]:
        """Kind -> how often, all of `EVENTS`."""
        counts = Counter(self.events["kind"])
        return {kind: counts[kind] for kind in EVENTS}

    def findings(self) -> list[str]:
        """What deserves a look, in words; none if nothing does."""
        found = []
        if "nothing to decide" in self.actions.flags:
            found.append("No decision was free: the mask allowed HOLD only.")
        if "collapsed" in self.actions.flags:
            action, share = max(self.actions.taken.items(), key=lambda item: item[1])
            found.append(f"The policy has collapsed: {action} is {share:.1%} of its free decisions.")
        for group, parts in (("symbols", self.reward.components), ("master", self.master)):
            for flag, words in FLAGS.items():
                named = [part.component for part in parts if flag in part.flags]
                if named:
                    found.append(f"Reward of the {group}: {', '.join(named)} {words}.")
        if self.episode_correlation is not None and self.episode_correlation < UNRELATED:
            found.append(f"Episodes that earn more are not paid more: correlation {self.episode_correlation:.2f}.")
        for kind in ("ruined", "kill switch"):
            if self.event_counts[kind]:
                found.append(f"{self.event_counts[kind]} x {kind}: {EVENTS[kind]}.")
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            "about": self.about.as_json(),
            "episodes": self.episodes,
            "symbols": self.symbols,
            "findings": self.findings(),
            "actions": self.actions.as_json(),
            "reward": {
                **self.reward.as_json(),
                "episode_correlation": self.episode_correlation,
                "master_components": [asdict(part) for part in self.master],
            },
            "accounts": self.accounts.as_json(),
            "events": self.event_counts,
        }


FLAGS = {
    "dominant": "drowns the others (above 60% of the absolute total)",
    "collapsed": "never changed",
    "no signal": "cannot be distinguished from zero",
}


def monitor(episodes: Episodes) -> Monitor:
    """Looks at recorded episodes from every side.

    Raises:
        UserError: they are shorter than two steps.
    """
    about, table = episodes.about, episodes.table
    playing = table[table["playing"]]
    sums = playing.astype({"reward": "float64", "own_net": "float64"}).groupby(["episode", "symbol"], observed=True)
    by_agent = sums[["reward", "own_net"]].sum().set_axis(["paid", "net"], axis=1).reset_index()
    parts = about.components.get("master", ())
    steps = account_steps(episodes)
    return Monitor(
        about=about,
        episodes=episodes.count,
        symbols=episodes.symbols,
        actions=action_diversity(episodes),
        reward=study_episodes(episodes),
        master=check_balance(recorded_of(episodes.books(), "master", parts)) if parts else (),
        by_agent=by_agent,
        episode_correlation=correlation(by_agent["paid"].to_numpy(), by_agent["net"].to_numpy()),
        accounts=account_figures(steps, about.initial_cash),
        account_steps=steps,
        events=risk_events(episodes),
    )
