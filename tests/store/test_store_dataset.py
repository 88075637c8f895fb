from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from marl_pipeline.data.dataset import Dataset, Panel
from marl_pipeline.errors import UserError
from marl_pipeline.store.dataset import load_dataset, save_dataset
from tests.data.market_panels import dataset_of, random_panel


@pytest.fixture
def dataset() -> Dataset:
    return dataset_of(random_panel(1, gaps=0.1), np.array([0, 1, 1, 2]))


@pytest.mark.parametrize("mmap", [False, True])
def test_a_dataset_comes_back_as_it_was_saved(dataset: Dataset, tmp_path: Path, mmap: bool) -> None:
    save_dataset(tmp_path / "set", dataset)
    loaded = load_dataset(tmp_path / "set", mmap=mmap)
    for kind, before, after in ((Dataset, dataset, loaded), (Panel, dataset.panel, loaded.panel)):
        for field in fields(kind):
            old, new = getattr(before, field.name), getattr(after, field.name)
            if isinstance(old, np.ndarray):
                assert (old.dtype, old.shape, old.tobytes()) == (new.dtype, new.shape, new.tobytes()), field.name
            elif field.name != "panel":
                assert old == new, field.name


def test_the_same_dataset_gives_the_same_bytes(dataset: Dataset, tmp_path: Path) -> None:
    save_dataset(tmp_path / "a", dataset)
    save_dataset(tmp_path / "b", dataset)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_missing_dataset_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"meta\.json: no such file; run the stage build_features first"):
        load_dataset(tmp_path)
