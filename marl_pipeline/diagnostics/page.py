"""Recorded episodes as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import pandas as pd

from marl_pipeline.diagnostics.account_figures import EVENTS
from marl_pipeline.diagnostics.monitor import Monitor
from marl_pipeline.diagnostics.pictures import (
    action_shares,
    component_shares,
    component_signal,
    drawdown_steps,
    entropy_steps,
    entropy_symbols,
    equity_fan,
    event_timeline,
    mean_by_step,
    paid_and_earned,
)
from marl_pipeline.envs.trading.rewards.component_log import Balance
from marl_pipeline.reporting.blocks import bullets, card, document, figure, grid, note, section, table, tiles
from marl_pipeline.reporting.canvas import Picture, percent
from marl_pipeline.reporting.text import written

MOST_EVENTS = 40
"""Rows of the table of events; orders refused or unfilled are counted and not listed."""

LISTED = ("kill switch", "re-entry", "ruined", "forced close")


def monitor_page(seen: Monitor) -> str:
    """The whole page: what to look at first, then actions, reward, accounts, events."""
    accounts = section("The accounts", table(("", ""), _account_rows(seen)))
    decisions = section("The decisions", table(("", ""), _decision_rows(seen)))
    body = [
        _first_screen(seen),
        card(figure(equity_fan(seen.account_steps))),
        grid(*_cards(_account_pictures(seen)), accounts, *_cards(_action_pictures(seen)), decisions, *_reward(seen)),
        *(section(f"Components: {group}", _components(parts)) for group, parts in _groups(seen).items()),
        card(figure(event_timeline(seen.events, int(seen.account_steps["step"].max())))),
        *_events(seen),
        section("The recording", table(("", ""), _recording_rows(seen))),
    ]
    return document(f"Episodes of {seen.about.policy}", body)


def _cards(pictures: Sequence[Picture]) -> list[str]:
    return [card(figure(picture)) for picture in pictures]


def _first_screen(seen: Monitor) -> str:
    accounts, reward = seen.accounts, seen.reward
    correlation = written(seen.episode_correlation, "number")
    figures = (
        ("Mean growth", _signed(accounts.mean_growth - 1.0), f"of {accounts.accounts} accounts"),
        ("Deepest drawdown", written(accounts.worst_drawdown, "percent"), f"limit {_limit(seen):.0%}"),
        ("Variety of actions", written(seen.actions.entropy, "number"), "0: one action, 1: all evenly"),
        ("Paid follows earned", correlation, f"correlation over episodes, {reward.reward}"),
    )
    found = seen.findings()
    said = "Nothing here is out of the ordinary." if not found else "What deserves a look:"
    return (
        f'<header class="{"nogo" if found else "go"}"><p class="what">{seen.episodes} episodes of '
        f"{reward.steps} steps, {seen.symbols} symbols, {_mode(seen)}</p>"
        f"<h1>Episodes of <b>{escape(seen.about.policy)}</b>, paid by <b>{escape(reward.reward)}</b></h1>"
        f"<p>{said}</p>{bullets(found) if found else ''}</header>{tiles(figures)}"
    )


def _account_pictures(seen: Monitor) -> list[Picture]:
    steps, pooled = seen.account_steps, seen.about.mode == "portfolio"
    drawn = (
        ("cash", "Cash and positions", "Mean shares of equity.", {"cash": "cash", "exposure": "positions"}, percent),
        ("turnover", "Turnover", "Traded in a step as a share of equity, mean.", {"turnover": ""}, percent),
        ("cost", "Cost drag", "All costs of a step in basis points of equity, mean.", {"cost_bps": ""}, None),
        (
            "open",
            "Open positions",
            "Mean number." if pooled else "Mean over accounts of one.",
            {"open": ""},
            None,
        ),
    )
    others = [mean_by_step(name, title, words, steps, shown, way) for name, title, words, shown, way in drawn]
    return [drawdown_steps(steps, _limit(seen)), *others]


def _account_rows(seen: Monitor) -> list[tuple[str, str]]:
    accounts = seen.accounts
    modes = [
        (f"Steps in mode {mode}", written(share, "percent")) for mode, share in accounts.directives.items() if share
    ]
    return [
        ("Growth, mean", _signed(accounts.mean_growth - 1.0)),
        *((f"Growth, {share:.0%} quantile", _signed(growth - 1.0)) for share, growth in accounts.growth.items()),
        ("Deepest drawdown, median account", written(accounts.median_drawdown, "percent")),
        ("Turnover a session", written(accounts.turnover, "percent")),
        ("Costs a session, basis points", written(accounts.cost_bps, "number")),
        ("Costs of an episode, of initial cash", written(accounts.cost, "fine percent")),
        ("Cash, share of equity", written(accounts.cash, "percent")),
        *modes,
        ("Risk multiplier, mean", written(accounts.risk, "number")),
    ]


def _action_pictures(seen: Monitor) -> list[Picture]:
    return [action_shares(seen.actions), entropy_steps(seen.actions), entropy_symbols(seen.actions)]


def _decision_rows(seen: Monitor) -> list[tuple[str, str]]:
    actions, ends = seen.actions, seen.actions.by_symbol.dropna().sort_values()
    rows = [
        ("Free decisions (more than HOLD allowed)", written(actions.free, "percent")),
        ("Variety of the free ones, 0 to 1", written(actions.entropy, "number")),
        ("Refused by the mask, share of the decisions", written(actions.refused, "percent")),
        ("Orders that traded nothing, share of the orders", written(actions.unfilled, "percent")),
    ]
    if len(ends):
        rows.append(("Least varied symbol", f"{ends.index[0]} ({written(ends.iloc[0], 'number')})"))
        rows.append(("Most varied symbol", f"{ends.index[-1]} ({written(ends.iloc[-1], 'number')})"))
    taken = sorted(actions.taken.items(), key=lambda item: -item[1])
    return [*rows, *((f"Free decisions: {name}", written(share, "percent")) for name, share in taken[:3])]


def _groups(seen: Monitor) -> dict[str, tuple[Balance, ...]]:
    """The components of the groups of agents whose reward has any."""
    groups = {"symbols": seen.reward.components, "master": seen.master}
    return {group: parts for group, parts in groups.items() if parts}


def _reward(seen: Monitor) -> list[str]:
    """Paid beside earned, then two pictures for each group with components."""
    groups = _groups(seen)
    quality = table(("an agent and episode", "mean"), _quality_rows(seen))
    quality += note(f"In units of {seen.about.reward_scale:g} x log equity.")
    if not groups:
        quality += note("This reward is what the account earns and has no components.")
    pictures = [draw(parts, group) for group, parts in groups.items() for draw in (component_shares, component_signal)]
    scatter = card(figure(paid_and_earned(seen.by_agent, seen.episode_correlation)))
    return [scatter, section("Quality of the reward", quality), *_cards(pictures)]


def _quality_rows(seen: Monitor) -> list[tuple[str, str]]:
    reward = seen.reward
    return [
        ("Paid", _plus(reward.paid, 3)),
        ("Earned (net)", _plus(reward.net, 3)),
        ("Gap", _plus(reward.gap, 3)),
        ("Correlation of paid and earned over episodes", written(seen.episode_correlation, "number")),
        ("The same over single steps", written(reward.correlation, "number")),
    ]


def _components(components: tuple[Balance, ...]) -> str:
    rows = [
        (
            part.component,
            _plus(part.mean, 5),
            f"{part.deviation:.5f}",
            written(part.share, "percent"),
            f"{part.signal_to_noise:.3f}",
            ", ".join(part.flags),
        )
        for part in components
    ]
    head = ("component", "mean a step", "deviation", "share", "signal / noise", "flags")
    return table(head, rows)


def _events(seen: Monitor) -> list[str]:
    counts = [(f"{kind}: {EVENTS[kind]}", f"{count:,}") for kind, count in seen.event_counts.items()]
    parts = [section("How often the rules stepped in", table(("event", "how often"), counts))]
    listed = seen.events[seen.events["kind"].isin(LISTED)]
    if len(listed):
        events = table(("event", "episode", "step", "bar", "who", ""), _event_rows(listed.head(MOST_EVENTS)))
        if len(listed) > MOST_EVENTS:
            events += note(f"The first {MOST_EVENTS} of {len(listed)}.")
        parts.append(section("Events in order", events))
    return parts


def _event_rows(events: pd.DataFrame) -> Sequence[tuple[str, ...]]:
    columns = (events[name] for name in ("kind", "episode", "step", "timestamp", "who", "detail"))
    return [
        (kind, str(episode), str(step), f"{time:%Y-%m-%d %H:%M}".removesuffix(" 00:00"), who, detail)
        for kind, episode, step, time, who, detail in zip(*columns, strict=True)
    ]


def _recording_rows(seen: Monitor) -> list[tuple[str, str]]:
    about = seen.about
    return [
        ("Policy", about.policy),
        ("Reward of the symbols, of the master", f"{about.reward}, {about.master_reward}"),
        ("Market", about.source),
        ("Bars", f"{about.span[0]} to {about.span[1]}"),
        ("Seed", str(about.seed)),
        ("Initial cash", f"{about.initial_cash:,.0f}"),
        *((f"Limit: {name.replace('_', ' ')}", str(value)) for name, value in about.limits.items()),
    ]


def _mode(seen: Monitor) -> str:
    return "one portfolio" if seen.about.mode == "portfolio" else "an account for each symbol"


def _limit(seen: Monitor) -> float:
    kind = "portfolio" if seen.about.mode == "portfolio" else "account"
    return float(seen.about.limits[f"{kind}_drawdown"])


def _signed(value: float) -> str:
    return f"{_plus(100 * value, 2)}%"


def _plus(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "\u2212")
