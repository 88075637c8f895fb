"""Bytes of a file, out of whatever it is packed in, and what they are: text, Parquet, or something to refuse."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa

from marl_pipeline.errors import UserError

TEXTS = (".csv", ".tsv", ".txt", ".psv", ".tab", ".dat", ".prn")
PARQUET = (".parquet", ".pq")
PACKED = (".gz", ".bz2", ".xz", ".zst")
ZIP = ".zip"
OTHERS = {
    ".xlsx": "an Excel workbook",
    ".xlsm": "an Excel workbook",
    ".xlsb": "an Excel workbook",
    ".xls": "an Excel workbook",
    ".ods": "a spreadsheet",
    ".json": "JSON",
    ".jsonl": "JSON",
    ".feather": "a Feather file",
    ".arrow": "an Arrow file",
    ".h5": "an HDF5 file",
    ".hdf5": "an HDF5 file",
    ".hdf": "an HDF5 file",
    ".pkl": "a pickle",
    ".pickle": "a pickle",
    ".7z": "a 7-Zip archive",
    ".rar": "a RAR archive",
    ".tar": "a tar archive",
    ".tgz": "a tar archive",
    ".orc": "an ORC file",
    ".avro": "an Avro file",
    ".db": "a database",
    ".sqlite": "a database",
    ".dta": "a Stata file",
    ".sas7bdat": "a SAS file",
    ".mat": "a MATLAB file",
    ".npy": "a NumPy file",
    ".npz": "a NumPy file",
    ".rds": "an R file",
    ".hst": "a MetaTrader history file",
    ".bi5": "a Dukascopy tick file",
    ".html": "a web page",
    ".htm": "a web page",
}
"""Endings of data that is not read, and what each is."""

ADVICE = "save it as CSV in UTF-8 or as Parquet"
EXPECTED = "expected .csv, .txt, .tsv or .parquet, plain or in .gz, .zst, .bz2, .xz or .zip"
UNPACKING = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError)
"""The bases of what the standard library raises on an archive that is damaged; the last two are how `zipfile` reports a
compression that it does not have and a member under a password."""

SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xd0\xcf\x11\xe0", "an Excel workbook"),
    (b"PAR1", "a parquet file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "gzip"),
    (b"%PDF", "a PDF"),
    (b"ARROW1", "an Arrow file"),
    (b"FEA1", "a Feather file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"SQLite format 3", "a database"),
    (b"\x89PNG", "a picture"),
    (b"version https://git-lfs", "a pointer of Git LFS (git lfs pull fetches the file)"),
)


@dataclass(frozen=True)
class Member:
    """One table's bytes.

    Attributes:
        origin: names it in errors: the file, or `file.zip!member`.
        name: the file's or member's own name without endings of packing.
        data: the bytes.
        zipped: whether it came out of a zip archive.
    """

    origin: str
    name: str
    data: bytes
    zipped: bool = False


def kind_of(path: Path) -> str | None:
    """`text`, `parquet`, `zip` or `other` (data that is not read) by the endings of the name, None for any other."""
    name = path.name.lower()
    for ending in PACKED:
        name = name.removesuffix(ending)
    suffix = PurePosixPath(name).suffix
    if suffix in TEXTS:
        return "text"
    if suffix in PARQUET:
        return "parquet"
    if suffix == ZIP:
        return "zip"
    return "other" if suffix in OTHERS or name != path.name.lower() else None


def stem_of(name: str) -> str:
    """A file's name without the endings of its kind; dots before them belong to the name (BRK.A.csv.gz: BRK.A)."""
    while True:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in (*TEXTS, *PARQUET, *PACKED, ZIP) or PurePosixPath(name).stem == "":
            return name
        name = name[: -len(suffix)]


def unpack(path: Path) -> list[Member]:
    """The tables in a file: itself, or the members of a zip archive by name.

    Raises:
        UserError: the file is missing, empty, damaged, or of a kind that is not read.
    """
    _refuse_kind(path)
    name, data = path.name, path.read_bytes()
    if not data:
        raise UserError(f"{path}: the file is empty")
    name, data = _decompressed(name, data, str(path))
    if not name.lower().endswith(ZIP):
        return [Member(str(path), name, data)]
    return _members(path, data)


def refuse_content(member: Member) -> None:
    """Raises if the bytes are no text table but something known by its first bytes, whatever its name says."""
    head = member.data[:4096]
    for signature, what in SIGNATURES:
        if head.startswith(signature):
            what = "an Excel workbook" if what == "a zip archive" and b"xl/" in member.data else what
            raise UserError(f"{member.origin}: is {what}, whatever its name says; {ADVICE}")
    start = re.sub(rb"^(\xef\xbb\xbf)?\s*", b"", head[:2048]).lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body", b"<error", b"<div")):
        raise UserError(f"{member.origin}: is a web page or XML, not a table; the download failed, fetch it again")
    if start.startswith((b"{", b"[{", b"[[", b'["')) or re.match(rb"\[\s*[{\[]", start):
        words = " ".join(head.decode("utf-8", "replace").split())[:100]
        raise UserError(f"{member.origin}: is JSON, not a table ({words}); fetch it again as CSV")


def _refuse_kind(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected a file of rows")
    if not path.exists():
        raise UserError(f"{path}: no such file")
    kind = kind_of(path)
    if kind == "other":
        what = OTHERS.get(path.suffix.lower(), f"a packed file of unknown kind ({''.join(path.suffixes[-2:])})")
        raise UserError(f"{path}: is {what}, which is not read; {ADVICE}")
    if kind is None:
        raise UserError(f"{path}: unknown kind of file '{path.suffix}'; {EXPECTED}")


def _decompressed(name: str, data: bytes, origin: str) -> tuple[str, bytes]:
    ending = PurePosixPath(name).suffix.lower()
    if ending not in PACKED:
        return name, data
    try:
        match ending:
            case ".gz":
                data = gzip.decompress(data)
            case ".bz2":
                data = bz2.decompress(data)
            case ".xz":
                data = lzma.decompress(data)
            case _:
                data = pa.CompressedInputStream(io.BytesIO(data), "zstd").read()
    except UNPACKING as error:
        raise UserError(f"{origin}: not readable, truncated or corrupt ({_first_line(error)})") from None
    if not data:
        raise UserError(f"{origin}: the file is empty")
    return name[: -len(ending)], data


def _members(path: Path, data: bytes) -> list[Member]:
    found = []
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in sorted(archive.infolist(), key=lambda item: item.filename):
                inner = PurePosixPath(info.filename)
                if info.is_dir() or is_hidden(inner) or is_ignored(inner.name):
                    continue
                if kind_of(Path(inner.name)) not in ("text", "parquet"):
                    raise UserError(f"{path}: holds {info.filename}, which is not read; {EXPECTED}")
                origin = f"{path}!{info.filename}"
                name, content = _decompressed(inner.name, archive.read(info), origin)
                if not content:
                    raise UserError(f"{origin}: the file is empty")
                found.append(Member(origin, name, content, zipped=True))
    except UNPACKING as error:
        raise UserError(f"{path}: not readable, truncated or corrupt ({_first_line(error)})") from None
    if not found:
        raise UserError(f"{path}: the archive holds no file of rows")
    return found


IGNORED: tuple[str, ...] = (
    ".md",
    ".pdf",
    ".py",
    ".ipynb",
    ".log",
    ".png",
    ".jpg",
    ".jpeg",
    ".sh",
    ".bat",
    ".yaml",
    ".yml",
    ".toml",
)
IGNORED += (".ini", ".cfg", ".rst", ".checksum", ".sha256", ".md5", ".crc", ".lock", ".gitignore", ".dvc", ".r")
IGNORED_STEMS: tuple[str, ...] = (
    "readme",
    "license",
    "licence",
    "changelog",
    "notes",
    "thumbs",
    "desktop",
    "_success",
    "_metadata",
)
IGNORED_STEMS += ("_common_metadata", "makefile")


def is_ignored(name: str) -> bool:
    """Whether a file beside the data is known to be none: a readme, a script, a checksum."""
    return name.lower().endswith(IGNORED) or PurePosixPath(name.lower()).stem in IGNORED_STEMS


def is_hidden(path: PurePosixPath) -> bool:
    """Whether the system keeps it for itself: .DS_Store, ._AAA.csv, __MACOSX, lock files of spreadsheets."""
    return any(part.startswith((".", "~$")) or part == "__MACOSX" for part in path.parts if part not in (".", ".."))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
