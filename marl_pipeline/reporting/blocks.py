"""What the pages are built of: HTML blocks in the house style, and the self-contained document around them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from marl_pipeline.reporting.canvas import Picture
from marl_pipeline.reporting.style import CSS


def document(title: str, body: Sequence[str]) -> str:
    """A page that fetches nothing: light and dark, readable on a phone."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)} \u00b7 marl-pipeline</title><style>{CSS}</style></head>\n"
        f"<body><main>{chr(10).join(body)}</main></body></html>\n"
    )


def tiles(figures: Sequence[tuple[str, str, str]]) -> str:
    """A row of large figures: title, value, and what stands beside it."""
    blocks = "".join(
        f'<div class="tile"><span>{escape(title)}</span><b>{escape(value)}</b><small>{escape(beside)}</small></div>'
        for title, value, beside in figures
    )
    return f'<div class="tiles">{blocks}</div>'


def figure(picture: Picture) -> str:
    chips = "".join(
        f'<span><i style="background:var(--c{colour})"></i>{escape(label)}</span>' for label, colour in picture.legend
    )
    title = f"<figcaption><b>{escape(picture.title)}</b></figcaption>"
    drawn = f'<div class="{"narrow" if picture.wide else ""}">{picture.svg}</div>'
    if picture.wide:
        drawn += f'<div class="wide">{picture.wide}</div>'
    caption = f"<small>{escape(picture.caption)}</small>" if picture.caption else ""
    return f'<figure>{title}<div class="legend">{chips}</div>{drawn}{caption}</figure>'


def card(content: str) -> str:
    return f"<section>{content}</section>"


def grid(*cards: str) -> str:
    return f'<div class="grid">{"".join(cards)}</div>'


def section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def bullets(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """The first column is text; the others are figures, set to the right."""
    cells = "".join(f"<th{_right(index)}>{escape(cell)}</th>" for index, cell in enumerate(head))
    lines = "".join(
        "<tr>" + "".join(f"<td{_right(index)}>{escape(cell)}</td>" for index, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'
    )


def _right(index: int) -> str:
    return ' class="n"' if index else ""
