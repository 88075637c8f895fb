"""Options that take several words."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from marl_pipeline.cli.shell import ListCommand, seeds_of
from marl_pipeline.errors import UserError


@pytest.mark.parametrize(
    ("words", "seeds", "rest"),
    [
        (["--seeds", "0", "1", "2", "--name", "x"], "0,1,2", "x"),
        (["--name", "x", "--seeds", "3", "1"], "3,1", "x"),
        (["--seeds", "0,1", "--name", "x"], "0,1", "x"),
        (["--seeds=4..6", "--name=x"], "4..6", "x"),
        (["--name", "x"], "0", "x"),
    ],
)
def test_seeds_may_be_words_or_one_word(words: list[str], seeds: str, rest: str) -> None:
    app = typer.Typer()

    @app.command(cls=ListCommand)
    def show(name: str = typer.Option(), seeds: str = typer.Option("0")) -> None:
        print(f"{seeds} {name}")

    done = CliRunner().invoke(app, words)
    assert done.stdout == f"{seeds} {rest}\n"


def test_an_option_without_its_words_is_missing_them() -> None:
    app = typer.Typer()

    @app.command(cls=ListCommand)
    def show(seeds: str = typer.Option("0"), loud: bool = False) -> None:
        print(seeds, loud)

    assert CliRunner().invoke(app, ["--loud", "--seeds"]).exit_code == 2


def test_seeds_are_whole_numbers_and_spans_of_them() -> None:
    assert seeds_of("0,1,2") == [0, 1, 2]
    assert seeds_of("0..2,7") == [0, 1, 2, 7]
    for wrong in ("", "a", "-1", "1,1", "0..2,1", "3..1"):
        with pytest.raises(UserError, match="--seeds"):
            seeds_of(wrong)
