"""The checked bars as a great-expectations suite, and its data docs: pages to browse, beside the report.

The rules themselves are columns computed by `rules`; an expectation says that a column has no hit. The context
lives in memory: nothing is written but the pages, and nothing is sent.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from marl_pipeline.config import ValidateDataParams
from marl_pipeline.data.quality.catalogue import RULES
from marl_pipeline.data.quality.verdict import QualityResult

TYPES = {
    "symbol": "str",
    "timestamp": "Timestamp",
    **dict.fromkeys(("open", "high", "low", "close", "volume"), "float64"),
}
EXAMPLES = 20
SITE = "local_site"


def validate_with_expectations(
    result: QualityResult, params: ValidateDataParams, docs: Path | None = None
) -> dict[str, bool]:
    """Validates schema, types and every rule that applies.

    Args:
        result: of `check`.
        docs: folder for the data docs, replaced if it exists; None builds none.

    Returns:
        Whether each expectation held: `exists:<column>`, `type:<column>`, `rule:<name>`.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    for name in ("great_expectations", "great_expectations._docs_decorators"):
        logging.getLogger(name).setLevel(logging.WARNING)
    import great_expectations as gx  # 4 s, so only when asked

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    applied = [rule for rule in RULES if rule not in result.not_applied and params.severity[rule] != "ignore"]
    suite = context.suites.add(_suite(gx, applied, params))
    batch = (
        context.data_sources.add_pandas("bars").add_dataframe_asset("bars").add_batch_definition_whole_dataframe("all")
    )
    definition = context.validation_definitions.add(gx.ValidationDefinition(name="bars", data=batch, suite=suite))
    actions = []
    if docs is not None:
        shutil.rmtree(docs, ignore_errors=True)
        context.update_data_docs_site(SITE, _site(docs))
        actions.append(gx.checkpoint.UpdateDataDocsAction(name="docs", site_names=[SITE]))
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name="bars",
            validation_definitions=[definition],
            actions=actions,
            result_format={
                "result_format": "SUMMARY",
                "unexpected_index_column_names": ["symbol", "timestamp"],
                "partial_unexpected_count": EXAMPLES,
            },
        )
    )
    outcome = checkpoint.run(batch_parameters={"dataframe": _frame(result, applied)})
    held: dict[str, bool] = {}
    for run in outcome.run_results.values():
        for each in run.results:
            held[each.expectation_config.meta["key"]] = bool(each.success)
    return held


def _suite(gx: Any, applied: list[str], params: ValidateDataParams) -> Any:
    suite = gx.ExpectationSuite(name="bars")
    for column, kind in TYPES.items():
        suite.add_expectation(gx.expectations.ExpectColumnToExist(column=column, meta={"key": f"exists:{column}"}))
        suite.add_expectation(
            gx.expectations.ExpectColumnValuesToBeOfType(column=column, type_=kind, meta={"key": f"type:{column}"})
        )
    for rule in applied:
        notes = f"{RULES[rule].meaning} Severity: {params.severity[rule]}. {RULES[rule].remedy}"
        suite.add_expectation(
            gx.expectations.ExpectColumnValuesToBeInSet(
                column=rule, value_set=[False], notes=notes, meta={"key": f"rule:{rule}"}
            )
        )
    return suite


def _site(docs: Path) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }


def _frame(result: QualityResult, applied: list[str]) -> pd.DataFrame:
    return result.bars[[*TYPES, *applied]]
