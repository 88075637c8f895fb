"""Stage `validate_data`: finds what is wrong with the ingested bars, writes the report and what is to be hidden.

`check_source` does the same for any source of bars (`marl data check FILE`), without the pipeline.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marl_pipeline.config import Params
from marl_pipeline.data.intake import OWN_FILES, take_in
from marl_pipeline.data.quality import check
from marl_pipeline.data.quality.report import build_report
from marl_pipeline.data.quality.verdict import rules_not_applied
from marl_pipeline.errors import UserError
from marl_pipeline.pipeline.harness import StageContext, main
from marl_pipeline.reporting.inputs import span_in_words
from marl_pipeline.store import bars as store

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

DATA_DOCS = Path("reports/data_docs")


def run(context: StageContext) -> None:
    from marl_pipeline.data.quality.suite import run_checkpoint

    params, root = context.params, context.root
    frequency = params.data.frequency
    bars = store.load_bars(root / "data/historical", frequency)
    market: dict[str, Any] = {
        "calendar": params.data.calendar,
        "frequency": frequency,
        "adjustment": params.data.adjustment,
    }
    actions = store.load_companions(root / "data/companions").corporate_actions
    apply_rules = partial(check, params=params.validate_data, corporate_actions=actions, **market)
    skip = rules_not_applied(bars, frequency)
    verdict = run_checkpoint(bars, apply_rules, params.validate_data, root / DATA_DOCS, skip=skip)
    context.log_metrics({f"hits/{rule}": float(hits) for rule, hits in verdict.counts.items() if hits})
    verdict.raise_fatal("data/historical")
    result = verdict.result
    report = build_report(result, params.validate_data, counts=verdict.counts, **market)
    context.log_metrics({"hidden_share": report["totals"]["hidden_share"]})
    with context.output("data/validation_report.json") as path:
        path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with context.output("data/quarantine.parquet") as path:
        store.save_table(path, result.quarantine)


@dataclass(frozen=True)
class FileCheck:
    """What a check of one source found.

    Attributes:
        file: what was read.
        report: as in data/validation_report.json.
        failed: the line that would have stopped the stage, if any.
        notes: what has to be said of the universe and the companions.
        companions: of each its rows, symbols and span.
        profile: the text of a profile that reads this source.
    """

    file: str
    report: dict[str, Any]
    failed: str | None
    notes: Sequence[str]
    companions: Mapping[str, Any]
    profile: str

    def as_json(self) -> dict[str, Any]:
        beside = {"notes": list(self.notes), "companions": dict(self.companions), "profile": self.profile}
        return {"file": self.file, "failed": self.failed, **self.report, **beside}

    def table(self) -> RenderableType:
        """The findings as a table for a terminal, then what was said of the companions."""
        from rich.console import Group
        from rich.text import Text

        lines = [Text(f"{name}: {span_in_words(entry)}") for name, entry in self.companions.items()]
        return Group(report_table(self.report, self.file), *lines, *(Text(f"Note: {note}") for note in self.notes))


def check_source(params: Params, profile: Callable[[Params], str]) -> FileCheck:
    """Checks what `data` of the parameters names, one symbol being enough; writes nothing.

    The bars and companions are read as the stage ingest reads them, and refused where it refuses them.

    Args:
        params: of the run.
        profile: gives the text of a profile with some parameters; the result has that of `params` with what the files
            of bars decided themselves.

    Raises:
        UserError: the bars or a companion cannot be read.
    """
    data = params.data
    taken = take_in(data, least=1)
    market: dict[str, Any] = {"calendar": data.calendar, "frequency": data.frequency, "adjustment": data.adjustment}
    result = check(
        taken.bars, params=params.validate_data, corporate_actions=taken.companions.corporate_actions, **market
    )
    name = data.path if data.source in OWN_FILES else data.source
    failed = None
    try:
        result.raise_fatal(name)
    except UserError as error:
        failed = str(error)
    report = build_report(result, params.validate_data, **market)
    notes = list(taken.info["notes"])
    if len(taken.info["symbols"]) == 1:
        notes.append(f"one symbol only ({next(iter(taken.info['symbols']))}): `marl run` needs two or more")
    read = params.model_copy(update={"data": data.model_copy(update=dict(taken.decided))})
    return FileCheck(name, report, failed, notes, taken.info["companions"], profile(read))


def report_table(report: dict[str, Any], title: str) -> RenderableType:
    """Rule, hits, symbols, first and severity of every rule with findings; below, each in words and what to do."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    found = [entry for entry in report["rules"] if entry["count"]]
    table = Table(title=title, title_justify="left")
    for column in ("rule", "bars", "symbols", "first", "severity"):
        table.add_column(column, justify="right" if column == "bars" else "left")
    for entry in found:
        most = sorted(entry["symbols"].items(), key=lambda item: (-item[1], item[0]))
        names = ", ".join(name for name, _ in most[:3]) + (f" and {len(most) - 3} more" if len(most) > 3 else "")
        first = entry["first"].removesuffix(":00Z").replace("T", " ")
        cells = (entry["rule"], f"{entry['count']:,}", names, first, entry["severity"])
        table.add_row(*(Text(cell) for cell in cells))
    lines = [_in_words(entry) for entry in found]
    totals = report["totals"]
    clean = [entry["rule"] for entry in report["rules"] if not entry["count"] and entry["applied"]]
    lines += [
        Text(
            f"{totals['bars']:,} bars of {totals['symbols']} symbols, {totals['first'][:10]} to {totals['last'][:10]}, "
            f"{report['frequency']} on {report['calendar']}. {report['summary'][-1]}"
        ),
        Text(f"No hits: {', '.join(clean) or 'none'}."),
    ]
    lines += [
        Text(f"Not applied: {entry['rule']}: {entry['why_not']}.") for entry in report["rules"] if "why_not" in entry
    ]
    lines += [Text(f"Note: {note}") for note in report["notes"]]
    return Group(*([table] if found else []), *lines)


def _in_words(entry: dict[str, Any]) -> Text:
    from rich.text import Text

    example = entry["examples"][0]
    words = f"{entry['meaning']} First: {example['symbol']}, {example['detail']}. {entry['remedy']}\n"
    return Text.assemble((entry["rule"], "bold"), f" ({entry['effect']}): {words}")


if __name__ == "__main__":
    main(run)
