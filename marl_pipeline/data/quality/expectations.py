"""The expectation that bars keep a rule of the catalogue. Importing this module loads great-expectations (4 s)."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ClassVar

import pandas as pd
from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import BatchExpectation
from great_expectations.expectations.metrics.metric_provider import metric_value
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider

from marl_pipeline.data.quality.verdict import QualityResult

EXAMPLES = 20
METRIC = "bars.findings"

APPLY_RULES: ContextVar[Callable[[pd.DataFrame], QualityResult]] = ContextVar("APPLY_RULES")
"""Applies the rules to the bars of a batch: calendar, thresholds and corporate actions are bound to it."""


class BarsFindings(TableMetricProvider):  # type: ignore[misc]
    """The findings of all rules in a batch of bars, computed once a batch."""

    metric_name = METRIC

    @metric_value(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, execution_engine: Any, metric_domain_kwargs: Any, **_: Any) -> pd.DataFrame:  # noqa: N805
        bars, _, _ = execution_engine.get_compute_domain(metric_domain_kwargs, domain_type=MetricDomainTypes.TABLE)
        return APPLY_RULES.get()(bars).findings


class ExpectBarsToKeepRule(BatchExpectation):  # type: ignore[misc]
    """Expects that no bar is a finding of `rule`; bars that are one are the unexpected rows."""

    rule: str
    metric_dependencies: ClassVar[tuple[str, ...]] = (METRIC, "table.row_count")
    success_keys: ClassVar[tuple[str, ...]] = ("rule",)
    args_keys: ClassVar[tuple[str, ...]] = ("rule",)

    def _validate(
        self, metrics: dict[str, Any], runtime_configuration: Any = None, execution_engine: Any = None
    ) -> dict[str, Any]:
        findings, rows = metrics[METRIC], metrics["table.row_count"]
        hits = findings[findings["rule"] == self.rule]
        examples = hits.head(EXAMPLES)
        return {
            "success": hits.empty,
            "result": {
                "observed_value": f"{len(hits)} bars of {hits['symbol'].nunique()} symbols",
                "element_count": int(rows),
                "unexpected_count": len(hits),
                "unexpected_percent": 100.0 * len(hits) / rows,
                "partial_unexpected_list": [
                    f"{row.symbol} {row.timestamp:%Y-%m-%d %H:%M}: {row.detail}" for row in examples.itertuples()
                ],
            },
        }
