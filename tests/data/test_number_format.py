from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from marl_pipeline.data.number_format import (
    PLAIN,
    Circumstances,
    NumberFormat,
    infer_format,
    number_format,
    parse_numbers,
)
from marl_pipeline.errors import UserError

PROGRAM = Circumstances(",")
GERMAN = Circumstances(";")


def inferred(around: Circumstances = PROGRAM, **columns: list[str]) -> NumberFormat:
    return infer_format({name: pa.array(cells) for name, cells in columns.items()}, "bars.csv", around)


def parsed(*cells: str | None, written: str = "1,234.56") -> list[float]:
    values, bad = parse_numbers(pa.array(list(cells), pa.string()), number_format(written))
    assert bad is None
    return [float(value) for value in values]


@pytest.mark.parametrize(
    ("columns", "around", "written"),
    [
        ({"close": ["39.94", "40.2"], "volume": ["621795", "5"]}, PROGRAM, "1234.56"),
        ({"close": ["39.940", "40.200"]}, PROGRAM, "1234.56"),
        ({"close": ["39,94", "40,2"], "volume": ["621795", "5"]}, GERMAN, "1234,56"),
        ({"close": ["39,940", "40,200"], "volume": ["621795", "5"]}, GERMAN, "1234,56"),
        ({"close": ["39,940", "40,200"], "volume": ["621795"]}, Circumstances("\t", dotted_dates=True), "1234,56"),
        ({"close": ["39,940", "0,200"]}, Circumstances("\t"), "1234,56"),
        ({"close": ["39,940", "1240,200"]}, Circumstances("\t"), "1234,56"),
        ({"close": ["39,940", "40,200"], "volume": ["1,621,795"]}, PROGRAM, "1,234.56"),
        ({"close": ["39,940", "40,200"], "volume": ["12.5"]}, PROGRAM, "1,234.56"),
        ({"close": ["1.239,9", "40,20"]}, GERMAN, "1.234,56"),
        ({"close": ["1 239,9", "40,20"]}, GERMAN, "1 234,56"),
        ({"close": ["1\u202f239,9", "40,20"]}, GERMAN, "1 234,56"),
        ({"close": ["1'239.9", "40.20"]}, GERMAN, "1'234.56"),
        ({"close": ["4,602.00"], "volume": ["0.64M"], "change": ["-0.10%"]}, Circumstances(",", True), "1,234.56"),
        ({"close": ["12,34,567.5"]}, PROGRAM, "1,234.56"),
    ],
)
def test_all_cells_of_all_columns_decide_the_format(
    columns: dict[str, list[str]], around: Circumstances, written: str
) -> None:
    assert inferred(around, **columns).written == written


@pytest.mark.parametrize(
    ("columns", "around", "readings"),
    [
        ({"close": ["39,940", "40,200"], "volume": ["621795"]}, PROGRAM, r"'39,940' may be 39.94 or 39,940"),
        ({"close": ["39,940", "40,200"]}, GERMAN, r"'39,940' may be 39.94 or 39,940"),
        (
            {"close": ["39.940", "40.200"], "volume": ["621795"]},
            GERMAN,
            r"'39.940' may be (39.94 or 39,940|39,940 or 39.94)",
        ),
        ({"close": ["39.940", "40.200"]}, Circumstances(",", quoted=True), "'39.940' may be"),
        ({"close": ["39.940", "40.200"]}, Circumstances("\t"), "'39.940' may be"),
        ({"close": ["39.940"], "volume": ["621,795"]}, PROGRAM, "may be"),
    ],
)
def test_what_no_cell_decides_is_refused_with_both_readings(
    columns: dict[str, list[str]], around: Circumstances, readings: str
) -> None:
    with pytest.raises(UserError, match=readings) as error:
        inferred(around, **columns)
    assert "set data.number_format to '1" in str(error.value)


def test_a_later_cell_decides_as_well_as_the_first() -> None:
    cells = ["39,940"] * 5000
    with pytest.raises(UserError):
        inferred(close=cells)
    assert inferred(close=[*cells, "39,94"]) == NumberFormat(",")
    assert inferred(close=cells, open=["1.5"]) == NumberFormat(".", ",")


def test_a_known_layout_needs_no_inference() -> None:
    assert inferred(Circumstances(";", fixed=PLAIN), close=["130.123", "131.200"]) == PLAIN


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1,234.5", 1234.5),
        (" 12 ", 12.0),
        ("-3", -3.0),
        ("\u22123", -3.0),
        ("3-", -3.0),
        ("(1.5)", -1.5),
        ("+2", 2.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1.2M", 1_200_000.0),
        ("4.35M", 4_350_000.0),
        ("12K", 12_000.0),
        ("1.5bn", 1.5e9),
        ("2T", 2e12),
        ("3\u4e07", 30_000.0),
        ("$46.41", 46.41),
        ("-$46.41", -46.41),
        ("$-46.41", -46.41),
        ("($46.41)", -46.41),
        ("46.41 \u20ac", 46.41),
        ("US$1.5", 1.5),
        ("USD 1,000.25", 1000.25),
        ("5.33%", 0.0533),
        ("-0.10 %", -0.001),
        ("1.6e-05", 1.6e-05),
        ("1E5", 100_000.0),
        ("inf", np.inf),
        ("-Infinity", -np.inf),
        ("0.1", 0.1),
        ("1.1011300000000002", 1.1011300000000002),
    ],
)
def test_a_cell_is_read_to_the_nearest_float(cell: str, value: float) -> None:
    assert parsed(cell) == [value]


@pytest.mark.parametrize(
    "cell", ["", " ", "-", "--", ".", "NA", "n/a", "NaN", "null", "None", "#N/A", "#VALUE!", "\u2014", None]
)
def test_words_for_nothing_are_missing(cell: str | None) -> None:
    values = parsed("1", cell)
    assert np.isnan(values[1])


@pytest.mark.parametrize(
    "cell", ["x", "1,23", "1,2345", "1.2.3", "12a", "0x1F", "1_000", "--3", "-3-", "(3", "1e5M", "5%%", "1 2", "\uff11"]
)
def test_what_is_no_number_in_the_format_is_found(cell: str) -> None:
    _, bad = parse_numbers(pa.array(["1.5", cell]), number_format("1,234.56"))
    assert bad == 1


@pytest.mark.parametrize(("first", "second"), [("$1", "\u20ac2"), ("$1", "2"), ("5.33%", "5.33"), ("5.33", "1%")])
def test_a_unit_stands_at_every_number_of_a_column_or_at_none(first: str, second: str) -> None:
    _, bad = parse_numbers(pa.array([first, second]), PLAIN)
    assert bad == 1
    values, bad = parse_numbers(pa.array(["$1", "0", "$2"]), PLAIN)
    assert bad is None
    assert values.tolist() == [1.0, 0.0, 2.0]


@pytest.mark.parametrize("written", ["1234.56", "1,234.56", "1.234,56", "1234,56", "1'234.56", "1 234,56"])
def test_a_format_is_named_by_writing_a_number_in_it(written: str) -> None:
    assert number_format(written).written == written
    cell = written.replace("56", "5")
    assert parsed(cell, written=written) == [1234.5]


@pytest.mark.parametrize("written", ["german", "1.234.56", "1,234", "", "12.34"])
def test_another_format_is_refused(written: str) -> None:
    with pytest.raises(UserError, match=r"data\.number_format: .* is none of '1234\.56'"):
        number_format(written)


def test_a_million_plain_cells_are_read_quickly() -> None:
    import time

    cells: Any = pa.array(np.random.default_rng(0).uniform(1, 100, 1_000_000).round(2).astype(str))
    began = time.process_time()
    written = infer_format({"close": cells}, "bars.csv", PROGRAM)
    values, bad = parse_numbers(cells, written)
    assert bad is None
    assert len(values) == 1_000_000
    assert time.process_time() - began < 5.0
