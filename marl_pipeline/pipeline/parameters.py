"""The parameters that `marl run` would use with a profile and overrides, without writing anything to the checkout."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from marl_pipeline.config import Params, load_params, parse_params
from marl_pipeline.data.sources.names import is_set
from marl_pipeline.pipeline import overlay
from marl_pipeline.yaml_text import load_yaml

ALWAYS = ("source", "path", "frequency", "timezone", "calendar", "adjustment")
"""Keys of section `data` that a printed profile shows even where they are the quickstart's."""

TEMPORARY = "marl-inputs-"
"""How the folder begins that holds the small files standing for lists and symbols."""


@contextmanager
def parameters(root: Path, profile: str | None, overrides: Iterable[str], cwd: Path) -> Iterator[Params]:
    """The parameters of the run `marl run --profile ... -S ...`, its input files readable from `cwd` while in use.

    Raises:
        UserError: what `marl run` would refuse.
    """
    merged = overlay.merge(root, profile, overrides, cwd)
    params = parse_params(load_yaml(merged.text), str(overlay.PARAMS))
    with tempfile.TemporaryDirectory(prefix=TEMPORARY) as folder:
        paths = {}
        for key in overlay.INPUT_KEYS:
            path = getattr(params.data, key)
            if not is_set(path):
                continue
            if Path(path) in merged.inputs:
                small = Path(folder) / Path(path).name
                small.write_text(merged.inputs[Path(path)], encoding="utf-8")
                paths[key] = str(small)
            elif not Path(path).is_absolute():
                paths[key] = os.path.relpath(root / path, cwd)
        yield params.model_copy(update={"data": params.data.model_copy(update=paths)})


def profile_text(root: Path, params: Params) -> str:
    """The sections `data` and `validate_data` of a profile that gives `params` when it is laid over the quickstart."""
    base = load_params(root / overlay.PROFILES / f"{overlay.DEFAULT}.yaml")
    sections: dict[str, Any] = {}
    for section in ("data", "validate_data"):
        ours, theirs = (getattr(one, section).model_dump(mode="json") for one in (params, base))
        changed = _changes(ours, theirs, ALWAYS if section == "data" else ())
        if changed:
            sections[section] = changed
    data = sections["data"]
    for key in overlay.INPUT_KEYS:
        if key in data:
            data[key] = _as_written(key, data[key])
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    buffer = io.StringIO()
    yaml.dump(sections, buffer)
    return buffer.getvalue()


def _changes(ours: Mapping[str, Any], theirs: Mapping[str, Any], always: Iterable[str] = ()) -> dict[str, Any]:
    changed = {}
    for key, value in ours.items():
        base = theirs.get(key)
        if isinstance(value, Mapping) and isinstance(base, Mapping) and base:
            if inner := _changes(value, base):
                changed[key] = inner
        elif key in always or value != base:
            changed[key] = value
    return changed


def _as_written(key: str, path: str) -> Any:
    """A list of symbols and the symbol of a benchmark as such, not as the small file that stands for them."""
    if not is_set(path):
        return None
    folder = Path(path).parent
    if folder.name.startswith(TEMPORARY) or folder.parts[-len(overlay.INPUTS.parts) :] == overlay.INPUTS.parts:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        return lines if key == "universe" else lines[0]
    return path
