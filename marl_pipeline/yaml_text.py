"""YAML in which names stay the text they are: a symbol such as 000001, TRUE, NULL or 1E5 is no number and no truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

TEXT = "tag:yaml.org,2002:str"
NULL = "tag:yaml.org,2002:null"

NAMES = (
    ("data", "universe"),
    ("data", "benchmark"),
    ("data", "columns"),
    ("data", "number_format"),
    ("data", "date_format"),
    ("data", "file_name"),
)
"""Parameters whose values are names, as they are written; a lone null still means none."""


def load_yaml(text: str, yaml: YAML | None = None, under: Sequence[str] = ()) -> Any:
    """The value of a YAML text, names kept as text.

    Args:
        text: a document.
        yaml: the dialect; YAML 1.2 in built-in types by default.
        under: the keys that the document stands below in params.yaml.

    Raises:
        YAMLError: it is not valid YAML.
    """
    constructor, parser = (yaml or YAML(typ="safe", pure=True)).get_constructor_parser(text)
    try:
        node = constructor.composer.get_single_node()
        if node is None:
            return None
        _keep_names(node, tuple(under))
        return constructor.construct_document(node)
    finally:
        parser.dispose()


def _keep_names(node: Node, path: tuple[str, ...]) -> None:
    if path in NAMES:
        _as_text(node, alone=True)
    elif isinstance(node, MappingNode) and (not path or any(name[: len(path)] == path for name in NAMES)):
        for key, value in node.value:
            _keep_names(value, (*path, *str(key.value).split(".")))


def _as_text(node: Node, alone: bool = False) -> None:
    """Makes every scalar below the node a text; one that stands alone may be null."""
    if isinstance(node, ScalarNode):
        if not (alone and node.tag == NULL):
            node.tag = TEXT
    elif isinstance(node, SequenceNode):
        for item in node.value:
            _as_text(item)
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            _as_text(key)
            _as_text(value)
