"""Lines to cells: the separator, the header, what stands above and below the table. Every cell stays the text it is."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from marl_pipeline.data.dataset import BoolArray, IntArray
from marl_pipeline.data.schema import FIELDS, plain
from marl_pipeline.data.sources.text import QUOTE, Lines
from marl_pipeline.errors import UserError

SEPARATORS = (";", "\t", "|", ",")
"""In the order of preference where several cut all lines alike: commas also stand in numbers."""
BLANKS = "blanks"
PREAMBLE, FOOTER = 40, 20
"""At most so many lines above and below the table are left out."""
NUMBER = re.compile(r"[-+(\u2212]?[A-Z]{0,3}[$\u20ac\u00a3\u00a5]?[.,]?\d[\d.,'\u2019\s]*([eE][-+]?\d+)?\s?[%kKmMbB)]?")
MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
NAMED_DATE = rf"(?i:(?:[a-z]{{3,9}},? )?(?:{MONTH}[-/. ]*\d|\d{{1,2}}[-/. ]*{MONTH}|\d{{4}}[-/. ]{MONTH}))"
DATE = re.compile(rf"\d{{1,4}}[-/.]\d{{1,2}}[-/.]\d{{1,4}}.*|\d{{8}}([ T]\d{{2,6}}.*)?|{NAMED_DATE}.*")


@dataclass(frozen=True)
class Cells:
    """The cells of a text table.

    Attributes:
        origin: names the input in errors.
        header: the names of the columns; of each header line the cells, where there are two; empty without one.
        columns: [C] arrays of text.
        lines: [K] the line of the file each row stands in, from 1.
        separator: `,`, `;`, a tab, `|` or `blanks`.
        quoted: numbers stand between quotes.
        notes: what was left out, in words.
    """

    origin: str
    header: tuple[tuple[str, ...], ...]
    columns: list[Any]
    lines: IntArray
    separator: str
    quoted: bool = False
    notes: tuple[str, ...] = ()


def cells_of(lines: Lines, origin: str) -> Cells:
    """Cuts the lines of a text into cells.

    Raises:
        UserError: no separator cuts it, its rows are of different lengths, or there is a header only.
    """
    notes: list[str] = []
    content = ~lines.blank
    directive = _directive(lines)
    if directive:
        content[0] = False
    _skip_comments(lines, content, notes)
    separator, lines, counts = _separate(lines, content, directive, origin)
    rows = np.flatnonzero(content)
    width = int(np.bincount(counts[rows]).argmax())
    if width < 2 and not _single(lines, rows):
        shown = lines.text(int(rows[0])).strip()[:60]
        raise UserError(f"{origin}: not a table of rows: no separator cuts its lines alike (the first is {shown!r})")
    split = _splitter(separator)
    head = _header_lines(lines, rows, counts, width, split, origin)
    first = int(head[-1]) if len(head) else int(rows[0]) - 1
    above = rows[rows < (head[0] if len(head) else rows[0])]
    if len(above):
        notes.append(f"{_lines_named(above)} above the table left out ({lines.text(int(above[0])).strip()[:60]!r})")
    body = rows[rows > first]
    body = _without_footer(lines, body, counts, width, split, origin, notes)
    body = _without_repeats(lines, head, body, notes)
    if not len(body):
        raise UserError(f"{origin}: the file has no rows, only a header")
    header = tuple(tuple(split(lines.text(int(line)))) for line in head)
    columns = _parse(lines, body, separator, width, origin)
    header, columns = _without_empty_edge(header, columns)
    return _without_empty_rows(
        Cells(origin, header, columns, body + 1, separator, _quotes_numbers(lines), tuple(notes))
    )


def _single(lines: Lines, rows: IntArray) -> bool:
    """Whether the lines are a list: one cell each, without anything that could separate."""
    return all(not re.search(r"[;,|\t ]", lines.text(int(line)).strip()) for line in rows[:1000])


def is_number(cell: str) -> bool:
    """Whether a cell of a header's line looks like a number or a date, so that the line is a row."""
    return bool(NUMBER.fullmatch(cell.strip()) or DATE.fullmatch(cell.strip()))


def _directive(lines: Lines) -> str:
    match = re.fullmatch(r'"?sep=(.)"?', lines.text(0).strip(), re.IGNORECASE)
    return match[1] if match else "\t" if lines.text(0).lower() == "sep=\t" else ""


def _skip_comments(lines: Lines, content: BoolArray, notes: list[str]) -> None:
    """Lines that begin with # above and below the rows; a symbol may begin so too, in lines between others."""
    array = np.frombuffer(lines.data, dtype=np.uint8)
    rows = np.flatnonzero(content)
    marked = array[lines.starts[rows]] == ord("#")
    if not marked.any() or marked.mean() > 0.5:
        return
    lead = int(np.argmin(marked))
    tail = len(marked) - int(np.argmin(marked[::-1]))
    skipped = np.concatenate([rows[:lead], rows[tail:]])
    if len(skipped):
        content[skipped] = False
        notes.append(f"{_lines_named(skipped)} left out: a comment")


def _separate(lines: Lines, content: BoolArray, directive: str, origin: str) -> tuple[str, Lines, IntArray]:
    """The separator that cuts the lines alike, the lines (blanks made tabs, where they separate) and the number of
    fields in each."""
    rows = np.flatnonzero(content)
    found: dict[str, IntArray] = {}
    for separator in (directive,) if directive else SEPARATORS:
        counts = _fields(lines, separator)
        kept = counts[rows]
        width = int(np.bincount(kept).argmax())
        if width > 1 and (kept == width).mean() > 0.5:
            found[separator] = counts
    if found:
        whole = [name for name, counts in found.items() if _header_agrees(counts[rows])]
        best = (whole or sorted(found, key=lambda name: -_agreement(found[name][rows])))[0]
        return best, lines, found[best]
    if directive:
        raise UserError(
            f"{origin}: the first line says that '{directive}' separates, but it does not cut the lines alike"
        )
    spaced = _spaced(lines)
    return BLANKS, spaced, _fields(spaced, "\t")


def _header_agrees(counts: IntArray) -> bool:
    width = int(np.bincount(counts).argmax())
    return bool((counts == width).mean() > 0.9 and width in counts[:PREAMBLE])


def _agreement(counts: IntArray) -> float:
    width = int(np.bincount(counts).argmax())
    return float((counts == width).mean())


def _fields(lines: Lines, separator: str) -> IntArray:
    """[L] fields in each line; separators between quotes do not count."""
    array = np.frombuffer(lines.data, dtype=np.uint8)
    places = np.flatnonzero(array == ord(separator))
    quotes = np.flatnonzero(array == QUOTE)
    if len(quotes):
        places = places[np.searchsorted(quotes, places) % 2 == 0]
    return np.searchsorted(places, lines.ends) - np.searchsorted(places, lines.starts) + 1


def _spaced(lines: Lines) -> Lines:
    """The lines with each run of blanks between cells made one tab."""
    data = re.sub(rb"[ \t]+", b"\t", lines.data)
    data = re.sub(rb"(?m)^\t|\t$", b"", data)
    array = np.frombuffer(data, dtype=np.uint8)
    breaks = np.flatnonzero(array == ord("\n"))
    ends = breaks if lines.ended else np.append(breaks, len(data))
    starts = np.concatenate([[0], ends[:-1] + 1])
    return Lines(data, starts, ends, lines.encoding, lines.ended)


def _splitter(separator: str) -> Callable[[str], list[str]]:
    delimiter = "\t" if separator == BLANKS else separator

    def split(line: str) -> list[str]:
        row = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        return [cell.strip().lstrip("\ufeff").strip() for cell in row]

    return split


def _header_lines(
    lines: Lines, rows: IntArray, counts: IntArray, width: int, split: Callable[[str], list[str]], origin: str
) -> IntArray:
    """The one to three lines that name the columns; none where the first line of the table is a row."""
    place = int(np.argmax(counts[rows] == width))
    before = rows[place - 1] if place else None
    if before is not None:
        cells = split(lines.text(int(before)))
        named = len(cells) > 2 and not any(is_number(cell) for cell in cells)
        if named and len(cells) == width - 1 and not split(lines.text(int(rows[place])))[-1]:
            place -= 1  # rows end with a separator, the header does not
        elif named or place > PREAMBLE:
            line = int(rows[place]) + 1
            raise UserError(
                f"{origin}: line {line} has {width} fields, the header in line {int(before) + 1} has {len(cells)}; "
                "is the file cut off?"
            )
    first = split(lines.text(int(rows[place])))
    if _is_row(first):
        return np.array([], dtype=np.int64) if place == 0 else rows[:0]
    more = [split(lines.text(int(line))) for line in rows[place + 1 : place + 3]]
    count = 1
    fields = more and (_names_fields(first) or _names_fields(more[0]))
    if fields and re.fullmatch(r"[A-Za-z ]*", more[0][0]) and not any(is_number(cell) for cell in more[0]):
        count = 2 + (len(more) == 2 and bool(more[1][0]) and not any(more[1][1:]))
    return rows[place : place + count]


def _names_fields(cells: Sequence[str]) -> bool:
    """Whether every name but the first is a field of bars, as in one of the two header lines of yfinance."""
    return len(cells) > 1 and all(plain(cell) in FIELDS for cell in cells[1:])


def _is_row(cells: Sequence[str]) -> bool:
    """Whether a line holds values and no names; of one column a symbol (date,000001,600519) the first cell is none."""
    valued = [is_number(cell) for cell in cells]
    return valued[0] or (any(valued[1:]) and not re.search(r"date|time|day", cells[0], re.IGNORECASE))


def _without_footer(
    lines: Lines,
    body: IntArray,
    counts: IntArray,
    width: int,
    split: Callable[[str], list[str]],
    origin: str,
    notes: list[str],
) -> IntArray:
    """Rows of full width; sentences below the last of them are left out, any other line that differs is refused."""
    odd = np.flatnonzero(counts[body] != width)
    if not len(odd):
        return body
    full = np.flatnonzero(counts[body] == width)
    last = int(full[-1]) if len(full) else -1
    below = odd[odd > last]
    shape = _shape(split(lines.text(int(body[last])))[0]) if last >= 0 else ""
    cells = [(split(lines.text(int(body[place]))) or [""])[0] for place in below]
    sentences = len(below) <= FOOTER and all(_is_sentence(cell, shape) for cell in cells)
    refused = odd if not sentences else odd[odd < last]
    if len(refused):
        line = int(body[refused[0]])
        raise UserError(
            f"{origin}: line {line + 1} has {int(counts[line])} fields, the header has {width}; is the file cut off?"
        )
    notes.append(
        f"{_lines_named(body[below])} below the table left out ({lines.text(int(body[below[0]])).strip()[:60]!r})"
    )
    return body[: last + 1]


def _is_sentence(cell: str, shape: str) -> bool:
    """Whether the first cell of a short line begins a remark, and no row that was cut off."""
    if re.fullmatch(r"[-=*_]{3,}", cell):
        return True
    worded = re.match(r"[^\W\d_]|[(\[*#\u00a9]", cell) and re.search(r"\s|:", cell)
    return bool(worded) and not is_number(cell) and not shape.startswith(_shape(cell))


def _shape(cell: str) -> str:
    return re.sub(r"\d", "9", re.sub(r"[^\W\d_]", "A", cell))


def _without_repeats(lines: Lines, head: IntArray, body: IntArray, notes: list[str]) -> IntArray:
    """Rows that are not the header again, as in files that were put one after the other."""
    if not len(head) or not len(body):
        return body
    array = np.frombuffer(lines.data, dtype=np.uint8)
    repeated = np.zeros(len(body), dtype=bool)
    for line in head:
        start, length = lines.starts[line], lines.ends[line] - lines.starts[line]
        alike = (lines.ends[body] - lines.starts[body] == length) & (array[lines.starts[body]] == array[start])
        text = lines.text(int(line))
        for place in np.flatnonzero(alike):
            repeated[place] |= lines.text(int(body[place])) == text
    if repeated.any():
        notes.append(f"{_lines_named(body[repeated])} left out: the header again")
    return body[~repeated]


def _parse(lines: Lines, body: IntArray, separator: str, width: int, origin: str) -> list[Any]:
    """[C] columns of text, by pyarrow."""
    breaks = np.flatnonzero(np.diff(body) > 1)
    pieces = zip(np.concatenate([[0], breaks + 1]), np.append(breaks, len(body) - 1), strict=True)
    spans = [lines.data[lines.starts[body[first]] : lines.ends[body[last]]] for first, last in pieces]
    data = spans[0] if len(spans) == 1 else b"\n".join(spans)
    names = [str(place) for place in range(width)]
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(data),
            read_options=pa.csv.ReadOptions(column_names=names, block_size=max(1 << 20, min(len(data), 1 << 24))),
            parse_options=pa.csv.ParseOptions(delimiter="\t" if separator == BLANKS else separator),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"{origin}: not a table of rows ({' '.join(str(error).split())[:160]})") from None
    if table.num_rows != len(body):
        raise UserError(f"{origin}: not a table of rows ({table.num_rows} rows in {len(body)} lines)")
    return [column.combine_chunks() for column in table.columns]


def _quotes_numbers(lines: Lines) -> bool:
    return re.search(rb'"[-+$ ]?\d{1,3}[.,]\d', lines.data) is not None


def _without_empty_edge(
    header: tuple[tuple[str, ...], ...], columns: list[Any]
) -> tuple[tuple[tuple[str, ...], ...], list[Any]]:
    """Drops the last column where separators end the lines: it has no name and no value."""
    names = header[0] if header else ()
    last = columns[-1]
    empty = bool(pa.compute.all(pa.compute.equal(pa.compute.utf8_trim_whitespace(last), "")).as_py())
    if not header or (len(names) == len(columns) and names[-1]) or not empty:
        return header, columns
    return tuple(line[: len(columns) - 1] for line in header), columns[:-1]


def _without_empty_rows(cells: Cells) -> Cells:
    """Drops rows of separators only, as spreadsheets leave below their cells."""
    empty: Any = None
    for column in cells.columns[:2]:
        blank = pa.compute.equal(pa.compute.utf8_trim_whitespace(column), "")
        empty = blank if empty is None else pa.compute.and_(empty, blank)
    if not pa.compute.any(empty).as_py():
        return cells
    for column in cells.columns[2:]:
        empty = pa.compute.and_(empty, pa.compute.equal(pa.compute.utf8_trim_whitespace(column), ""))
    mask = np.asarray(empty.to_numpy(zero_copy_only=False), dtype=bool)
    if not mask.any():
        return cells
    if mask.all():
        raise UserError(f"{cells.origin}: the file has no rows, only a header")
    note = f"{_lines_named(cells.lines[mask] - 1)} left out: empty cells only"
    columns = [column.filter(pa.array(~mask)) for column in cells.columns]
    return Cells(
        cells.origin, cells.header, columns, cells.lines[~mask], cells.separator, cells.quoted, (*cells.notes, note)
    )


def _lines_named(lines: IntArray) -> str:
    shown = ", ".join(str(int(line) + 1) for line in lines[:3])
    return f"line{'s' if len(lines) > 1 else ''} {shown}{f' and {len(lines) - 3} more' if len(lines) > 3 else ''}"
