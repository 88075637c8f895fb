from __future__ import annotations

import numpy as np

from tests.data.market_panels import dataset_of, random_panel


def test_a_close_only_panel_says_so() -> None:
    assert random_panel(0).has_range
    assert random_panel(0).has_volume
    close_only = random_panel(0, range_and_volume=False)
    assert not close_only.has_range
    assert not close_only.has_volume


def test_a_dataset_counts_its_bars() -> None:
    assert dataset_of(random_panel(0, bars=37)).bars == 37
    assert np.isfinite(dataset_of(random_panel(0)).panel.close).all()
