"""Reads files drawn at random and compares; ends with 1 if one was silently wrong."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tools.fuzz.compare import Outcome, outcome
from tools.fuzz.files import draw


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--files", type=int, default=20_000)
    options.add_argument("--seed", type=int, default=11)
    options.add_argument("--first", type=int, default=0, help="index of the first file")
    options.add_argument("--show", type=int, default=5, help="how many wrong files to print")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    began = time.perf_counter()
    counts: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for index in range(given.first, given.first + given.files):
            written = draw(given.seed, index)
            found = outcome(written, Path(folder))
            counts[found.kind] += 1
            if found.kind == "refused":
                refused[written.style["accident"]] += 1
            if found.kind in ("wrong", "crash") and counts["wrong"] + counts["crash"] <= given.show:
                _show(index, found, written.style, written.data)
    seconds = time.perf_counter() - began
    share = counts["refused"] / given.files
    if given.json:
        print(json.dumps({"files": given.files, "seed": given.seed, **counts, "refused_share": share}))
    else:
        print(
            f"{given.files:,} files (seed {given.seed}) in {seconds:.0f} s: {counts['equal']:,} read as they are, "
            f"{counts['refused']:,} refused ({share:.1%}), {counts['wrong']} silently wrong, {counts['crash']} crashed"
        )
        print("refused by accident:", ", ".join(f"{name} {count}" for name, count in refused.most_common()))
    return 1 if counts["wrong"] or counts["crash"] else 0


def _show(index: int, found: Outcome, style: dict[str, str], data: bytes) -> None:
    print(f"file {index}: {found.kind}: {found.words}\n  {style}\n  {data[:400]!r}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
