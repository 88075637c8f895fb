"""From bytes to bars: containers, encodings, cells, columns, folders."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from marl_pipeline.data.sources.files import read_bars, understand_bars
from marl_pipeline.data.sources.tables import open_table
from marl_pipeline.errors import UserError
from tests.data.bar_tables import data_params

PLAIN = """date,symbol,open,high,low,close,volume
2024-01-16,AAA,39.94,40.2,39.48,39.55,621795
2024-01-17,AAA,39.54,39.82,39.49,39.68,571838
"""
HEAD, FIRST, SECOND = PLAIN.strip().split("\n")


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def bars(path: Path, **changes: Any) -> pd.DataFrame:
    return read_bars(path, data_params(**{"source": "csv", "timezone": "UTC", **changes}))


def zipped(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def plain(tmp_path: Path) -> pd.DataFrame:
    return bars(write(tmp_path / "plain.csv", PLAIN))


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        "\ufeff" + PLAIN,
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-32"),
        PLAIN.rstrip("\n"),
        PLAIN + "\x1a",
        PLAIN.replace(",", "|"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", " "),
        PLAIN.replace(",", "   "),
        PLAIN.replace(",", ", "),
        "sep=;\n" + PLAIN.replace(",", ";"),
        "https://www.example.com\n" + PLAIN,
        "Prices of AAA\nexported 2024-02-01\n\n" + PLAIN,
        "# downloaded 2024-01-01\n" + PLAIN,
        PLAIN + '\n"Date/Time of Data: 2022-09-01 16:00:00 ET"\n',
        PLAIN + "Source: somebody, somewhere\n",
        "\n".join([HEAD, FIRST, HEAD, SECOND, ""]),
        "\n".join([HEAD, FIRST, "", "  ", SECOND, ",,,,,,", ""]),
        "\n".join([HEAD, FIRST + ",", SECOND + ",", ""]),
        "\n".join([HEAD + ",", FIRST + ",", SECOND + ",", ""]),
        f'{HEAD},name\n{FIRST},"Foo, ""Bar"" Inc"\n{SECOND},x\n',
        "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in (HEAD, FIRST, SECOND)),
    ],
)
def test_one_table_in_any_dress_gives_the_same_bars(tmp_path: Path, plain: pd.DataFrame, text: str | bytes) -> None:
    pd.testing.assert_frame_equal(bars(write(tmp_path / "bars.csv", text)), plain)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PLAIN + "2024-01-18,AAA,39.5", "line 4 has 3 fields, the header has 7; is the file cut off?"),
        (PLAIN + "2024-01-1", "line 4 has 1 fields, the header has 7"),
        (PLAIN + "2024-01-18,AAA,1,1,1,1,1,1\n" + SECOND, "line 4 has 8 fields, the header has 7"),
        (PLAIN.replace(FIRST, FIRST + ',"Foo Inc'), "line 2 opens a quote and does not close it"),
        (PLAIN.replace("39.55", "x"), "column 'close': 'x' in line 2 is not a number"),
        (PLAIN.replace("571838", "5.3%"), "column 'volume': '5.3%' in line 3 is not a number"),
        (PLAIN.replace("2024-01-17", "soon"), "column 'date': 'soon' in line 3 is not a timestamp"),
        (PLAIN.replace("2024-01-17", ""), "column 'date': line 3 has no timestamp"),
        ("# c\n\n" + PLAIN.replace("17,AAA", "17,"), "column 'symbol': line 5 has no symbol"),
        ('{"Information": "limit reached"}', 'is JSON, not a table ({"Information": "limit reached"})'),
        ('[{"date": "2024-01-16", "close": 1}]', "is JSON, not a table"),
        ("<!DOCTYPE html><html><body>Too many requests</body></html>", "is a web page or XML"),
        (b"PK\x03\x04rest xl/workbook.xml", "is an Excel workbook, whatever its name says"),
        (b"PAR1xxxx", "is a parquet file, whatever its name says"),
        (b"\xd0\xcf\x11\xe0old", "is an Excel workbook"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "is a pointer of Git LFS"),
        (b"\x1f\x8b\x08\x00", "is gzip"),
        ("W\u00e4hrung,close\nx,1\n".encode("cp1252"), "not UTF-8 text (byte 1); save it as CSV in UTF-8"),
        ("", "the file is empty"),
        ("  \n\n", "the file is empty"),
        (HEAD + "\n", "no rows, only a header"),
        ("just some words\n", "no rows"),
    ],
)
def test_what_is_no_whole_table_is_refused_as_what_it_is(tmp_path: Path, text: str | bytes, words: str) -> None:
    path = write(tmp_path / "bars.csv", text)
    with pytest.raises(UserError) as error:
        bars(path)
    assert words in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_packed_files_are_read_alone_and_in_folders(tmp_path: Path) -> None:
    own = PLAIN.replace("symbol,", "").replace("AAA,", "")
    folder = tmp_path / "bars"
    write(folder / "AAA.csv", own)
    write(folder / "BRK.B.csv.gz", gzip.compress(own.encode()))
    zipped(folder / "CCC.csv.zip", {"CCC.csv": own, "__MACOSX/._CCC.csv": "x"})
    zipped(folder / "many.zip", {"DDD.csv": own, "sub/EEE.csv": own, "readme.md": "x"})
    write(folder / "deep" / "FFF.csv", own)
    for hidden in (".DS_Store", "._AAA.csv", "README.md", "AAA.csv.CHECKSUM", "__MACOSX/AAA.csv"):
        write(folder / hidden, b"\x00\x05")
    read = bars(folder)
    assert sorted(read["symbol"].unique()) == ["AAA", "BRK.B", "CCC", "DDD", "EEE", "FFF"]
    assert read["close"].tolist() == [39.55, 39.68] * 6
    assert bars(folder / "CCC.csv.zip")["symbol"].tolist() == ["CCC", "CCC"]


@pytest.mark.parametrize("name", ["CCC.xlsx", "CCC.json", "CCC.h5", "CCC.csv.7z", "CCC.unknown", "CCC.tar.gz"])
def test_no_file_of_a_folder_is_left_out_without_a_word(tmp_path: Path, name: str) -> None:
    write(tmp_path / "AAA.csv", PLAIN)
    write(tmp_path / name, b"x")
    with pytest.raises(UserError, match=f"holds {name}"):
        bars(tmp_path)


def test_a_readme_in_an_archive_is_no_table(tmp_path: Path) -> None:
    path = zipped(tmp_path / "all.zip", {"AAA.csv": PLAIN.replace("symbol", "name"), "readme.txt": "of somebody"})
    assert bars(path)["symbol"].tolist() == ["AAA", "AAA"]


def test_marks_without_width_are_no_part_of_a_symbol(tmp_path: Path) -> None:
    path = write(tmp_path / "bars.csv", PLAIN.replace("17,AAA", "17,\u200bAAA\u200b"))
    assert bars(path)["symbol"].tolist() == ["AAA", "AAA"]


def test_an_archive_without_rows_or_with_other_kinds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no file of rows"):
        bars(zipped(tmp_path / "a.zip", {"readme.md": "x"}))
    with pytest.raises(UserError, match=r"holds AAA\.xlsx, which is not read"):
        bars(zipped(tmp_path / "b.zip", {"AAA.csv": PLAIN, "AAA.xlsx": "x"}))
    with pytest.raises(UserError, match="truncated or corrupt"):
        bars(write(tmp_path / "c.zip", (tmp_path / "b.zip").read_bytes()[:60]))


def test_symbols_are_text_under_every_usual_name(tmp_path: Path) -> None:
    symbols = ["000001", "TRUE", "NA", "NaN", "null", "1E5", "-", "BRK.A"]
    for name in ("symbol", "tic", "ticker", "code", "Symbol", "RIC", "instrument", "ts_code"):
        rows = "".join(f"2024-01-16,{symbol},1.5\n" for symbol in symbols)
        path = write(tmp_path / "bars.csv", f"date,{name},close\n{rows}")
        assert bars(path)["symbol"].tolist() == symbols
    path = write(tmp_path / "bars.csv", f"date,paper,close\n{rows}")
    assert bars(path, columns={"paper": "symbol"})["symbol"].tolist() == symbols
    with pytest.raises(
        UserError, match=r"column 'paper' \(000001, TRUE, NA, ...\) looks like the symbol; .*paper: symbol"
    ):
        bars(write(tmp_path / "AAA.csv", f"date,paper,close\n{rows}{rows}"))


def test_files_named_after_years_are_one_symbol_only_if_they_are_of_those_years(tmp_path: Path) -> None:
    for year in (2021, 2022):
        write(tmp_path / "bars" / f"AAA_{year}.csv", f"date,close\n{year}-03-01,1.5\n")
    assert bars(tmp_path / "bars")["symbol"].tolist() == ["AAA", "AAA"]
    with pytest.raises(UserError, match=r"holds bars of other years; say with data\.file_name"):
        bars(write(tmp_path / "ES_2024.csv", "date,close\n2021-03-01,1.5\n"))


def test_files_named_after_one_symbol_must_not_contradict_each_other(tmp_path: Path) -> None:
    write(tmp_path / "AAA_daily.csv", "date,close\n2021-03-01,1.5\n")
    write(tmp_path / "AAA_raw.csv", "date,close\n2021-03-01,3.0\n")
    with pytest.raises(UserError, match="are both named after AAA and differ"):
        bars(tmp_path)


def test_date_and_time_in_two_columns_are_joined_whichever_is_mapped(tmp_path: Path) -> None:
    text = "<DATE>\t<TIME>\t<CLOSE>\n2024.01.16\t09:00:00\t1.5\n2024.01.16\t10:00:00\t1.6\n"
    path = write(tmp_path / "EURUSD_H1.csv", text)
    for columns in (
        {},
        {"<DATE>": "timestamp"},
        {"<TIME>": "timestamp"},
        {"<DATE>": "timestamp", "<TIME>": "timestamp"},
    ):
        read = bars(path, columns=columns, frequency="1Hour", calendar="24/5")
        assert read["timestamp"].dt.strftime("%d %H:%M").tolist() == ["16 09:00", "16 10:00"]
    compact = write(tmp_path / "AAA.txt", "date,time,close\n20240116,90000,1.5\n20240116,100000,1.6\n")
    read = bars(compact, frequency="1Hour", calendar="24/5")
    assert read["timestamp"].dt.strftime("%d %H:%M").tolist() == ["16 09:00", "16 10:00"]
    with pytest.raises(UserError, match=r"'45307' in line 2|45307 in line 2 looks like the day count of a spreadsheet"):
        bars(write(tmp_path / "CCC.csv", "Date,close\n45307,1.5\n45308,1.6\n"))
    alone = write(tmp_path / "BBB.csv", "time,close\n09:00:00,1.5\n")
    with pytest.raises(UserError, match="column 'time' holds times of day without a date"):
        bars(alone)


def test_an_unnamed_index_is_the_timestamp(tmp_path: Path) -> None:
    path = write(tmp_path / "GOOG.csv", ",Open,Close\n2024-01-16,1.5,2.5\n")
    for columns in ({}, {"": "timestamp"}, {"Unnamed: 0": "timestamp"}):
        assert bars(path, columns=columns)["close"].tolist() == [2.5]
    frame = pd.DataFrame({"Close": [2.5]}, index=pd.DatetimeIndex(["2024-01-16"]))
    frame.to_parquet(tmp_path / "GOOG.parquet")
    assert bars(tmp_path / "GOOG.parquet")["timestamp"].tolist() == [pd.Timestamp("2024-01-16", tz="UTC")]
    frame.tz_localize("Asia/Tokyo").to_parquet(tmp_path / "GOOG.parquet")
    assert bars(tmp_path / "GOOG.parquet")["timestamp"].tolist() == [pd.Timestamp("2024-01-16", tz="UTC")]


def test_a_folder_of_end_stamped_bars_is_refused_and_read_with_the_parameter(tmp_path: Path) -> None:
    days = pd.bdate_range("2024-01-16", periods=12)
    ends = [f"{day:%Y-%m-%d} {hour}:30" for day in days for hour in range(10, 17)]
    path = write(tmp_path / "AAA.csv", "timestamp,close\n" + "".join(f"{end},1.5\n" for end in ends))
    given = {"timezone": "America/New_York", "frequency": "1Hour"}
    with pytest.raises(UserError, match=r"stamped at their ends: .* set data\.stamp to end"):
        bars(path, **given)
    assert bars(path, **given, stamp="end")["timestamp"].iloc[0] == pd.Timestamp("2024-01-16T14:30", tz="UTC")


def test_how_a_file_was_read_is_a_profile_that_reads_it_again(tmp_path: Path) -> None:
    text = "Datum;Schluss\n16.01.2024;1.039,55\n17.01.2024;39,68\n"
    path = write(tmp_path / "AAA.csv", text)
    first = understand_bars(path, data_params(timezone="UTC", source="csv"))
    assert first.profile == {"number_format": "1.234,56", "date_format": "DMY"}
    again = understand_bars(path, data_params(timezone="UTC", source="csv", **first.profile))
    pd.testing.assert_frame_equal(again.bars, first.bars)
    assert first.bars["close"].tolist() == [1039.55, 39.68]


def test_companions_are_read_by_the_same_rules(tmp_path: Path) -> None:
    path = write(
        tmp_path / "macro.csv", "Datum;Zins;Index;Wort\n16.01.2024;5,33%;1.250,5;a\n17.01.2024;5,40%;1.251,0;b\n"
    )
    table = open_table(path)
    assert list(table.figures({"Datum"})) == ["Zins", "Index"]
    assert table.numbers("Zins").tolist() == [0.0533, 0.054]
    assert table.numbers("Index").tolist() == [1250.5, 1251.0]
    dates = table.stamps("Datum").dates
    assert dates is not None
    assert str(dates[0])[:10] == "2024-01-16"


def test_parameters_of_the_bars_decide_only_what_a_companion_leaves_open(tmp_path: Path) -> None:
    params = data_params(number_format="1.234,56", date_format="DMY")
    plain = open_table(write(tmp_path / "us.csv", "date,rate\n01/16/2024,5.330\n01/17/2024,0.5\n"), params)
    assert plain.numbers("rate").tolist() == [5.33, 0.5]
    assert plain.stamps("date").style == "MDY"
    open_one = open_table(write(tmp_path / "de.csv", "date;rate\n02.01.2024;5.330\n03.01.2024;1.250\n"), params)
    assert open_one.numbers("rate").tolist() == [5330.0, 1250.0]
    assert str(open_one.stamps("date").moments[0])[:10] == "2024-01-02"


def test_a_list_of_one_column_is_a_table(tmp_path: Path) -> None:
    table = open_table(write(tmp_path / "universe.csv", "symbol\n000001\nTRUE\n"))
    assert table.symbols("symbol").tolist() == ["000001", "TRUE"]
