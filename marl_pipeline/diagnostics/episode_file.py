"""Recorded episodes on disk: one parquet file with the meaning of every column beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from marl_pipeline.diagnostics.episodes import About, Episodes, typed
from marl_pipeline.errors import UNREADABLE_PARQUET, UserError

HEADER = b"marl_episodes"
MADE_BY = "make one with `marl env record --out FILE`"


def save_episodes(path: Path, episodes: Episodes) -> None:
    """Writes `path` (its folder is made): zstd, names stored once, `About` in the header."""
    columns = episodes.about.columns()
    table = pa.Table.from_pandas(episodes.table, preserve_index=False)
    fields = [field.with_metadata({"meaning": columns[field.name].meaning}) for field in table.schema]
    schema = pa.schema(fields, metadata={HEADER: json.dumps(episodes.about.as_json())})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.cast(schema), path, compression="zstd")


def load_episodes(path: Path) -> Episodes:
    """Reads what `save_episodes` wrote.

    Raises:
        UserError: it is not there, damaged, no episode file, or one of another format.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {MADE_BY}")
    try:
        table = pq.read_table(path, partitioning=None)
    except UNREADABLE_PARQUET as error:
        reason = str(error).splitlines()[0][:160]
        raise UserError(f"{path}: not a readable parquet file ({reason}); {MADE_BY}") from None
    header = (table.schema.metadata or {}).get(HEADER)
    if header is None:
        raise UserError(f"{path}: a parquet file, but not of episodes; {MADE_BY}")
    about = About.from_json(json.loads(header), str(path))
    return Episodes(about, typed(table.to_pandas(), about, str(path)))
