"""Files of bars as people and vendors write them, drawn at random from a known table.

A file is a table in one number style, date style, separator, layout and with at most one accident. Its truth is the
canonical bars that it holds; reading it must give exactly these, or refuse.
"""

from __future__ import annotations

import bz2
import gzip
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

SYMBOLS = ("AAA", "BRK.B", "000001", "TRUE", "NA", "NaN", "1E5", "ES=F", "BTC/USDT", "-", "null", "^GSPC", "F", "VOD.L")
FILE_SYMBOLS = ("AAA", "BRK.B", "000001", "TRUE", "NA", "1E5", "ES=F", "^GSPC", "VOD.L", "EURUSD")
NUMBER_STYLES = (
    "plain",
    "plain",
    "plain",
    "1,234.56",
    "1.234,56",
    "1234,56",
    "1 234,56",
    "1'234.56",
    "1234.56",
    "1\u00a0234,56",
)
SEPARATORS = (",", ",", ";", "\t", "|", "blanks")
ACCIDENTS: tuple[str, ...] = (
    *("none",) * 8,
    *("bom", "crlf", "cr", "utf16", "utf16-bare", "trailing", "footer", "preamble", "comment", "repeated header"),
    *("blank lines", "empty rows", "cut", "bad cell", "open quote", "missing cell", "gz", "bz2", "zip", "quoted"),
    *(
        "padded",
        "nothing words",
        "no newline",
        "sep line",
        "two orders",
        "two decimals",
        "dropped field",
        "extra column",
    ),
    *("shuffled columns", "newest first", "upper header", "mac zip"),
)
DESTROYED = frozenset({"cut", "bad cell", "open quote", "two orders", "two decimals", "dropped field"})
"""Accidents after which a file may only be refused (or read whole, where they happened to change nothing)."""


@dataclass(frozen=True)
class Written:
    """A file and what it means.

    Attributes:
        name: of the file.
        data: its bytes.
        truth: canonical bars, by symbol and moment.
        style: what it was drawn as, for a report.
        params: parameters of section `data` that its user would give.
    """

    name: str
    data: bytes
    truth: pd.DataFrame
    style: dict[str, str]
    params: dict[str, Any] = field(default_factory=dict)


def draw(seed: int, index: int) -> Written:
    """File `index` of the run `seed`: the same arguments give the same bytes."""
    return _Writer(np.random.default_rng([seed, index])).file()


class _Writer:
    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def pick(self, choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def file(self) -> Written:
        self.layout = self.pick(
            ("long", "long", "long", "named", "named", "wide", "yfinance", "metatrader", "histdata", "mt4", "klines")
        )
        self.hourly = self.layout not in ("wide",) and self.chance(0.4)
        if self.layout in ("histdata", "mt4", "klines"):
            self.hourly = True
        self.separator = {"yfinance": ",", "metatrader": "\t", "histdata": ";", "mt4": ",", "klines": ","}.get(
            self.layout
        ) or self.pick(SEPARATORS)
        self.numbers = (
            "plain"
            if self.layout in ("yfinance", "metatrader", "histdata", "mt4", "klines")
            else self.pick(NUMBER_STYLES)
        )
        if self.separator == "blanks" and (" " in self.numbers or "\u00a0" in self.numbers):
            self.numbers = "1234,56"
        self.accident = self.pick(ACCIDENTS)
        self.dates = self.date_style()
        self.decimals = int(self.pick((0, 1, 2, 2, 2, 3, 3, 4, 5)))
        self.fixed = self.chance(0.6)
        self.affix = self.pick(("", "", "", "", "", "$", "K")) if self.layout in ("long", "named") else ""
        if self.separator == "blanks":
            self.affix = ""
        table = self.table()
        rows, header = self.cells(table)
        data, name = self.text(rows, header, table)
        style = {"layout": self.layout, "numbers": self.numbers, "dates": self.dates, "separator": self.separator}
        style |= {
            "accident": self.accident,
            "decimals": f"{self.decimals}{'f' if self.fixed else ''}",
            "affix": self.affix,
        }
        style["frequency"] = "1Hour" if self.hourly else "1Day"
        params = {"frequency": style["frequency"], "timezone": "UTC", "calendar": "24/7", "source": "csv"}
        return Written(name, data, self.truth(table), style, params)

    # the table ----------------------------------------------------------------------------------------------------

    def table(self) -> pd.DataFrame:
        count = int(self.rng.integers(3, 30))
        symbols = list(dict.fromkeys(self.pick(SYMBOLS) for _ in range(int(self.rng.integers(1, 4)))))
        if self.layout in ("named", "metatrader", "histdata", "mt4", "klines"):
            symbols = [self.pick(FILE_SYMBOLS)]
        if self.layout in ("wide", "yfinance"):
            symbols = list(dict.fromkeys([*symbols, "AAA", "BRK.B"]))
            symbols = [name for name in symbols if name not in ("-", "null", "NaN", "BTC/USDT")]
        first = np.datetime64("1996-01-01") + int(self.rng.integers(0, 11_500))
        if self.hourly:
            steps = np.cumsum(self.rng.integers(1, 4, count)).astype("timedelta64[h]")
            moments = first.astype("datetime64[us]") + np.timedelta64(int(self.rng.integers(0, 24)), "h") + steps
        else:
            moments = (first + np.cumsum(self.rng.integers(1, int(self.pick((2, 4, 40))), count))).astype(
                "datetime64[us]"
            )
        scale = Decimal(self.pick(("0.01", "1", "1", "40", "250", "4600", "130000")))
        rows = []
        for symbol in symbols:
            for moment in moments:
                close = self.amount(scale)
                spread = [self.amount(scale / 50) for _ in range(3)]
                volume = self.volume()
                rows.append(
                    [
                        symbol,
                        moment,
                        close + spread[0],
                        close + spread[0] + spread[1],
                        close - min(spread[2], close / 2),
                        close,
                        volume,
                    ]
                )
        frame = pd.DataFrame(rows, columns=["symbol", "moment", "open", "high", "low", "close", "volume"])
        for name in ("open", "high", "low", "close"):
            frame[name] = [value.quantize(Decimal(1).scaleb(-self.decimals)) for value in frame[name]]
        lacking = self.accident == "nothing words" and self.layout not in ("wide", "yfinance")
        self.missing = frame.index[self.rng.random(len(frame)) < (0.1 if lacking else 0.0)]
        return frame

    def amount(self, scale: Decimal) -> Decimal:
        return (
            scale * Decimal(int(self.rng.integers(500, 1500))) / 1000
            + Decimal(int(self.rng.integers(0, 10**6))) / 10**6
        )

    def volume(self) -> Decimal:
        if self.affix == "K":
            return Decimal(int(self.rng.integers(1, 900))) * 10
        return Decimal(int(self.rng.integers(0, 10 ** int(self.pick((3, 6, 8))))))

    def truth(self, table: pd.DataFrame) -> pd.DataFrame:
        moments = pd.DatetimeIndex(table["moment"]).as_unit("us").tz_localize("UTC")
        columns: dict[str, Any] = {"symbol": table["symbol"].astype("str"), "timestamp": moments}
        for name in ("open", "high", "low", "close", "volume"):
            columns[name] = [float(value) for value in table[name]]
        frame = pd.DataFrame(columns)
        frame.loc[self.missing, "volume"] = np.nan
        if self.layout == "wide":
            frame[["open", "high", "low", "volume"]] = np.nan
        return frame.sort_values(["symbol", "timestamp"], kind="stable").reset_index(drop=True)

    # the cells ----------------------------------------------------------------------------------------------------

    def date_style(self) -> str:
        fixed = {"metatrader": "mt5", "histdata": "histdata", "mt4": "mt4", "klines": "ms", "yfinance": "iso"}
        if self.layout in fixed:
            return fixed[self.layout]
        choices = [
            "iso",
            "iso",
            "iso z",
            "offset",
            "dmy.",
            "dmy/",
            "mdy/",
            "dmy-",
            "compact",
            "s",
            "ms",
            "us",
            "ns",
            "named",
            "named us",
        ]
        choices += ["two columns", "dmy2", "mdy2", "ymd/", "gmt", "fraction"]
        if self.hourly:
            choices += ["ampm", "packed"]
        if self.separator == "blanks":
            choices = ["iso t", "iso z", "compact", "s", "ms"]
        return str(self.pick(choices))

    def when(self, moment: np.datetime64) -> list[str]:
        stamp = pd.Timestamp(moment)
        clock = f" {stamp:%H:%M}" if self.hourly else ""
        match self.dates:
            case "iso":
                return [f"{stamp:%Y-%m-%d}{f' {stamp:%H:%M:%S}' if self.hourly else ''}"]
            case "iso t":
                return [f"{stamp:%Y-%m-%dT%H:%M:%S}"]
            case "iso z":
                return [f"{stamp:%Y-%m-%dT%H:%M:%SZ}"]
            case "fraction":
                return [f"{stamp:%Y-%m-%d %H:%M:%S}.000"]
            case "offset":
                hours = 5 if self.hourly else 0
                return [f"{stamp - pd.Timedelta(hours=hours):%Y-%m-%d %H:%M:%S}-0{hours}:00"]
            case "gmt":
                hours = 1 if self.hourly else 0
                return [f"{stamp + pd.Timedelta(hours=hours):%d.%m.%Y %H:%M:%S}.000 GMT+0{hours}00"]
            case "dmy." | "dmy/" | "dmy-":
                mark = self.dates[-1]
                return [f"{stamp:%d{mark}%m{mark}%Y}{clock}"]
            case "mdy/":
                return [f"{stamp:%m/%d/%Y}{clock}"]
            case "ymd/":
                return [f"{stamp:%Y/%m/%d}{clock}"]
            case "dmy2":
                return [f"{stamp:%d/%m/%y}{clock}"]
            case "mdy2":
                return [f"{stamp.month}/{stamp.day}/{stamp:%y}{clock}"]
            case "ampm":
                return [f"{stamp:%m/%d/%Y %I:%M %p}"]
            case "packed":
                return [f"{stamp:%Y%m%d%H%M}"]
            case "compact":
                return [f"{stamp:%Y%m%d}"] if not self.hourly else [f"{stamp:%Y%m%d%H%M%S}"]
            case "named":
                return [f"{stamp:%d-%b-%Y}{clock}"]
            case "named us":
                return [f"{stamp:%b %d, %Y}{clock}"]
            case "two columns":
                return [f"{stamp:%Y-%m-%d}", f"{stamp:%H:%M:%S}"]
            case "mt5":
                return [f"{stamp:%Y.%m.%d}", f"{stamp:%H:%M:%S}"]
            case "mt4":
                return [f"{stamp:%Y.%m.%d}", f"{stamp:%H:%M}"]
            case "histdata":
                return [f"{stamp:%Y%m%d %H%M%S}"]
            case unit:
                count = stamp.value // 1000
                return [str({"s": count // 10**6, "ms": count // 1000, "us": count, "ns": count * 1000}[unit])]

    def number(self, value: Decimal, price: bool = True) -> str:
        text = f"{value:f}" if self.fixed or not price else f"{value.normalize():f}"
        if self.numbers != "plain":
            whole, _, fraction = text.partition(".")
            thousands, decimal = ("", self.numbers[4]) if len(self.numbers) == 7 else (self.numbers[1], self.numbers[5])
            grouped = f"{int(whole):,}".replace(",", thousands) if price or self.grouped else whole
            text = grouped + (decimal + fraction if fraction else "")
        return text

    def volume_text(self, value: Decimal) -> str:
        if self.affix == "K":
            thousands = (value / 1000).normalize()
            return self.number(thousands) + "K"
        return self.number(value, price=False)

    def cells(self, table: pd.DataFrame) -> tuple[list[list[str]], list[list[str]]]:
        # with semicolons or dotted dates, numbers without marks say that commas are decimal: a file groups all or none
        self.grouped = self.chance(0.7) or self.separator == ";" or self.dates in ("dmy.", "gmt")
        prices = ("open", "high", "low", "close")
        if self.layout in ("wide", "yfinance"):
            return self.side_by_side(table)
        rows = []
        for place, record in zip(table.index, table.itertuples(index=False), strict=True):
            figures = [("$" if self.affix == "$" else "") + self.number(getattr(record, name)) for name in prices]
            volume = (
                self.volume_text(record.volume)
                if place not in self.missing
                else self.pick(("", "NA", "-", "null", "n/a", "#N/A"))
            )
            if self.separator == "blanks" and not volume:
                volume = "NA"
            rows.append(
                [*self.when(record.moment), *([record.symbol] if self.layout == "long" else []), *figures, volume]
            )
        when = (
            ["date", "time"]
            if len(self.when(table["moment"].iloc[0])) == 2
            else [self.pick(("date", "Date", "timestamp", "Datetime", "time"))]
        )
        header = [
            *when,
            *([self.pick(("symbol", "ticker", "tic", "Symbol", "code"))] if self.layout == "long" else []),
            *prices,
            "volume",
        ]
        if self.layout == "metatrader":
            header = ["<DATE>", "<TIME>", "<OPEN>", "<HIGH>", "<LOW>", "<CLOSE>", "<TICKVOL>", "<VOL>", "<SPREAD>"]
            rows = [[*row, "0", "7"] for row in rows]
        if self.layout == "klines":
            rows = [[*row, str(int(row[0]) + 3_599_999), "1.0", "5", "0.0", "0.0", "0"] for row in rows]
        if self.layout in ("histdata", "mt4", "klines"):
            return rows, []
        return rows, [header]

    def side_by_side(self, table: pd.DataFrame) -> tuple[list[list[str]], list[list[str]]]:
        symbols = list(dict.fromkeys(table["symbol"]))
        by_key = {(row.symbol, row.moment): row for row in table.itertuples(index=False)}
        moments = list(dict.fromkeys(table["moment"]))
        if self.layout == "wide":
            rows = [
                [*self.when(moment), *(self.number(by_key[name, moment].close) for name in symbols)]
                for moment in moments
            ]
            when = ["date", "time"] if self.dates == "two columns" else ["date"]
            return rows, [[*when, *symbols]]
        fields = ("close", "high", "low", "open", "volume")
        rows = []
        for moment in moments:
            values = [str(getattr(by_key[name, moment], figure)) for figure in fields for name in symbols]
            rows.append([*self.when(moment), *values])
        pairs = [(figure.capitalize(), name) for figure in fields for name in symbols]
        header = [
            ["Price", *(pair[0] for pair in pairs)],
            ["Ticker", *(pair[1] for pair in pairs)],
            ["Date", *("" for _ in pairs)],
        ]
        return rows, header

    # the text -----------------------------------------------------------------------------------------------------

    def text(self, rows: list[list[str]], header: list[list[str]], table: pd.DataFrame) -> tuple[bytes, str]:
        rows, header = self.before(rows, header)
        always = self.accident == "quoted"
        lines = [self.line(cells, always) for cells in header]
        body = [self.line(cells, always) for cells in rows]
        lines, body = self.between(lines, body)
        text = "\n".join([*lines, *body]) + ("" if self.accident == "no newline" else "\n")
        return self.packed(text, table)

    def line(self, cells: list[str], always: bool) -> str:
        separator = " " if self.separator == "blanks" else self.separator
        if self.separator == "blanks":
            return (separator * int(self.rng.integers(1, 4))).join(cells)
        pad = " " if self.accident == "padded" and separator != "\t" else ""
        always |= separator == "," and self.numbers == "1.234,56"  # who groups by dots does not leave cells bare
        quoted = [f'"{cell}"' if always or separator in cell else pad + cell for cell in cells]
        return separator.join(quoted)

    def before(self, rows: list[list[str]], header: list[list[str]]) -> tuple[list[list[str]], list[list[str]]]:
        place = int(self.rng.integers(len(rows)))
        match self.accident:
            case "bad cell":
                column = len(rows[0]) - 1 - int(self.rng.integers(2)) if self.layout != "klines" else 3
                if self.layout == "metatrader":
                    column = 4
                rows[place][column] = self.pick(("x", "1.2.3", "12,34,5", "error", "1..5", "0x1F", "1_000", "5.33%"))
            case "missing cell" if self.layout == "long":
                self.accident = "cut"
                rows[place] = rows[place][:-1]
            case "two orders" if self.dates in ("dmy/", "mdy/") and not self.hourly:
                other = [f"{part[1]}/{part[0]}/{part[2]}" for part in (row[0].split("/") for row in rows)]
                half = len(rows) // 2
                changed = any(row[0] != text for row, text in zip(rows[half:], other[half:], strict=True))
                days = [int(text.split("/")[0 if self.dates == "dmy/" else 1]) for text in (row[0] for row in rows)]
                if not changed or max(days[:half], default=0) <= 12 or max(days[half:], default=0) <= 12:
                    self.accident = "none"
                else:
                    for row, text in zip(rows[half:], other[half:], strict=True):
                        row[0] = text
            case "extra column" if header and len(header) == 1 and self.layout in ("long", "named"):
                words = self.pick((["NYSE"], ["Foo Inc"], ["Foo, Bar"]))
                if self.separator != "blanks":
                    rows = [[*row, words[0]] for row in rows]
                    header = [[*header[0], "exchange"]]
            case "shuffled columns" if header and len(header) == 1 and self.layout in ("long", "named"):
                order = self.rng.permutation(len(header[0]))
                rows = [[row[column] for column in order] for row in rows]
                header = [[header[0][column] for column in order]]
            case "newest first":
                rows = rows[::-1]
            case "upper header" if self.layout in ("long", "named"):
                header = [[name.upper() for name in line] for line in header]
        return rows, header

    def between(self, header: list[str], rows: list[str]) -> tuple[list[str], list[str]]:
        separator = " " if self.separator == "blanks" else self.separator
        place = int(self.rng.integers(1, len(rows)))
        match self.accident:
            case "trailing" if self.separator != "blanks":
                rows = [f"{row}{separator}" for row in rows]
                header = [f"{row}{separator}" for row in header] if self.chance(0.5) else header
            case "footer":
                rows = [
                    *rows,
                    "",
                    '"Date/Time of Data: 2022-09-01 16:00:00 ET"' if self.separator != "blanks" else "Source: vendor",
                ]
            case "preamble":
                header = ["https://www.example.com", *header]
            case "comment":
                header = ["# downloaded 2024-01-01", *header]
            case "repeated header":
                rows = [*rows[:place], *header[:1], *rows[place:]] if len(header) == 1 else rows
            case "blank lines":
                rows = [*rows[:place], "", "   ", *rows[place:], ""]
            case "empty rows" if self.separator != "blanks":
                rows = [*rows, separator * rows[0].count(separator)]
            case "sep line" if self.separator not in ("blanks", "\t"):
                header = [f"sep={separator}", *header]
            case "cut" | "missing cell":
                if self.accident == "cut":
                    cells = rows[-1].split(separator)
                    if len(cells) > 2:
                        rows = [*rows[:-1], separator.join(cells[: int(self.rng.integers(1, len(cells) - 1))])]
            case "dropped field":
                cells = rows[place].split(separator)
                rows[place] = separator.join(cells[:-1])
            case "open quote" if self.separator != "blanks":
                rows[place] = rows[place] + f'{separator}"Foo'
                rows = [row if row is rows[place] else row + f"{separator}Foo" for row in rows]
                header = [f"{row}{separator}name" for row in header]
        return header, rows

    def packed(self, text: str, table: pd.DataFrame) -> tuple[bytes, str]:
        stem = (
            self.pick(("bars", "my_bars", "2021"))
            if self.layout in ("long", "wide", "yfinance")
            else str(table["symbol"].iloc[0])
        )
        if self.layout == "metatrader":
            stem += self.pick(("", "_H1", "_H1_202301020000_202312292300")) if self.hourly else self.pick(("", "_D1"))
        if self.layout == "klines":
            stem += self.pick(("", "-1h-2023-01"))
        if "/" in stem:
            stem = stem.replace("/", "%2F")
        ending = ".txt" if self.separator in ("|", "blanks", "\t") and self.chance(0.5) else ".csv"
        name = f"{stem}{ending}"
        encode: Callable[[str], bytes] = str.encode
        match self.accident:
            case "bom":
                return b"\xef\xbb\xbf" + text.encode(), name
            case "crlf":
                return text.replace("\n", "\r\n").encode(), name
            case "cr":
                return text.replace("\n", "\r").encode(), name
            case "utf16":
                return text.encode("utf-16"), name
            case "utf16-bare":
                return text.encode("utf-16-le"), name
            case "gz":
                return gzip.compress(text.encode(), mtime=0), f"{name}.gz"
            case "bz2":
                return bz2.compress(text.encode()), f"{name}.bz2"
            case "zip" | "mac zip":
                buffer = io.BytesIO()
                with zipfile.ZipFile(buffer, "w") as archive:
                    archive.writestr(zipfile.ZipInfo(name), text.encode())
                    if self.accident == "mac zip":
                        archive.writestr(zipfile.ZipInfo(f"__MACOSX/._{name}"), b"\x00\x05\x16\x07")
                return buffer.getvalue(), self.pick((f"{stem}.zip", f"{name}.zip"))
        return encode(text), name
