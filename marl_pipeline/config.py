"""`params.yaml` as frozen, typed values; the only reader of it.

Every parameter stands in `params.yaml` with its value: no defaults hide here. An unknown or missing key, or a
value out of range, is one line that names it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, cast

import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml.error import YAMLError

from marl_pipeline.errors import UserError
from marl_pipeline.yaml_text import load_yaml

NOT_SET = "data/not_set"
"""The tracked empty file that stands for an optional input that is not given (DVC cannot depend on null)."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]


def _is_timedelta(value: str) -> str:
    try:
        span = pd.Timedelta(value)
    except ValueError as error:
        raise ValueError(f"not a time span such as '1D' or '15min': {value!r}") from error
    if not span >= pd.Timedelta(0):
        raise ValueError(f"a time span must not be negative: {value!r}")
    return value


Lag = Annotated[str, AfterValidator(_is_timedelta)]

Lags = Lag | Mapping[str, Lag]
"""One time span for every column of a file, or one for each column by its name and `*` for the others."""


def lag_of(lags: str | Mapping[str, str], column: str) -> str | None:
    """The time span of one column; None where neither it nor `*` is named."""
    return lags if isinstance(lags, str) else lags.get(column, lags.get("*"))


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunParams(Section):
    """What every stage shares. `workers` is how many stages run side by side and changes no result; `profile` names the
    profile that was merged last, for the report."""

    profile: str
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    workers: Count
    threads: Count
    device: Literal["cpu", "cuda"]


class SyntheticParams(Section):
    """The calibration market (`data.source: synthetic`). `signal` is the share of a symbol's own variance that
    a persistent, observable drift explains: 0 plants nothing."""

    symbols: Annotated[int, Field(ge=2)]
    bars: Annotated[int, Field(ge=100)]
    seed: int
    signal: Annotated[float, Field(ge=0.0, lt=1.0)]
    half_life: Positive


class AvailabilityParams(Section):
    """How long after the moment a companion row bears it can be known. A row dated by day bears that day's exchange
    close, a row of a month or quarter the close of its last day, and a row with a release the release."""

    vix: Lag
    macro: Lags
    sentiment: Lags


class CarryForwardParams(Section):
    """How long a companion's value counts after it became available, if none follows."""

    vix: Lag
    macro: Lags
    sentiment: Lags


class DataParams(Section):
    """Where the bars and their companions come from. Each input is a path; `data/not_set` means none. `start` and `end`
    bound the bars; the synthetic market and the sample begin where they do by themselves without a `start`."""

    source: Literal["sp500_sample", "parquet", "csv", "synthetic", "yfinance"]
    path: str
    frequency: Literal["1Day", "1Hour"]
    timezone: str | None
    calendar: str
    adjustment: Literal["none", "split", "total"]
    columns: Mapping[str, str]
    number_format: str | None
    date_format: str | None
    stamp: Literal["start", "end"]
    file_name: str | None
    universe: str
    sectors: str
    benchmark: str
    vix: str
    macro: str
    sentiment: str
    corporate_actions: str
    membership: str
    availability: AvailabilityParams
    carry_forward: CarryForwardParams
    start: str | None
    end: str | None
    synthetic: SyntheticParams


Severity = Literal["ignore", "warn", "mask", "mask_after", "fail"]


class ValidateDataParams(Section):
    """Thresholds of the rules and what a finding does: `mask` hides the bar, `mask_after` hides the symbol from
    that bar on, `fail` stops the stage."""

    stale_bars: Annotated[int, Field(ge=2)]
    jump_return: Positive
    split_tolerance: Positive
    coverage_window: Count
    min_coverage: Fraction
    severity: Mapping[str, Severity]


class BuildFeaturesParams(Section):
    """Look-backs are in bars. `custom` is a Python file with features of one's own; `data/not_set` means none."""

    window: Annotated[int, Field(ge=2)]
    scale_window: Annotated[int, Field(ge=20)]
    clip: Positive
    regime_window: Annotated[int, Field(ge=5)]
    custom: str


class SpansParams(Section):
    """The last `test_fraction` of the bars is held out, `validation_fraction` before it selects models, and
    `embargo` bars between two spans belong to neither."""

    validation_fraction: Annotated[float, Field(gt=0.0, lt=0.5)]
    test_fraction: Annotated[float, Field(gt=0.0, lt=0.8)]
    embargo: Annotated[int, Field(ge=0)]


class SLSignalsParams(Section):
    models: Annotated[tuple[Literal["MLP72", "LSTM62", "GRU93"], ...], Field(min_length=1)]
    horizon: Count
    threshold: NonNegative
    first_fit: Count
    refit_every: Count
    calibration_fraction: Annotated[float, Field(gt=0.0, lt=0.5)]
    max_samples: Count
    epochs: Count
    batch_size: Count
    learning_rate: Positive
    weight_decay: NonNegative
    dropout: Fraction


class PretrainEncoderParams(Section):
    embedding: Annotated[int, Field(ge=8)]
    width: Annotated[int, Field(ge=8)]
    heads: Count
    layers: Count
    dropout: Fraction
    graph_neighbours: Count
    correlation_window: Annotated[int, Field(ge=20)]
    mask_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]
    horizons: Annotated[tuple[int, ...], Field(min_length=1)]
    steps: Count
    refit_every: Count
    refit_steps: Annotated[int, Field(ge=0)]
    bars_per_batch: Count
    learning_rate: Positive
    weight_decay: NonNegative


class LimitsParams(Section):
    """Hard limits, enforced as mask and as sanitizer. Fractions are of equity; `position` is the cap of one
    position in a portfolio (an account of one symbol may hold all of its equity)."""

    gross_leverage: Positive
    position: Annotated[float, Field(gt=0.0, le=1.0)]
    open_positions: Count
    min_cash: Fraction
    trades_per_day: Count
    turnover_per_day: Positive
    account_drawdown: Fraction
    portfolio_drawdown: Fraction
    cool_down: Count
    reentry_scale: Fraction


class GuideWeightsParams(Section):
    """Weights of the seven components, in the order of `envs.trading.reward.COMPONENTS`. Rewards are paid in units in
    which the P&L counts as in `net`, so that its weight must not be 0."""

    pnl: Positive
    cost: NonNegative
    timing: NonNegative
    sharpe: NonNegative
    drawdown: NonNegative
    utilisation: NonNegative
    diversification: NonNegative


class GuideParams(Section):
    """Coefficients of the preset `guide_v3_2` (see `envs.trading.reward.RewardConfig`)."""

    weights: GuideWeightsParams
    unrealized_pnl_weight: NonNegative
    entry_multipliers: tuple[NonNegative, NonNegative, NonNegative]
    add_to_winner_multiplier: NonNegative
    confident_gain: Positive
    exit_multipliers: tuple[NonNegative, NonNegative, NonNegative]
    hold_winning: float
    hold_losing: float
    drawdown_limit: Fraction
    drawdown_multiplier: NonNegative
    utilisation_per_bar: float
    diversity_bonus: NonNegative
    repeat_penalty: NonNegative
    memory: Annotated[float, Field(gt=0.0, le=1.0)]

    def coefficients(self) -> dict[str, float]:
        """Every coefficient that is one number, by its dotted name; lists are left out."""
        values: dict[str, Any] = self.model_dump()
        weights = {f"weights.{name}": value for name, value in values.pop("weights").items()}
        return weights | {name: value for name, value in values.items() if isinstance(value, float)}

    def with_coefficients(self, changed: Mapping[str, float]) -> GuideParams:
        """With some coefficients changed, by their dotted names.

        Raises:
            UserError: there is no such coefficient, or it cannot have that value.
        """
        values: dict[str, Any] = self.model_dump()
        for name, value in changed.items():
            section, _, leaf = name.rpartition(".")
            if name not in self.coefficients():
                raise UserError(f"market.guide.{name}: no such coefficient; there are {', '.join(self.coefficients())}")
            (values[section] if section else values)[leaf] = value
        try:
            return GuideParams.model_validate(values)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise UserError(f"market.guide.{where}: {problem['msg']} (found {problem['input']!r})") from None


class MarketParams(Section):
    """Costs are in basis points of traded notional per side unless they say otherwise; rates are per year.

    `cpu_step` chooses how a CPU steps the market: `compiled` (fast) or `plain` (tensor operations, as on a GPU). They
    agree to rounding, not bit for bit, so the choice is a parameter. With `allow_short` the sell actions also open
    short positions.
    """

    cpu_step: Literal["compiled", "plain"]
    allow_short: bool
    initial_cash: Positive
    entry_sizes: tuple[Fraction, Fraction, Fraction]
    partial_exit: Annotated[float, Field(gt=0.0, lt=1.0)]
    add_to_winner: Fraction
    commission_bps_round_trip: NonNegative
    slippage_bps: NonNegative
    impact: NonNegative
    participation: Annotated[float, Field(gt=0.0, le=1.0)]
    volume_window: Count
    borrow_rate: NonNegative
    cash_rate: NonNegative
    reward: Literal["net", "guide_v3_2", "net_shaped"]
    master_reward: Literal["net", "risk_adjusted"]
    reward_scale: Positive
    guide: GuideParams
    limits: LimitsParams

    @model_validator(mode="after")
    def _shaped_rewards_are_for_long_trades(self) -> Self:
        if self.allow_short and self.reward != "net":
            raise ValueError(f"allow_short needs reward net: {self.reward} shapes long trades only")
        return self


class DirectivesParams(Section):
    """What the master chooses from: 4 risk multipliers x 4 position caps x 3 modes = 48 joint actions."""

    decide_every: Count
    risk_multipliers: tuple[Fraction, Fraction, Fraction, Fraction]
    position_caps: tuple[Fraction, Fraction, Fraction, Fraction]
    open_positions: tuple[Fraction, Fraction, Fraction]


class CurriculumStageParams(Section):
    """Which symbols and bars one stage of the curriculum trains on: the most liquid `symbols` share of the
    universe, starting where realised volatility is in the calmest `calm` share of the train span."""

    name: str
    symbols: Annotated[float, Field(gt=0.0, le=1.0)]
    calm: Annotated[float, Field(gt=0.0, le=1.0)]
    iterations: Count


class TrainSymbolAgentsParams(Section):
    """Attributes:
    envs, episode: environments side by side, and steps of an episode.
    evaluate_every: iterations (a rollout and the updates on it) between evaluations on the validation span.
    engine, workers: who runs the training, and in how many processes.
    ppo: the settings of `algos.ppo.PPOSettings`, complete; checked where they are used.
    """

    envs: Count
    episode: Count
    evaluate_every: Count
    engine: Literal["torch", "ray"]
    workers: Count
    ppo: Mapping[str, Any]
    curriculum: Annotated[tuple[CurriculumStageParams, ...], Field(min_length=1)]

    @property
    def gamma(self) -> float:
        """The learner's discount per step, which potential-based rewards need too."""
        return float(self.ppo["gamma"])

    @model_validator(mode="after")
    def _has_a_discount(self) -> Self:
        if not isinstance(self.ppo.get("gamma"), int | float):
            raise ValueError("ppo.gamma must be a number")
        return self


class TrainMasterParams(Section):
    """`mappo` holds the settings of `algos.mappo.MAPPOSettings`; the rest as for the symbol agents."""

    envs: Count
    episode: Count
    iterations: Count
    evaluate_every: Count
    engine: Literal["torch", "ray"]
    workers: Count
    directives: DirectivesParams
    mappo: Mapping[str, Any]


class FineTuneParams(Section):
    iterations: Count
    evaluate_every: Count
    symbol_learning_rate: Positive
    master_learning_rate: Positive


class WalkForwardParams(Section):
    """`windows` numbers the equal parts the test span is split into: one DVC stage each."""

    windows: Annotated[tuple[int, ...], Field(min_length=1)]
    tune_bars: Count
    tune_iterations: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _windows_count_up(self) -> Self:
        if self.windows != tuple(range(len(self.windows))):
            raise ValueError(f"windows must count up from 0, as in [0, 1, 2]; found {list(self.windows)}")
        return self


Range = tuple[float, float]


class CalibrateRewardsParams(Section):
    """The search for coefficients of `market.guide`: each trial trains symbol agents for `iterations` on the train
    span, once per seed, and is scored by their net growth on the validation span. `ranges` names the coefficients as
    `market.guide` does and gives the least and the largest value; `grid_points` values of each make the grid."""

    preset: Literal["guide_v3_2", "net_shaped"]
    sampler: Literal["grid", "tpe"]
    trials: Count
    grid_points: Annotated[int, Field(ge=2)]
    iterations: Count
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    ranges: Annotated[Mapping[str, Range | Mapping[str, Range]], Field(min_length=1)]

    def searched(self) -> dict[str, Range]:
        """Dotted name -> least and largest value."""
        found: dict[str, Range] = {}
        for name, value in self.ranges.items():
            parts = {name: value} if isinstance(value, tuple) else {f"{name}.{leaf}": value[leaf] for leaf in value}
            found |= parts
        return found

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> Self:
        for name, (low, high) in self.searched().items():
            if not low < high:
                raise ValueError(f"ranges.{name} must rise, as in [0.0, 1.0]; found {[low, high]}")
        return self


class GatesParams(Section):
    min_net_return: float
    min_excess_sharpe: float
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    max_drawdown: Fraction
    min_deflated_sharpe: Fraction
    min_seeds_positive: Fraction
    min_test_sessions: Count


class ReportParams(Section):
    """`primary` is the strategy that the gates are applied to."""

    primary: str
    bootstrap_samples: Annotated[int, Field(ge=100)]
    bootstrap_seed: int
    gates: GatesParams


class InputsParams(Section):
    """Whether a strategy's networks read what the supervised models and the encoder say."""

    signals: bool = True
    embeddings: bool = True


class OverridesParams(Section):
    """What a strategy changes of the sections that it is trained by. Costs and limits are the same for all."""

    market: Mapping[str, Any] = {}
    train_symbol_agents: Mapping[str, Any] = {}
    train_master: Mapping[str, Any] = {}
    fine_tune: Mapping[str, Any] = {}
    walk_forward: Mapping[str, Any] = {}

    @model_validator(mode="after")
    def _the_market_stays_the_same(self) -> Self:
        for section, allowed in (
            ("market", ("reward", "master_reward", "guide")),
            ("walk_forward", ("tune_bars", "tune_iterations")),
        ):
            for key in getattr(self, section):
                if key not in allowed:
                    raise ValueError(
                        f"{section}.{key} is the same for all strategies; of {section} one may override "
                        f"{', '.join(allowed)}"
                    )
        return self


class HierarchyStrategy(Section):
    """Symbol agents under a master, or with `master: none` under the full limits; an ablation has `overrides`."""

    kind: Literal["hierarchy"]
    master: Literal["learned", "none"] = "learned"
    inputs: InputsParams = InputsParams()
    overrides: OverridesParams = OverridesParams()


class AlgorithmStrategy(Section):
    """A policy that `algo` learns on the market of `env`, by whichever engine.

    `timesteps` counts environment steps; `settings` is laid over the algorithm's preset, as `-S` of `marl train` is.
    Without `env`, `ppo` and `dqn` learn one agent for the whole portfolio (`market/single`) and the others a team
    (`market/portfolio`).
    """

    kind: Literal["algorithm"]
    algo: str
    engine: Literal["torch", "ray", "rllib", "sb3"] = "torch"
    workers: Count = 1
    timesteps: Count = 100_000
    settings: Mapping[str, Any] = {}
    env: Literal["market/portfolio", "market/accounts", "market/single"] | None = None
    inputs: InputsParams = InputsParams()

    @property
    def environment(self) -> str:
        single = self.algo in ("ppo", "dqn")
        return self.env or ("market/single" if single else "market/portfolio")


class RuleStrategy(Section):
    """A rule that needs no training."""

    kind: Literal["rule"]
    rule: str
    options: Mapping[str, Any] = {}


Strategy = HierarchyStrategy | AlgorithmStrategy | RuleStrategy

STRATEGIES: Mapping[str, type[Section]] = {
    "hierarchy": HierarchyStrategy,
    "algorithm": AlgorithmStrategy,
    "rule": RuleStrategy,
}
"""By kind."""


def _is_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,39}", value):
        raise ValueError("a strategy's name is part of file names: up to 40 letters, digits and _, a letter first")
    return value


StrategyName = Annotated[str, AfterValidator(_is_name)]


class Params(Section):
    run: RunParams
    data: DataParams
    validate_data: ValidateDataParams
    build_features: BuildFeaturesParams
    spans: SpansParams
    sl_signals: SLSignalsParams
    pretrain_encoder: PretrainEncoderParams
    market: MarketParams
    train_symbol_agents: TrainSymbolAgentsParams
    train_master: TrainMasterParams
    fine_tune: FineTuneParams
    walk_forward: WalkForwardParams
    strategies: Annotated[Mapping[StrategyName, Annotated[Strategy, Field(discriminator="kind")]], Field(min_length=1)]
    report: ReportParams
    calibrate_rewards: CalibrateRewardsParams

    @model_validator(mode="after")
    def _strategies_fit(self) -> Self:
        if self.report.primary not in self.strategies:
            raise ValueError(
                f"parameter 'report.primary': no such strategy: {self.report.primary} (known: "
                f"{', '.join(self.strategies)})"
            )
        for name, strategy in self.strategies.items():
            if isinstance(strategy, HierarchyStrategy):
                for section in OverridesParams.model_fields:
                    changes = getattr(strategy.overrides, section)
                    try:
                        overridden(getattr(self, section), changes)
                    except ValidationError as error:
                        words = explain(error, type(getattr(self, section)))
                        raise ValueError(f"strategies.{name}.overrides.{section}: {words}") from None
        return self


S = TypeVar("S", bound=Section)


def overridden(section: S, changes: Mapping[str, Any]) -> S:
    """A section with some values changed, mapping by mapping; lists are replaced whole.

    Raises:
        ValidationError: an unknown key, or a bad value.
    """
    return type(section).model_validate(laid_over(section.model_dump(), changes)) if changes else section


def laid_over(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `overlay`, mapping by mapping."""
    merged = dict(base)
    for key, value in overlay.items():
        current = merged.get(key)
        if isinstance(current, Mapping) and isinstance(value, Mapping):
            merged[key] = laid_over(current, value)
        else:
            merged[key] = value
    return merged


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Reads and checks a complete parameter file.

    Raises:
        UserError: the file is missing, is not YAML, lacks a key, or holds an unknown key or a bad value.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the root of the repository") from None
    try:
        values = load_yaml(text)
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return parse_params(values, origin=str(path))


def parse_params(values: object, origin: str) -> Params:
    """Checks a mapping of sections; `origin` names it in errors."""
    if not isinstance(values, Mapping):
        raise UserError(f"{origin}: expected sections such as data and run, found {type(values).__name__}")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{origin}: {explain(error, Params)}") from None


def explain(error: ValidationError, model: type[Section]) -> str:
    """What is wrong with the values of `model`, in one line that names the parameter."""
    problems = error.errors(include_url=False)
    first = problems[0]
    loc: Sequence[str | int] = first["loc"]
    known: tuple[Sequence[str | int], Any] = (loc, model)
    if loc[:1] == ("strategies",) and len(loc) > 3:  # a strategy is of one of several kinds, and the kind is in `loc`
        known = (loc[3:], STRATEGIES[str(loc[2])])
        loc = (*loc[:2], *loc[3:])
    where = ".".join(str(part) for part in loc if part != "[key]")
    match first["type"]:
        case "extra_forbidden":
            text = f"unknown parameter '{where}'{_suggest(*known)}"
        case "missing":
            text = f"parameter '{where}' is missing"
        case "union_tag_invalid" | "union_tag_not_found":
            found = first["input"].get("kind") if isinstance(first["input"], Mapping) else first["input"]
            text = f"parameter '{where}.kind': choose {', '.join(STRATEGIES)} (found {found!r})"
        case _ if not where:
            text = first["msg"].removeprefix("Value error, ")
        case _:
            text = f"parameter '{where}': {first['msg'].removeprefix('Value error, ')} (found {first['input']!r})"
    more = len(problems) - 1
    return text + (f"; and {more} more problem{'s' if more > 1 else ''}" if more else "")


def _suggest(loc: Sequence[str | int], model: Any) -> str:
    """Names the known key closest to the unknown one at `loc`."""
    for part in loc[:-1]:
        field = model.model_fields.get(part) if isinstance(part, str) and hasattr(model, "model_fields") else None
        model = field.annotation if field is not None else None
    if not hasattr(model, "model_fields"):
        return ""
    close = difflib.get_close_matches(str(loc[-1]), list(model.model_fields), n=1)
    return f"; did you mean '{close[0]}'?" if close else f" (known here: {', '.join(model.model_fields)})"


class _Declared:
    """A view of the parameters that refuses what a stage did not declare in dvc.yaml, at any depth."""

    def __init__(self, section: Section, declared: frozenset[str], prefix: str) -> None:
        self._section, self._declared, self._prefix = section, declared, prefix

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._section, name)
        path = f"{self._prefix}{name}"
        if path in self._declared:
            return value
        if isinstance(value, Section) and any(d.startswith(path + ".") for d in self._declared):
            return _Declared(value, self._declared, path + ".")
        raise AttributeError(f"parameter '{path}' is read but not declared under `params` of the stage in dvc.yaml")


def restrict(params: Params, declared: Sequence[str]) -> Params:
    """The parameters as a stage may see them: reading one that dvc.yaml does not declare for it raises.

    This is what makes DVC's cache trustworthy: no stage can depend on a parameter that DVC does not track.
    """
    return cast(Params, _Declared(params, frozenset(declared), ""))
