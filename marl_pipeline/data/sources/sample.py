"""The sample that needs no download: daily adjusted closes of 20 US stocks, 1990 to 2022, from skfolio's wheel."""

from __future__ import annotations

import numpy as np
import pandas as pd

from marl_pipeline.data.schema import COLUMNS
from marl_pipeline.errors import UserError


def sp500_sample(frequency: str) -> pd.DataFrame:
    """The canonical bars of the sample: close only, so open, high, low and volume are NaN.

    Raises:
        UserError: another frequency than 1Day.
    """
    if frequency != "1Day":
        raise UserError("data.source sp500_sample holds daily bars only; set data.frequency to 1Day")
    from skfolio.datasets import load_sp500_dataset  # 2 s of imports

    wide: pd.DataFrame = load_sp500_dataset().sort_index(axis=1)
    stamps = pd.DatetimeIndex(wide.index).as_unit("us").tz_localize("UTC")
    frame = pd.DataFrame(
        {
            "symbol": np.repeat(wide.columns.to_numpy(dtype=object), len(wide)),
            "timestamp": pd.DatetimeIndex(np.tile(stamps.tz_localize(None).to_numpy(), wide.shape[1])).tz_localize(
                "UTC"
            ),
            "close": wide.to_numpy(dtype=np.float64).T.ravel(),
        }
    )
    return frame.reindex(columns=list(COLUMNS)).astype({"symbol": "str", **dict.fromkeys(COLUMNS[2:], "float64")})
