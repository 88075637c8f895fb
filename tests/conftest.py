"""Modules that several folders of tests share, and how long slow tests may take."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "flows"))

pytest_plugins = ["tests.learning"]

SLOW_TIMEOUT = 1500
"""Seconds: whole runs take minutes, and several times that on a machine that does other things too."""


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
        item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT))
