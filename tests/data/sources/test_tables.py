from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marl_pipeline.data.sources.tables import read_table
from marl_pipeline.errors import UserError

HEADER = "symbol,timestamp,close\n"


def written(folder: Path, text: str | bytes, name: str = "bars.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "symbol,timestamp,close\nA,2024-01-02,1234.5\nB,2024-01-02,2\n",
        "symbol,timestamp,close\r\nA,2024-01-02,1234.5\r\n\r\nB,2024-01-02,2",
        "\ufeffsymbol;timestamp;close\nA;2024-01-02;1234.5\nB;2024-01-02;2\n",
        "symbol;timestamp;close\nA;2024-01-02;1.234,5\nB;2024-01-02;2,0\n",
        "symbol\ttimestamp\tclose\nA\t2024-01-02\t1234.5\nB\t2024-01-02\t2\n",
        'symbol,timestamp,close\n"A",2024-01-02,"1234.5"\n"B","2024-01-02",2\n',
        "symbol,timestamp,close,\nA,2024-01-02,1234.5,\nB,2024-01-02,2,\n",
    ],
)
def test_usual_ways_of_writing_a_csv_give_the_same_table(tmp_path: Path, text: str) -> None:
    table = read_table(written(tmp_path, text))
    assert list(table.columns) == ["symbol", "timestamp", "close"]
    assert table["symbol"].tolist() == ["A", "B"]
    assert table["timestamp"].tolist() == ["2024-01-02", "2024-01-02"]
    np.testing.assert_array_equal(table["close"].astype(float), [1234.5, 2.0])


def test_tickers_that_look_like_missing_values_or_truths_stay_tickers(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, HEADER + "NA,2024-01-02,1\nTRUE,2024-01-02,\nNAN,2024-01-02,2\n"))
    assert table["symbol"].tolist() == ["NA", "TRUE", "NAN"]
    assert np.isnan(table["close"].iloc[1])


def test_a_gzipped_csv_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, gzip.compress((HEADER + "A,2024-01-02,1\n").encode()), "bars.csv.gz")
    assert read_table(path)["close"].tolist() == [1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        (HEADER, "no rows, only a header"),
        (HEADER + "A,2024-01-02,1\nA,2024-01-03\n", "line 3 has 2 fields, the header has 3"),
        (HEADER + "A,2024-01-02,1\n\nA,2024-01-03,1,1\n", "line 4 has 4 fields, the header has 3"),
        (HEADER + '"A",2024-01-02,1\n"A",2024-01-03\n', "line 3 has 2 fields, the header has 3"),
        ("symbol,close,close\nA,1,2\n", "column 'close' stands there twice"),
        (b"\xff\xfes\x00y", "not whole UTF-16 text"),
        (b"sym,close\n\xe4,1\n", "not UTF-8 text"),
        (b"sym\x00bol,close\nA,1\n", "it holds zero bytes"),
    ],
)
def test_a_csv_that_is_not_whole_is_refused(tmp_path: Path, text: str | bytes, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=re.escape(words)) as error:
        read_table(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_truncated_or_corrupt_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bars.parquet"
    pd.DataFrame({"close": np.arange(1000.0)}).to_parquet(path)
    whole = path.read_bytes()
    damaged = whole[:200] + bytes(100) + whole[300:]
    for content in (whole[: len(whole) // 2], b"PAR1", b"symbol,close\nA,1\n", damaged):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a readable parquet file, truncated or corrupt"):
            read_table(path)


def test_a_truncated_gzip_is_refused(tmp_path: Path) -> None:
    content = gzip.compress((HEADER + "A,2024-01-02,1\n" * 99).encode())
    with pytest.raises(UserError, match="truncated or corrupt"):
        read_table(written(tmp_path, content[:-20], "bars.csv.gz"))


def test_missing_files_folders_and_unknown_kinds_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.csv: no such file"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match="is an Excel workbook, which is not read; save it as CSV"):
        read_table(written(tmp_path, "x", "bars.xlsx"))
    with pytest.raises(UserError, match="is a folder"):
        read_table(tmp_path)


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "ES=F"
    folder.mkdir()
    pd.DataFrame({"close": [1.0]}).to_parquet(folder / "data.parquet")
    assert list(read_table(folder / "data.parquet").columns) == ["close"]


def test_an_index_of_dates_becomes_a_column(tmp_path: Path) -> None:
    path = tmp_path / "A.parquet"
    pd.DataFrame({"close": [1.0]}, index=pd.DatetimeIndex(["2024-01-02"], name="Date")).to_parquet(path)
    assert list(read_table(path).columns) == ["Date", "close"]
