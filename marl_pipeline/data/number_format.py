"""Which mark is decimal and which groups thousands, decided once per file from all cells of all numeric columns; and
the numbers that cells then mean.

What a file leaves open is refused with both readings. Signs, brackets, currencies, percent and K, M, B are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from marl_pipeline.data.dataset import FloatArray
from marl_pipeline.errors import UserError

Cells = Any
"""A pyarrow array of strings, one for each row; null or a word of `NOTHING` where a row has no value."""

NOTHING = (
    "",
    "-",
    "--",
    "---",
    "\u2013",
    "\u2014",
    ".",
    "..",
    "na",
    "n/a",
    "n.a.",
    "nan",
    "null",
    "none",
    "nil",
    "<na>",
    "#n/a",
    "#n/a n/a",
    "#na",
    "#value!",
    "#ref!",
    "#div/0!",
    "#num!",
)
"""What stands for no value, compared in lower case without surrounding blanks."""

BLANKS = " \u00a0\u2007\u2009\u202f"
QUOTES = "'\u2019\u02bc`"
THOUSANDS: Mapping[str, str] = {",": ",", ".": r"\.", " ": f"[{BLANKS}]", "'": f"[{QUOTES}]"}
"""Marks that group thousands, with what matches each."""

MAGNITUDES = {"k": 3, "m": 6, "mn": 6, "b": 9, "bn": 9, "t": 12, "tn": 12, "\u4e07": 4, "\u4ebf": 8, "%": -2}
"""Powers of ten of what may follow a number."""

CODES = "USD|EUR|GBP|GBX|JPY|CHF|CAD|AUD|NZD|CNY|RMB|HKD|SGD|TWD|INR|KRW|SEK|NOK|DKK|PLN|BRL|MXN|ZAR|TRY|USDT|BTC|ETH"
CURRENCY = "[$\u20ac\u00a3\u00a5\u20b9\u20a9\u20bd\u20ba\u0e3f\u20bf]"
MINUS = "[-\u2212\u2012\u2013]"
AFFIXED = (
    rf"^(?P<bracket>\(?)\s*(?P<sign>(?:[+]|{MINUS})?)\s*"
    rf"(?P<before>(?:[A-Z]{{0,3}}{CURRENCY}|{CODES})?)\s*(?P<inner>(?:[+]|{MINUS})?)\s*"
    rf"(?P<core>[.,]?[0-9](?:[0-9.,{QUOTES}{BLANKS}]*[0-9.,])?)(?P<exponent>(?:[eE][+-]?[0-9]+)?)\s*"
    r"(?P<magnitude>(?:[kK]|[mM][nN]?|[bB][nN]?|[tT][nN]?|\x{4e07}|\x{4ebf})?)\s*"
    rf"(?P<after>(?:%|{CURRENCY}|{CODES})?)\s*(?P<trailing>{MINUS}?)\s*(?P<closed>\)?)$"
)
INFINITE = r"^(?i:[+-]?inf(inity)?)$"


@dataclass(frozen=True)
class NumberFormat:
    """How numbers are written.

    Attributes:
        decimal: `.` or `,`.
        thousands: `,`, `.`, `'`, a blank, or empty: not grouped.
    """

    decimal: str = "."
    thousands: str = ""

    @property
    def written(self) -> str:
        """One thousand two hundred thirty-four and 56 hundredths, as `data.number_format` takes it."""
        return f"1{self.thousands}234{self.decimal}56"

    @property
    def core(self) -> str:
        """The pattern of an unsigned number without affixes."""
        fraction = rf"(?:{re.escape(self.decimal)}[0-9]*)?"
        grouped = ""
        if self.thousands:
            mark = THOUSANDS[self.thousands]
            indian = rf"|[1-9][0-9]?(?:{mark}[0-9]{{2}})+{mark}[0-9]{{3}}"
            grouped = rf"|(?:[1-9][0-9]{{0,2}}(?:{mark}[0-9]{{3}})+{indian}){fraction}"
        return rf"^(?:[0-9]+{fraction}|{re.escape(self.decimal)}[0-9]+{grouped})$"

    @property
    def grouped(self) -> str:
        """The pattern of a number in which thousands are grouped."""
        return rf"^[0-9]+{THOUSANDS[self.thousands]}[0-9]" if self.thousands else "^$x"


PLAIN = NumberFormat()
FORMATS = tuple(
    NumberFormat(decimal, thousands)
    for thousands in ("", ",", ".", "'", " ")
    for decimal in ".,"
    if decimal != thousands
)


def number_format(written: str) -> NumberFormat:
    """The format that `data.number_format` names by writing 1234.56 in it.

    Raises:
        UserError: it is not written so.
    """
    match = re.fullmatch(rf"1([,.{QUOTES}{BLANKS}]?)234([.,])56", written)
    if match and match[1] != match[2]:
        mark = "'" if match[1] and match[1] in QUOTES else " " if match[1] and match[1] in BLANKS else match[1]
        return NumberFormat(match[2], mark)
    known = ", ".join(f"'{item.written}'" for item in FORMATS)
    raise UserError(f"data.number_format: '{written}' is none of {known}")


@dataclass(frozen=True)
class Circumstances:
    """What else a file says of the place it was written in.

    Attributes:
        separator: between its cells.
        quoted: numbers stand between quotes.
        dotted_dates: days come first and dots stand between (31.01.2024).
        fixed: the format of a known layout.
    """

    separator: str = ""
    quoted: bool = False
    dotted_dates: bool = False
    fixed: NumberFormat | None = None

    @property
    def by_program(self) -> bool:
        """Whether commas separate and numbers stand bare: whoever groups by dots writes semicolons, tabs or quotes."""
        return self.separator == "," and not self.quoted


def infer_format(columns: Mapping[str, Cells], origin: str, around: Circumstances) -> NumberFormat:
    """The one format in which every cell of `columns` is a number.

    A comma or dot that three digits follow in every cell may group thousands or be decimal. A dot is decimal then in
    what programs write (`Circumstances.by_program`). A comma is decimal if semicolons separate or dates are dotted,
    and numbers of four and more digits without a mark show that nothing is grouped.

    Raises:
        UserError: two formats are left that read a cell differently; both readings are shown.
    """
    if around.fixed is not None:
        return around.fixed
    if _plainly_decimal(columns.values(), around):
        return PLAIN
    cores = {name: _cores(cells) for name, cells in columns.items()}
    cores = {name: core for name, core in cores.items() if len(core)}
    fitting = [item for item in FORMATS if all(_fits(core, item) for core in cores.values())]
    if not fitting:
        return _most_fitting(cores.values())
    marks = [mark for mark in ".,'" if any(_any(core, rf"\{mark}") for core in cores.values())]
    blanks = any(_any(core, f"[{BLANKS}]") for core in cores.values())
    roles = {_roles(item, marks, blanks): item for item in reversed(fitting)}
    if len(roles) == 1:
        return next(iter(roles.values()))
    return _between(list(roles.values()), cores, origin, around)


def parse_numbers(cells: Cells, written: NumberFormat) -> tuple[FloatArray, int | None]:
    """[K] float64, NaN where a cell holds nothing, and the first row whose cell is no number in that format, if any.

    A currency must stand at every number of a column or at none, and so must a percent sign: else the first cell that
    differs is the bad one. 5.33% is 0.0533.
    """
    kept = _kept(cells)
    if written.decimal == ".":
        try:
            return _floats(pc.cast(kept, pa.float64())), None
        except pa.ArrowInvalid:
            pass
    fields = pc.extract_regex(kept, AFFIXED)
    text = _plain_text(fields, written)
    endless = pc.match_substring_regex(kept, INFINITE, ignore_case=True)
    text = pc.if_else(pc.fill_null(endless, False), kept, text)
    bad = pc.and_(pc.is_valid(kept), pc.is_null(text))
    bad = pc.or_(bad, _differs(fields))
    first = pc.index(bad, True).as_py()
    if first >= 0:
        return np.full(len(kept), np.nan), int(first)
    return _floats(pc.cast(text, pa.float64())), None


def is_numeric(cells: Cells) -> bool:
    """Whether some cell holds something and all that do look like numbers in one format or another."""
    kept = pc.drop_null(_kept(cells))
    if not len(kept) or not pc.match_substring_regex(kept.slice(0, 1), f"{AFFIXED}|{INFINITE}")[0].as_py():
        return False
    try:
        pc.cast(kept, pa.float64())
        return True
    except pa.ArrowInvalid:
        return bool(pc.all(pc.match_substring_regex(kept, AFFIXED)).as_py())


def stripped(cells: Cells) -> Cells:
    """Cells without surrounding blanks; nulls stay."""
    return pc.utf8_trim(cells, f"{BLANKS}\t")


def _kept(cells: Cells) -> Cells:
    """Stripped cells, null where they hold nothing."""
    array = cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells
    text = stripped(array.cast(pa.string()) if not pa.types.is_string(array.type) else array)
    short = pc.less_equal(pc.utf8_length(text), max(map(len, NOTHING)))
    empty = pc.is_in(pc.utf8_lower(text), value_set=pa.array(NOTHING))
    return pc.if_else(pc.and_(short, empty), pa.scalar(None, pa.string()), text)


def _floats(values: Cells) -> FloatArray:
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)


def _cores(cells: Cells) -> Cells:
    """The unsigned digits and marks of the cells that look like numbers, without affixes; each once."""
    kept = pc.drop_null(_kept(cells))
    fields = pc.extract_regex(kept, AFFIXED)
    return pc.unique(pc.drop_null(pc.struct_field(fields, "core")))


def _plainly_decimal(columns: Iterable[Cells], around: Circumstances) -> bool:
    """The quick way for what programs write: digits and decimal dots, and nothing shows grouping dots."""
    doubtful = bool(around.separator) and not around.by_program
    decided = not doubtful
    dots = False
    for cells in columns:
        kept = _kept(cells)
        try:
            pc.cast(kept, pa.float64())
        except pa.ArrowInvalid:
            return False
        if doubtful:
            dotted = pc.drop_null(kept.filter(pc.fill_null(pc.match_substring(kept, "."), False)))
            dots = dots or len(dotted) > 0
            decided = decided or not _all(dotted, r"^[+-]?[1-9][0-9]{0,2}(?:\.[0-9]{3})+$")
    return decided or not dots


def _fits(cores: Cells, written: NumberFormat) -> bool:
    return _all(cores, written.core)


def _all(cores: Cells, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(cores, pattern)).as_py()) if len(cores) else True


def _any(cores: Cells, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(cores, pattern)).as_py())


def _roles(written: NumberFormat, marks: Iterable[str], blanks: bool) -> tuple[str, ...]:
    """What each mark that stands in the file means in this format."""
    meant = {written.decimal: "decimal", written.thousands: "thousands"}
    return tuple(meant.get(mark, "") for mark in (*marks, *([" "] if blanks else [])))


def _most_fitting(cores: Iterable[Cells]) -> NumberFormat:
    """No format fits all: the one that fits most, so that the cell that does not is named."""

    def fitting(item: NumberFormat) -> int:
        return sum(int(pc.sum(pc.match_substring_regex(core, item.core)).as_py() or 0) for core in all_cores)

    all_cores = list(cores)
    return max(FORMATS, key=fitting)


def _between(left: list[NumberFormat], cores: Mapping[str, Cells], origin: str, around: Circumstances) -> NumberFormat:
    """Chooses between formats that all cells fit, by what else the file shows; refuses what stays open."""
    consistent = [item for item in left if not any(_mixes(core, item) for core in cores.values())] or left
    if len(consistent) == 1:
        return consistent[0]
    ungrouped = any(_any(core, r"^[0-9]{4,}(?:[.,]|$)") for core in cores.values())
    continental = around.separator == ";" or around.dotted_dates
    decimals = {item.decimal for item in consistent if not _groups(item, cores)}
    if decimals == {"."} and (around.by_program or not around.separator):
        return PLAIN
    if decimals == {","} and continental and ungrouped and around.separator != ",":
        return NumberFormat(",")
    cell, one, other = _example(consistent, cores)
    raise UserError(
        f"{origin}: '{cell}' may be {one[1]:,.10g} or {other[1]:,.10g} and no other number of the file decides it; set "
        f"data.number_format to '{one[0].written}' or '{other[0].written}'".replace(",.", ".")
    )


def _groups(written: NumberFormat, cores: Mapping[str, Cells]) -> bool:
    return any(_any(core, written.grouped) for core in cores.values())


def _mixes(cores: Cells, written: NumberFormat) -> bool:
    """Whether the column would hold grouped numbers beside ungrouped ones of four digits and more."""
    return _any(cores, written.grouped) and _any(cores, r"^[0-9]{4,}(?:[.,]|$)")


def _example(
    left: list[NumberFormat], cores: Mapping[str, Cells]
) -> tuple[str, tuple[NumberFormat, float], tuple[NumberFormat, float]]:
    """A cell that two of the formats read differently, and how."""
    first = left[0]
    for other in left[1:]:
        for core in cores.values():
            for cell in core.to_pylist():
                values = [_value(cell, item) for item in (first, other)]
                if values[0] != values[1]:
                    return cell, (first, values[0]), (other, values[1])
    raise AssertionError("formats of different roles read every cell alike")


@lru_cache(maxsize=1024)
def _value(core: str, written: NumberFormat) -> float:
    plain = re.sub(THOUSANDS[written.thousands], "", core) if written.thousands else core
    return float(plain.replace(written.decimal, "."))


def _plain_text(fields: Cells, written: NumberFormat) -> Cells:
    """The numbers as a program writes them, null where a cell does not follow the format."""
    part = {name: pc.struct_field(fields, name) for name in _names(fields)}
    core = part["core"]
    follows = pc.match_substring_regex(core, written.core)
    if written.thousands:
        core = pc.replace_substring_regex(core, THOUSANDS[written.thousands], "")
    if written.decimal != ".":
        core = pc.replace_substring(core, written.decimal, ".")
    negative = [pc.match_substring_regex(part[name], MINUS) for name in ("sign", "inner", "trailing")]
    bracket = pc.equal(part["bracket"], "(")
    signs = [pc.cast(pc.not_equal(part[name], ""), pa.int8()) for name in ("sign", "inner", "trailing", "bracket")]
    single = pc.less_equal(pc.add(pc.add(signs[0], signs[1]), pc.add(signs[2], signs[3])), 1)
    closed = pc.equal(bracket, pc.equal(part["closed"], ")"))
    power, known = _powers(part)
    minus = pc.or_(pc.or_(negative[0], negative[1]), pc.or_(negative[2], bracket))
    text = pc.binary_join_element_wise(pc.if_else(minus, "-", ""), core, power, "")
    ok = pc.and_(pc.and_(follows, single), pc.and_(closed, known))
    return pc.if_else(pc.fill_null(ok, False), text, pa.scalar(None, pa.string()))


def _names(fields: Cells) -> list[str]:
    return [fields.type.field(index).name for index in range(fields.type.num_fields)]


def _powers(part: Mapping[str, Cells]) -> tuple[Cells, Cells]:
    """The exponent of each number as text, and whether its magnitude, percent sign and exponent go together."""
    affix = pc.binary_join_element_wise(
        pc.utf8_lower(part["magnitude"]), pc.if_else(pc.equal(part["after"], "%"), "%", ""), ""
    )
    shown = pc.not_equal(affix, "")
    power = part["exponent"]
    for name, exponent in MAGNITUDES.items():
        power = pc.if_else(pc.equal(affix, name), f"e{exponent}", power)
    known = pc.or_(pc.invert(shown), pc.is_in(affix, value_set=pa.array(list(MAGNITUDES))))
    return power, pc.and_(known, pc.or_(pc.invert(shown), pc.equal(part["exponent"], "")))


def _differs(fields: Cells) -> Cells:
    """[K] cells whose currency or percent sign is not that of the first number; a plain zero may lack it."""
    affixes = pc.binary_join_element_wise(
        pc.struct_field(fields, "before"), pc.replace_substring(pc.struct_field(fields, "after"), " ", ""), "|"
    )
    given = pc.drop_null(affixes)
    if len(given) == 0 or len(pc.unique(given)) == 1:
        return pa.array(np.zeros(len(affixes), dtype=bool))
    core = pc.struct_field(fields, "core")
    zero = pc.and_(pc.match_substring_regex(core, "^0+([.,]0*)?$"), pc.equal(affixes, "|"))
    counted = pc.if_else(zero, pa.scalar(None, pa.string()), affixes)
    left = pc.drop_null(counted)
    if len(left) == 0:
        return pa.array(np.zeros(len(affixes), dtype=bool))
    return pc.fill_null(pc.not_equal(counted, left[0]), False)
