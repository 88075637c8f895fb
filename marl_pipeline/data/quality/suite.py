"""One great-expectations checkpoint over the bars: an expectation a rule, whose outcome is the verdict of the stage.

The expectations apply the rules themselves (`expectations`), the checkpoint says which hold, and the verdict reads
nothing else. The context lives in memory: nothing is written but the data docs, pages that need no network.
"""

from __future__ import annotations

import html
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from marl_pipeline.config import ValidateDataParams
from marl_pipeline.data.calendar import utc_array
from marl_pipeline.data.quality.catalogue import RULES
from marl_pipeline.data.quality.verdict import QualityResult
from marl_pipeline.errors import UserError

TYPES = {
    "symbol": "str",
    "timestamp": "Timestamp",
    **dict.fromkeys(("open", "high", "low", "close", "volume"), "float64"),
}
SITE = "local_site"
SEVERITIES = {"fail": "critical", "mask_after": "warning", "mask": "warning", "warn": "info"}
"""The severity of great-expectations for each of ours."""
STYLE = (
    "<style>body{font-family:sans-serif;margin:2em}table{border-collapse:collapse}"
    "td,th{border:1px solid #999;padding:.3em;text-align:left;vertical-align:top}</style>"
)
REMOTE = re.compile(
    r"""<script[^>]*\ssrc=["']?(?:https?:)?//[^>]*>\s*</script>|<(?:link|img)[^>]*\s(?:href|src)=["']?(?:https?:)?//[^>]*>""",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Outcome:
    """What the checkpoint says of one expectation. `severity` is `critical`, `warning` or `info`."""

    success: bool
    severity: str
    unexpected: int


@dataclass(frozen=True)
class Verdict:
    """Of a checkpoint: `result` has the findings of the rules, `outcomes` what decides, by `exists:<column>`,
    `type:<column>` and `rule:<name>`."""

    result: QualityResult
    outcomes: Mapping[str, Outcome]

    @property
    def counts(self) -> dict[str, int]:
        """Unexpected rows of every rule that was looked at."""
        rules = {key.removeprefix("rule:"): each for key, each in self.outcomes.items() if key.startswith("rule:")}
        return {rule: each.unexpected for rule, each in rules.items()}

    def raise_fatal(self, origin: str) -> None:
        """Raises UserError for the first expectation of severity `critical` that does not hold."""
        for key, outcome in self.outcomes.items():
            if outcome.success or outcome.severity != "critical":
                continue
            kind, name = key.split(":", 1)
            if kind == "rule":
                raise UserError(self.result.refusal(name, origin, outcome.unexpected))
            wrong = "is missing" if kind == "exists" else f"holds other values than {TYPES[name]}"
            raise UserError(f"{origin}: column '{name}' {wrong}; ingest the bars again")


def run_checkpoint(
    bars: pd.DataFrame,
    apply_rules: Callable[[pd.DataFrame], QualityResult],
    params: ValidateDataParams,
    docs: Path | None = None,
    *,
    skip: Collection[str] = (),
) -> Verdict:
    """Validates schema, types and every rule that is not ignored.

    Args:
        bars: a canonical bar table.
        apply_rules: gives the findings in such a table, as `check` does.
        docs: folder for the data docs, replaced if it exists; None builds none.
        skip: rules that say nothing about such bars.

    Raises:
        UserError: of `apply_rules`.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    for name in ("great_expectations", "great_expectations._docs_decorators"):
        logging.getLogger(name).setLevel(logging.WARNING)
    import great_expectations as gx  # 4 s, so only when asked

    from marl_pipeline.data.quality.expectations import APPLY_RULES

    results: list[QualityResult] = []
    errors: list[Exception] = []

    def applied(table: pd.DataFrame) -> QualityResult:
        try:
            results.append(apply_rules(table))
        except Exception as error:  # the checkpoint would turn it into a result
            errors.append(error)
            raise
        return results[-1]

    checkpoint = _checkpoint(gx, [rule for rule in applied_rules(params) if rule not in skip], params, docs)
    newest = pd.Timestamp(utc_array(bars["timestamp"]).max(), tz="UTC").to_pydatetime() if len(bars) else None
    run_id = gx.RunIdentifier(run_name="bars", run_time=newest)  # no clock: the same bars give the same pages
    token = APPLY_RULES.set(applied)
    try:
        outcome = checkpoint.run(batch_parameters={"dataframe": bars}, run_id=run_id)
    finally:
        APPLY_RULES.reset(token)
    if errors:
        raise errors[0]
    if docs is not None:
        make_offline(docs)
    return Verdict(results[0], _outcomes(outcome))


def applied_rules(params: ValidateDataParams) -> list[str]:
    """The rules that are looked at."""
    return [rule for rule in RULES if params.severity.get(rule, "ignore") != "ignore"]


def _outcomes(outcome: Any) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    for run in outcome.run_results.values():
        for each in run.results:
            key = each.expectation_config.meta["key"]
            if each.exception_info.get("raised_exception", False):
                raise RuntimeError(f"expectation {key}: {each.exception_info['exception_message']}")
            severity = str(getattr(each.expectation_config.severity, "value", each.expectation_config.severity))
            found[key] = Outcome(bool(each.success), severity, int(each.result.get("unexpected_count", 0)))
    return found


def _checkpoint(gx: Any, rules: Sequence[str], params: ValidateDataParams, docs: Path | None) -> Any:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    suite = context.suites.add(_suite(gx, rules, params))
    batch = (
        context.data_sources.add_pandas("bars").add_dataframe_asset("bars").add_batch_definition_whole_dataframe("all")
    )
    definition = context.validation_definitions.add(gx.ValidationDefinition(name="bars", data=batch, suite=suite))
    actions = []
    if docs is not None:
        shutil.rmtree(docs, ignore_errors=True)
        context.update_data_docs_site(SITE, _site(docs))
        actions.append(gx.checkpoint.UpdateDataDocsAction(name="docs", site_names=[SITE]))
    return context.checkpoints.add(
        gx.Checkpoint(name="bars", validation_definitions=[definition], actions=actions, result_format="SUMMARY")
    )


def _suite(gx: Any, rules: Sequence[str], params: ValidateDataParams) -> Any:
    from marl_pipeline.data.quality.expectations import ExpectBarsToKeepRule

    suite = gx.ExpectationSuite(name="bars")
    known = gx.expectations
    for column, kind in TYPES.items():
        exists, of_type = {"key": f"exists:{column}"}, {"key": f"type:{column}"}
        suite.add_expectation(known.ExpectColumnToExist(column=column, severity="critical", meta=exists))
        suite.add_expectation(
            known.ExpectColumnValuesToBeOfType(column=column, type_=kind, severity="critical", meta=of_type)
        )
    for rule in rules:
        severity = params.severity[rule]
        notes = f"{RULES[rule].meaning} Severity: {severity}. {RULES[rule].remedy}"
        meta = {"key": f"rule:{rule}"}
        suite.add_expectation(ExpectBarsToKeepRule(rule=rule, severity=SEVERITIES[severity], notes=notes, meta=meta))
    return suite


def _site(docs: Path) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }


def make_offline(docs: Path) -> None:
    """Takes scripts, style sheets and images of other machines out of the pages; the index, whose rows a script would
    draw, becomes a list of links."""
    pages = sorted(page for page in docs.rglob("*.html") if page != docs / "index.html")
    for page in pages:
        text = REMOTE.sub("", page.read_text(encoding="utf-8"))
        page.write_text(text.replace("</head>", STYLE + "</head>", 1), encoding="utf-8")
    names = [page.relative_to(docs).as_posix() for page in pages]
    links = "".join(f'<li><a href="{html.escape(name)}">{html.escape(name)}</a></li>' for name in names)
    head = f'<meta charset="UTF-8"><title>Bars: data docs</title>{STYLE}'
    body = f"<h1>Bars: data docs</h1><ul>{links}</ul>"
    (docs / "index.html").write_text(f"<!DOCTYPE html><html><head>{head}</head><body>{body}</body></html>\n", "utf-8")
