"""Bytes to lines: encoding, line ends, blank and comment lines, and which lines are above and below the table."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

import numpy as np

from marl_pipeline.data.dataset import BoolArray, IntArray
from marl_pipeline.data.sources.containers import Member, refuse_content
from marl_pipeline.errors import UserError

BOMS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WINDOWS_MARKS = re.compile(rb"[\x80-\xff]")
KNOWN_WINDOWS = frozenset(b"\xa0\x80\xa3\xa5\x92\x96")
"""Bytes of cp1252 that numbers bear: a hard blank, currencies, an apostrophe, a minus."""

QUOTE, NEWLINE = ord('"'), ord("\n")


@dataclass(frozen=True)
class Lines:
    """A text cut into lines.

    Attributes:
        data: the whole text as UTF-8 bytes, lines ended by a line feed.
        starts: [L] where each line begins.
        ends: [L] where it ends, without the line feed.
        encoding: how the bytes were read.
        ended: whether the last line was ended.
    """

    data: bytes
    starts: IntArray
    ends: IntArray
    encoding: str
    ended: bool

    def text(self, line: int) -> str:
        """Line `line`, counted from 0."""
        return self.data[self.starts[line] : self.ends[line]].decode()

    @property
    def blank(self) -> BoolArray:
        """[L] lines of nothing but blanks."""
        lengths = self.ends - self.starts
        empty: BoolArray = lengths == 0
        short = np.flatnonzero((lengths > 0) & (lengths < 40))
        for line in short[self._starts_blank(short)]:
            empty[line] = not self.text(int(line)).strip()
        return empty

    def _starts_blank(self, lines: IntArray) -> BoolArray:
        array = np.frombuffer(self.data, dtype=np.uint8)
        first = array[self.starts[lines]]
        return (first <= 32) | (first > 127)


def lines_of(member: Member) -> Lines:
    """The lines of a text file.

    Raises:
        UserError: it is empty, no text, or something else than a table of text.
    """
    refuse_content(member)
    data, encoding = _utf8(member)
    data = data.rstrip(b"\x1a")
    if b"\x00" in data:
        raise UserError(f"{member.origin}: not a text file (it holds zero bytes)")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not data.strip():
        raise UserError(f"{member.origin}: the file is empty")
    ended = data.endswith(b"\n")
    array = np.frombuffer(data, dtype=np.uint8)
    breaks = np.flatnonzero(array == NEWLINE)
    ends = breaks if ended else np.append(breaks, len(data))
    starts = np.concatenate([[0], ends[:-1] + 1])
    _refuse_open_quotes(member, array, starts, ends)
    return Lines(data, starts, ends, encoding, ended)


def _utf8(member: Member) -> tuple[bytes, str]:
    """The text in UTF-8 without a byte order mark, and the encoding it came in."""
    data = member.data
    for mark, encoding in BOMS:
        if data.startswith(mark):
            return _decoded(member, encoding).encode(), encoding.removesuffix("-sig")
    head = data[:400]
    if len(head) >= 8 and head.count(b"\x00") >= len(head) // 3:
        little = head[1::2].count(b"\x00") > head[0::2].count(b"\x00")
        encoding = "utf-16-le" if little else "utf-16-be"
        return _decoded(member, encoding).encode(), encoding
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if set(b"".join(WINDOWS_MARKS.findall(data))) <= KNOWN_WINDOWS:
            return data.decode("cp1252").encode(), "cp1252"
        raise UserError(f"{member.origin}: not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from None
    return data, "utf-8"


def _decoded(member: Member, encoding: str) -> str:
    try:
        return member.data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{member.origin}: not whole {encoding.upper()} text (byte {error.start}); save it as CSV in UTF-8"
        ) from None


def _refuse_open_quotes(member: Member, array: np.ndarray, starts: IntArray, ends: IntArray) -> None:
    """A quote that its line does not close would swallow the lines up to the next quote."""
    quotes = np.flatnonzero(array == QUOTE)
    if not len(quotes):
        return
    count = np.searchsorted(quotes, ends) - np.searchsorted(quotes, starts)
    odd = np.flatnonzero(count % 2)
    if len(odd):
        raise UserError(
            f"{member.origin}: line {int(odd[0]) + 1} opens a quote and does not close it; double it or remove it"
        )
