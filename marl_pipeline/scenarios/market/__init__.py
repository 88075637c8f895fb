"""The trading market as a scenario: `market/portfolio`, `market/accounts` and `market/single`."""

from marl_pipeline.scenarios.market.scenario import market_scenario, scenario_of, synthetic_dataset

__all__ = ["market_scenario", "scenario_of", "synthetic_dataset"]
