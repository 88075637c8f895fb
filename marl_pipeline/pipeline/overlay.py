"""Merges a profile and `section.key=value` overrides into params.yaml, comments kept.

DVC tracks files, so what is not a path becomes one: `null` becomes `data/not_set`, a list of symbols and a benchmark
symbol become small files under `data/inputs/`. Everything is checked before anything is written.
"""

from __future__ import annotations

import copy
import datetime
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.error import YAMLError

from marl_pipeline.config import NOT_SET, Params, parse_params
from marl_pipeline.errors import UserError
from marl_pipeline.yaml_text import load_yaml

PARAMS = Path("params.yaml")
PROFILES = Path("profiles")
INPUTS = Path("data/inputs")
DEFAULT = "quickstart"

INPUT_KEYS = (
    "path",
    "universe",
    "sectors",
    "benchmark",
    "vix",
    "macro",
    "sentiment",
    "corporate_actions",
    "membership",
)
"""The keys of section `data` that are files."""

FILE_KEYS = (*(("data", key) for key in INPUT_KEYS), ("build_features", "custom"))
"""Section and key of every parameter that is a file."""


@dataclass(frozen=True)
class Merged:
    """What `write` would put where.

    Attributes:
        text: the new params.yaml.
        inputs: small files that stand for lists and symbols: path -> content.
    """

    text: str
    inputs: Mapping[Path, str]


def merge(
    root: Path,
    profile: str | None = None,
    overrides: Iterable[str] = (),
    cwd: Path | None = None,
    base_root: Path | None = None,
) -> Merged:
    """Checks and merges; writes nothing.

    Args:
        root: of the repository.
        profile: a name in `profiles/` or a YAML file anywhere, laid over the quickstart profile; None lays the
            overrides over params.yaml as it is.
        overrides: `section.key=value`, the value in YAML.
        cwd: what relative paths in a user's file and in overrides are relative to.
        base_root: the checkout whose params.yaml and inputs to start from; `root` itself by default.

    Raises:
        UserError: no such profile, malformed YAML, an unknown parameter, a bad value, or a missing input file.
    """
    cwd = cwd or Path.cwd()
    overrides = list(overrides)
    base_root = base_root or root
    base = base_root / PARAMS if profile is None else root / PROFILES / f"{DEFAULT}.yaml"
    text = _read(base, "run from the root of the repository")
    values = _load(text, str(base), round_trip=True)
    inputs: dict[Path, str] = {}
    changed = False
    if profile is None:
        changed = _materialise_base(values, root, base_root, inputs)
    elif profile != DEFAULT:
        path, relative_to = _find_profile(root, profile, cwd)
        overlay = _load(_read(path, ""), str(path))
        _lay_over(values, _materialise(overlay, root, relative_to, inputs), str(path))
        values["run"]["profile"] = profile if path.parent == root / PROFILES else path.name
        changed = True
    for override in overrides:
        _lay_over(values, _materialise(_parse_override(override), root, cwd, inputs), f"-S {override}")
        changed = True
    if changed:
        _drop_strategies(values)
        text = _dump(values)
    origin = f"-S {' '.join(overrides)}" if overrides and profile is None else (profile or str(PARAMS))
    _check(root, values, origin, inputs)
    return Merged(text, inputs)


def write(root: Path, merged: Merged) -> None:
    """Puts the files in place, params.yaml last and whole."""
    for path, content in merged.inputs.items():
        _replace(root / path, content)
    _replace(root / PARAMS, merged.text)


def overrides_of(values: Mapping[str, Any] | None, prefix: str = "") -> list[str]:
    """A nested mapping (or dotted keys) as the strings that `merge` takes."""
    found = []
    for key, value in (values or {}).items():
        if isinstance(value, Mapping) and value:
            found += overrides_of(value, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}={_inline(value)}")
    return found


def _find_profile(root: Path, profile: str, cwd: Path) -> tuple[Path, Path]:
    """The file of a profile and what paths in it are relative to."""
    named = root / PROFILES / f"{profile}.yaml"
    if "/" not in profile and named.is_file():
        return named, root
    path = cwd / Path(profile).expanduser()
    if path.is_file():
        return path, cwd
    names = ", ".join(sorted(file.stem for file in (root / PROFILES).glob("*.yaml")))
    raise UserError(f"--profile {profile}: neither a file nor one of the profiles ({names})")


def parse_values(texts: Iterable[str], option: str) -> dict[str, Any]:
    """`key=value` and `section.key=value` texts of a command line as one nested mapping; the values are YAML.

    Raises:
        UserError: one of them is not of that form.
    """
    values: dict[str, Any] = {}
    for text in texts:
        if not re.fullmatch(r"[^.=\s]+(\.[^.=\s]+)*=.*", text, re.DOTALL):
            raise UserError(f"{option} {text}: write key=value")
        _lay_over(values, _parse_value(text, option), f"{option} {text}")
    return values


def _parse_override(override: str) -> dict[str, Any]:
    key, equals, _ = override.partition("=")
    if not equals or not re.fullmatch(r"[^.\s]+(\.[^.\s]+)+", key.strip()):
        raise UserError(f"-S {override}: write section.key=value, as in -S run.workers=1")
    return _parse_value(override, "-S")


def _parse_value(text: str, option: str) -> dict[str, Any]:
    key, _, written = text.partition("=")
    keys = key.strip().split(".")
    value = _load_value(written, f"{option} {text}", under=keys)
    for part in reversed(keys):
        value = {part: value}
    return dict(value)


def _lay_over(base: Any, overlay: Mapping[str, Any], origin: str) -> None:
    """Puts `overlay` into `base`, mapping by mapping; a number as key addresses an entry of a list."""
    for key, value in overlay.items():
        place: str | int = key
        if isinstance(base, MutableSequence):
            if not str(key).isdigit() or int(key) >= len(base):
                raise UserError(f"{origin}: no entry {key} in a list of {len(base)}; count from 0")
            place = int(key)
        current = base[place] if isinstance(place, int) else base.get(place)
        nested = isinstance(value, Mapping) and bool(value)
        if nested and isinstance(current, (MutableMapping, MutableSequence)):
            _lay_over(current, value, origin)
        else:
            base[place] = _styled(value)


def _drop_strategies(values: Any) -> None:
    """A strategy that an overlay sets to null is not played."""
    strategies = values.get("strategies")
    for name in [name for name, value in strategies.items() if value is None] if strategies else ():
        del strategies[name]


def _styled(value: Any) -> Any:
    """Lists of scalars on one line, as params.yaml writes them."""
    if isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
        line = CommentedSeq(value)
        line.fa.set_flow_style()
        return line
    return copy.deepcopy(value)


def _materialise(overlay: Any, root: Path, relative_to: Path, inputs: dict[Path, str]) -> dict[str, Any]:
    """The overlay with dates as text and every input as a path relative to the root."""
    values = _plain(overlay)
    if not isinstance(values, dict):
        raise UserError(f"a profile holds sections such as data and run, found {type(values).__name__}")
    for section, key in FILE_KEYS:
        place = values.get(section)
        if isinstance(place, dict) and key in place:
            place[key] = _as_path(section, key, place[key], root, relative_to, inputs)
    return values


def _materialise_base(values: Any, root: Path, base_root: Path, inputs: dict[Path, str]) -> bool:
    """The same for params.yaml as the user left it; whether anything had to change."""
    changed = False
    for section, key in FILE_KEYS:
        place = values.get(section)
        if isinstance(place, MutableMapping) and key in place:
            path = _as_path(section, key, _plain(place[key]), root, base_root, inputs)
            if path != place[key]:
                place[key], changed = path, True
    return changed


def _as_path(section: str, key: str, value: Any, root: Path, relative_to: Path, inputs: dict[Path, str]) -> str:
    if value is None or value == NOT_SET:
        return NOT_SET
    if key == "universe" and isinstance(value, list):
        content = "".join(f"{symbol}\n" for symbol in value)
        path = INPUTS / f"universe-{hashlib.sha256(content.encode()).hexdigest()[:8]}.txt"
        inputs[path] = content
        return str(path)
    if not isinstance(value, str):
        raise UserError(f"parameter '{section}.{key}': expected a path, found {value!r}")
    given = Path(value).expanduser()
    found = given if given.is_absolute() else relative_to / given
    if found.exists():
        return str(given) if given.is_absolute() else os.path.relpath(found, root)
    if key == "benchmark" and "/" not in value and given.suffix.lower() not in {".csv", ".parquet", ".txt"}:
        path = INPUTS / f"benchmark-{re.sub(r'[^A-Za-z0-9.^=-]', '_', value)}.txt"
        inputs[path] = f"{value}\n"
        return str(path)
    raise UserError(f"parameter '{section}.{key}': no such file or folder: {value} (looked in {relative_to})")


def _check(root: Path, values: Any, origin: str, inputs: Mapping[Path, str]) -> None:
    params = parse_params(_plain(values), origin)
    _check_settings(params, origin)
    rules = _load(_read(root / PROFILES / f"{DEFAULT}.yaml", ""), DEFAULT)["validate_data"]["severity"]
    for rule in params.validate_data.severity:
        if rule not in rules:
            raise UserError(f"{origin}: unknown parameter 'validate_data.severity.{rule}' (known: {', '.join(rules)})")
    for section, key in FILE_KEYS:
        path = getattr(getattr(params, section), key)
        if Path(path) not in inputs and not (root / path).exists():
            raise UserError(f"{origin}: parameter '{section}.{key}': no such file or folder: {path}")


def _check_settings(params: Params, origin: str) -> None:
    """The settings of algorithms, which the algorithms know."""
    from marl_pipeline.training.hierarchy import mappo_settings, ppo_settings  # imports torch

    try:
        ppo_settings(params.train_symbol_agents)
        mappo_settings(params.train_master)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from None


def _plain(value: Any) -> Any:
    """Built-in types only; dates as text."""
    match value:
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case str() | bool() | None:
            return value if value is None or isinstance(value, bool) else str(value)
        case Sequence():
            return [_plain(item) for item in value]
        case datetime.date():
            return value.isoformat()
        case int():
            return int(value)
        case float():
            return float(value)
        case _:
            return value


def _read(path: Path, advice: str) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{'; ' + advice if advice else ''}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file") from None


def _load(text: str, origin: str, round_trip: bool = False) -> Any:
    values = _load_value(text, origin, round_trip)
    if not isinstance(values, Mapping):
        raise UserError(f"{origin}: expected sections such as data and run, found {type(values).__name__}")
    return values


def _load_value(text: str, origin: str, round_trip: bool = False, under: Sequence[str] = ()) -> Any:
    try:
        return load_yaml(text, _round_trip() if round_trip else None, under)
    except YAMLError as error:
        raise UserError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from None


def _dump(values: Any) -> str:
    buffer = io.StringIO()
    _round_trip().dump(values, buffer)
    return buffer.getvalue()


def _inline(value: Any) -> str:
    """JSON, which YAML reads; a word that YAML reads as itself stays bare."""
    is_word = isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w./-]*", value)
    if is_word and YAML(typ="safe", pure=True).load(value) == value:
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def _round_trip() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1_000_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml


def _replace(path: Path, text: str) -> None:
    """Writes `text` to `path` at once, and only if it differs."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    partial.write_text(text)
    os.replace(partial, path)
