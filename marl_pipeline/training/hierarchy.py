"""The three ways the tiers are trained: symbol agents on a curriculum, the master over them, both together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from marl_pipeline.agents.curriculum import episode_starts, symbols_in_play
from marl_pipeline.agents.hierarchy import Alone, Hierarchy
from marl_pipeline.agents.master import MasterAgent, MasterNetwork
from marl_pipeline.agents.symbol import SymbolAgents, SymbolNetwork
from marl_pipeline.agents.view import MarketView
from marl_pipeline.algos.common.rollout import Collector, Controller
from marl_pipeline.algos.mappo import MAPPO
from marl_pipeline.algos.ppo import PPO
from marl_pipeline.checkpoint import Checkpointer
from marl_pipeline.config import FineTuneParams, MarketParams, TrainMasterParams, TrainSymbolAgentsParams
from marl_pipeline.data.dataset import BoolArray, Dataset, Embeddings, IntArray, Signals
from marl_pipeline.data.regime import calmness, liquidity
from marl_pipeline.data.windows import Span
from marl_pipeline.envs.protocol import discrete_actions
from marl_pipeline.envs.trading.core.market import Market
from marl_pipeline.envs.trading.env import TradingEnv
from marl_pipeline.progress import OnStep
from marl_pipeline.seeding import stream, stream_seed
from marl_pipeline.training.trainer import Curves, Trained, train

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class World:
    """One market, and what one encoder version and the classifiers say of it, on one device.

    Without a master a portfolio has no directives but the full limits.
    """

    dataset: Dataset
    view: MarketView
    market: Market
    params: MarketParams
    symbols_params: TrainSymbolAgentsParams
    master_params: TrainMasterParams
    device: torch.device
    has_master: bool = True

    @classmethod
    def build(
        cls,
        dataset: Dataset,
        signals: Signals | None,
        embeddings: Embeddings | None,
        params: MarketParams,
        symbols_params: TrainSymbolAgentsParams,
        master_params: TrainMasterParams,
        device: torch.device,
        has_master: bool = True,
    ) -> World:
        return cls(
            dataset=dataset,
            view=MarketView.build(dataset, signals, embeddings, device),
            market=Market.from_dataset(dataset, params, device),
            params=params,
            symbols_params=symbols_params,
            master_params=master_params,
            device=device,
            has_master=has_master,
        )

    def environment(
        self,
        mode: Literal["accounts", "portfolio"],
        span: Span,
        *,
        num_envs: int,
        episode: int | None,
        seed: int,
        start_bars: IntArray | None = None,
        symbols: BoolArray | None = None,
        random_directives: bool = False,
    ) -> TradingEnv:
        return TradingEnv(
            self.market,
            self.params,
            self.master_params.directives if self.has_master or mode == "accounts" else None,
            mode=mode,
            num_envs=num_envs,
            span=span,
            episode=episode,
            start_bars=start_bars,
            symbols=symbols,
            random_directives=random_directives,
            gamma=self.symbols_params.ppo.gamma,
            benchmark=self.dataset.benchmark,
            seed=seed,
            device=self.device,
        )

    def symbol_agents(self, seed: int) -> SymbolAgents:
        """Fresh symbol agents; the shapes come from the environment's specs."""
        spec = self.environment(
            "portfolio", Span(self.view.start, self.view.start + 2), num_envs=1, episode=None, seed=0
        )
        group = spec.groups["symbols"]
        module = SymbolNetwork(
            inputs=SymbolAgents.input_width(self.view, group.observation),
            symbols=group.agents,
            actions=discrete_actions(group),
            hidden=self.symbols_params.hidden,
            actor_gain=self.symbols_params.actor_gain,
            seed=stream_seed(seed, "symbol network"),
        )
        return SymbolAgents(module.to(self.device), self.view)

    def master_agent(self, seed: int) -> MasterAgent:
        spec = self.environment(
            "portfolio", Span(self.view.start, self.view.start + 2), num_envs=1, episode=None, seed=0
        )
        group = spec.groups["master"]
        module = MasterNetwork(
            inputs=MasterAgent.input_width(self.view, group.observation, discrete_actions(spec.groups["symbols"])),
            state=spec.state_size,
            actions=discrete_actions(group),
            hidden=self.master_params.hidden,
            actor_gain=self.master_params.actor_gain,
            normalise_values=self.master_params.normalise_values,
            seed=stream_seed(seed, "master network"),
        )
        return MasterAgent(module.to(self.device), self.view)


@torch.no_grad()
def net_log_growth(environment: TradingEnv, controller: Controller, reward_scale: float) -> float:
    """What a policy's mode earns over one pass of the environment's span, after all costs.

    Whatever reward the environment pays, this is the net one.

    Returns:
        sum of the changes of log equity; in accounts mode the mean over the symbols in play.
    """
    timestep = environment.reset()
    total = torch.zeros((), dtype=torch.float64, device=environment.device)
    while True:
        decisions = controller.decide(timestep, None)
        timestep = environment.step({name: decision.action for name, decision in decisions.items()})
        total += environment.rewards.net.double().mean()
        if bool(timestep.done.all()):
            return float(total) / reward_scale


def train_symbol_agents(
    world: World,
    *,
    train_span: Span,
    validation_span: Span,
    seed: int,
    on_step: OnStep,
    checkpoint: Checkpointer,
) -> tuple[Weights, dict[str, Any]]:
    """Curriculum PPO on accounts of one symbol each.

    Every stage starts from the last stage's best weights on the validation span; directives are drawn at random per
    episode, so that the agents know what to do under any master.
    """
    params = world.symbols_params
    agents = world.symbol_agents(seed)
    volatility = calmness(world.dataset)
    liquid = liquidity(world.dataset, train_span.stop)
    stages: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    validation = world.environment("accounts", validation_span, num_envs=1, episode=None, seed=0)
    for number, stage in enumerate(params.curriculum):
        episode = min(params.ppo.episode, len(train_span) // 2)
        environment = world.environment(
            "accounts",
            train_span,
            num_envs=params.ppo.envs,
            episode=episode,
            start_bars=episode_starts(volatility, train_span, episode, stage),
            symbols=symbols_in_play(liquid, stage),
            random_directives=True,
            seed=stream_seed(seed, f"curriculum {number} environment"),
        )
        learner = PPO(agents, params.ppo)
        trained = train(
            collector=Collector(environment, Alone(agents), stream(seed, f"curriculum {number} actions", world.device)),
            learners={"symbols": learner},
            modules={"symbols": agents.module},
            horizon=params.ppo.horizon,
            iterations=stage.iterations,
            generator=stream(seed, f"curriculum {number} minibatches"),
            evaluate=lambda: net_log_growth(validation, Alone(agents), world.params.reward_scale),
            evaluate_every=params.evaluate_every,
            label=f"curriculum: {stage.name}",
            on_step=on_step,
            checkpoint=checkpoint.child(f"curriculum_{number}"),
        )
        stages.append({"name": stage.name, **_outcome(trained)})
        curves += trained.curves.as_records(prefix=f"{stage.name}/")
    metadata = {"stages": stages, "curves": curves, "symbols": list(world.dataset.panel.symbols)}
    return _weights(agents.module), metadata


def train_master(
    world: World,
    symbol_weights: Mapping[str, Tensor],
    *,
    train_span: Span,
    validation_span: Span,
    seed: int,
    on_step: OnStep,
    checkpoint: Checkpointer,
) -> tuple[Weights, dict[str, Any]]:
    """MAPPO with a central value on a shared portfolio; the symbol agents are frozen and act by their mode."""
    params = world.master_params
    agents, master = world.symbol_agents(seed), world.master_agent(seed)
    agents.module.load_state_dict(dict(symbol_weights))
    hierarchy = Hierarchy(agents, master, explore_symbols=False)
    learner = MAPPO(master, params.ppo, norm=master.module.value_norm)
    trained = _train_in_portfolio(
        world,
        hierarchy,
        {"master": learner},
        {"master": master.module},
        train_span=train_span,
        validation_span=validation_span,
        iterations=params.iterations,
        evaluate_every=params.evaluate_every,
        seed=seed,
        label="master",
        on_step=on_step,
        checkpoint=checkpoint,
    )
    return _weights(master.module), {**_outcome(trained), "curves": trained.curves.as_records()}


def fine_tune(
    world: World,
    symbol_weights: Mapping[str, Tensor],
    master_weights: Mapping[str, Tensor] | None,
    *,
    params: FineTuneParams,
    iterations: int,
    span: Span,
    validation_span: Span | None,
    seed: int,
    label: str,
    on_step: OnStep,
    checkpoint: Checkpointer,
) -> tuple[Weights, Weights | None, dict[str, Any]]:
    """Both tiers together on a shared portfolio, the symbol heads at their low learning rate; without
    `master_weights` the symbol agents alone.

    Without a `validation_span` (tuning inside a walk-forward window, where what follows is held out) the last
    weights are kept.
    """
    agents = world.symbol_agents(seed)
    agents.module.load_state_dict(dict(symbol_weights))
    learners: dict[str, PPO] = {
        "symbols": PPO(agents, world.symbols_params.ppo, learning_rate=params.symbol_learning_rate)
    }
    modules: dict[str, torch.nn.Module] = {"symbols": agents.module}
    controller: Controller = Alone(agents)
    if master_weights is not None:
        master = world.master_agent(seed)
        master.module.load_state_dict(dict(master_weights))
        learners["master"] = MAPPO(
            master,
            world.master_params.ppo,
            norm=master.module.value_norm,
            learning_rate=params.master_learning_rate,
        )
        modules["master"] = master.module
        controller = Hierarchy(agents, master)
    trained = _train_in_portfolio(
        world,
        controller,
        learners,
        modules,
        train_span=span,
        validation_span=validation_span,
        iterations=iterations,
        evaluate_every=params.evaluate_every,
        seed=seed,
        label=label,
        on_step=on_step,
        checkpoint=checkpoint,
    )
    metadata = {**_outcome(trained), "curves": trained.curves.as_records()}
    return _weights(agents.module), _weights(modules["master"]) if "master" in modules else None, metadata


def _train_in_portfolio(
    world: World,
    controller: Controller,
    learners: Mapping[str, PPO],
    modules: Mapping[str, torch.nn.Module],
    *,
    train_span: Span,
    validation_span: Span | None,
    iterations: int,
    evaluate_every: int,
    seed: int,
    label: str,
    on_step: OnStep,
    checkpoint: Checkpointer,
) -> Trained:
    if iterations == 0:
        return Trained(Curves(), 0, None)
    ppo = world.master_params.ppo
    environment = world.environment(
        "portfolio",
        train_span,
        num_envs=ppo.envs,
        episode=min(ppo.episode, len(train_span) // 2),
        seed=stream_seed(seed, f"{label} environment"),
    )
    validation = (
        world.environment("portfolio", validation_span, num_envs=1, episode=None, seed=0) if validation_span else None
    )
    scale = world.params.reward_scale
    return train(
        collector=Collector(environment, controller, stream(seed, f"{label} actions", world.device)),
        learners=learners,
        modules=modules,
        horizon=ppo.horizon,
        iterations=iterations,
        generator=stream(seed, f"{label} minibatches"),
        evaluate=(lambda: net_log_growth(validation, controller, scale)) if validation else None,
        evaluate_every=evaluate_every,
        label=label,
        on_step=on_step,
        checkpoint=checkpoint,
    )


def _outcome(trained: Trained) -> dict[str, Any]:
    return {"best_iteration": trained.best_iteration, "best_validation_net": trained.best_score}


def _weights(module: torch.nn.Module) -> Weights:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
