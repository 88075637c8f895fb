"""Figures in README and docs: written by their command, never by hand, and reported when their code has moved on."""

from __future__ import annotations

import subprocess
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from marl_pipeline.bench import figures
from marl_pipeline.errors import UserError

ROOT = Path(__file__).parents[2]


def test_every_figure_in_the_documents_has_a_command() -> None:
    marked = figures.marked(ROOT)
    assert set(marked) <= set(figures.figures())
    assert {"default-run", "market-speed"} <= set(marked)
    for figure in figures.figures().values():
        for path in figure.code:
            assert (ROOT / "marl_pipeline" / path).exists(), f"{figure.name}: {path}"


def test_no_figure_was_edited_by_hand() -> None:
    records = figures.read_records(ROOT)
    for name, places in figures.marked(ROOT).items():
        for page, block in places:
            if name in records:
                assert block == figures.shown(records[name]), f"{page}: figure {name} is not what its command wrote"


def test_figures_older_than_their_code_are_reported() -> None:
    for name, why in figures.stale(ROOT).items():
        warnings.warn(f"figure {name}: {why}; `make figures ONLY={name}` makes it again", stacklevel=1)


def git(root: Path, *words: str) -> None:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *words]
    subprocess.run(command, cwd=root, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One document with one figure, which counts the lines of one module."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "marl_pipeline").mkdir()
    (tmp_path / "marl_pipeline/code.py").write_text("x = 1\n")
    (tmp_path / "README.md").write_text("Before.\n<!-- figure: lines -->\nold\n<!-- end of figure -->\nAfter.\n")

    def count(place: Path) -> str:
        return f"{len((place / 'marl_pipeline/code.py').read_text().splitlines())} lines\n"

    known = {"lines": figures.Figure("lines", "wc -l", ("code.py",), count)}
    monkeypatch.setattr(figures, "figures", lambda: known)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_a_figure_is_made_of_the_commit_and_written_where_it_stands(checkout: Path) -> None:
    assert figures.stale(checkout) == {"lines": "never made by `make figures`"}
    changed = figures.make_figures(checkout, [], lambda name: None)
    assert changed == [Path("README.md"), Path("docs/figures.json")]
    text = (checkout / "README.md").read_text()
    assert text.startswith("Before.\n<!-- figure: lines -->\n1 lines\n\n*`wc -l`, 20")
    assert text.endswith("<!-- end of figure -->\nAfter.\n")
    assert figures.stale(checkout) == {}
    record = figures.read_records(checkout)["lines"]
    assert figures.marked(checkout) == {"lines": [(Path("README.md"), figures.shown(record))]}
    assert figures.marked(checkout)["lines"][0][1] != figures.shown(replace(record, block="2 lines\n"))


def test_a_change_of_the_code_makes_a_figure_old(checkout: Path) -> None:
    figures.make_figures(checkout, ["lines"], lambda name: None)
    (checkout / "marl_pipeline/code.py").write_text("x = 2\n")
    assert "its code has changed since" in figures.stale(checkout)["lines"]


def test_what_is_not_committed_has_no_figures(checkout: Path) -> None:
    (checkout / "marl_pipeline/code.py").write_text("x = 2\n")
    with pytest.raises(UserError, match="commit or stash"):
        figures.make_figures(checkout, [], lambda name: None)
    with pytest.raises(UserError, match=r"'rows' is not known \(known: lines\)"):
        figures.make_figures(checkout, ["rows"], lambda name: None)
