"""Features of the user's own: functions of past rows in one Python file, each with a declared look-back.

    from marl_pipeline.data.custom import Bars, feature

    @feature(look_back=21)
    def momentum_20(bars: Bars):
        return np.log(bars.close) - np.log(np.roll(bars.close, 20, axis=0))

What is stored for bar `t` is the last row of what the function says of the `look_back` bars up to `t` and of nothing
else, so that it cannot see the future. The same function over the whole history must agree at every bar: one that looks
ahead, or further back than it declares, is refused.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marl_pipeline.data.dataset import FloatArray, Panel, TimeArray
from marl_pipeline.errors import UserError

TOLERANCE = 1e-6
"""How far two computations of one figure may differ by rounding, relative to the figure and its spread."""

MARK = "__marl_feature__"


@dataclass(frozen=True)
class Bars:
    """What a function is given: consecutive bars, the last one being the one to say something of; read-only.

    Attributes:
        symbols: N names.
        timestamps: [L] datetime64[us] in UTC, bar starts.
        open, high, low, close, volume: [L, N] float64, NaN where a symbol has no bar or the source no such column.
            Prices are adjusted as the features see them.
    """

    symbols: tuple[str, ...]
    timestamps: TimeArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray

    @classmethod
    def of(cls, panel: Panel) -> Bars:
        arrays = {name: getattr(panel, name).view() for name in ("open", "high", "low", "close", "volume")}
        stamps = panel.timestamps.view()
        for array in (*arrays.values(), stamps):
            array.setflags(write=False)
        return cls(panel.symbols, stamps, **arrays)

    def rows(self, start: int, stop: int) -> Bars:
        """The bars from `start` to before `stop`."""
        cut = slice(start, stop)
        return Bars(
            self.symbols, self.timestamps[cut], self.open[cut], self.high[cut], self.low[cut], self.close[cut],
            self.volume[cut],
        )  # fmt: skip


Function = Callable[[Bars], FloatArray]


@dataclass(frozen=True)
class CustomFeature:
    """Attributes:
    name: of the function and of the column.
    look_back: bars that it reads, the bar itself included.
    scaled: whether the trailing z-score applies.
    function: [L, N] figures of L bars; what it says of the last row is used.
    origin: the file, for errors.
    """

    name: str
    look_back: int
    scaled: bool
    function: Function
    origin: str

    def compute(self, bars: Bars) -> FloatArray:
        """[T, N], NaN before the look-back is there and where the function gives no finite number.

        Raises:
            UserError: the function fails, gives another shape, looks ahead or further back than it declares.
        """
        total, size = bars.close.shape
        values = np.full((total, size), np.nan)
        for bar in range(self.look_back - 1, total):
            values[bar] = self._call(bars.rows(bar + 1 - self.look_back, bar + 1))[-1]
        if total >= self.look_back:
            self._verify(bars, values)
        values[~np.isfinite(values)] = np.nan
        return values

    def _verify(self, bars: Bars, values: FloatArray) -> None:
        """Compares every bar's figure with what the function says of it when it is given the whole history."""
        ready = slice(self.look_back - 1, None)
        whole = self._call(bars)
        wrong = _differ(values[ready], whole[ready])
        if not wrong.any():
            return
        places = np.argwhere(wrong)
        row, column = places[len(places) // 2]  # not at an edge, where shifted arrays wrap around
        bar = int(row) + self.look_back - 1
        truncated = self._call(bars.rows(0, bar + 1))
        where = f"{bars.symbols[column]} at {bars.timestamps[bar].astype('datetime64[m]')}"
        if _differ(truncated[-1:], whole[bar : bar + 1])[0, column]:
            raise UserError(
                f"{self.origin}: feature {self.name} looks ahead: of {where} it says {truncated[-1, column]:.6g} when "
                f"the bars end there and {whole[bar, column]:.6g} when later ones follow"
            )
        raise UserError(
            f"{self.origin}: feature {self.name} reads further back than its look_back of {self.look_back}: of {where} "
            f"it says {values[bar, column]:.6g} from these bars and {whole[bar, column]:.6g} from all before; raise it"
        )

    def _call(self, bars: Bars) -> FloatArray:
        try:
            with np.errstate(all="ignore"):
                values = np.asarray(self.function(bars), dtype=np.float64)
        except Exception as error:  # whatever the user's function raises is the user's to know
            raise UserError(f"{self.origin}: feature {self.name}: {_said(error, self.origin)}") from None
        if values.shape != bars.close.shape:
            raise UserError(
                f"{self.origin}: feature {self.name} gives an array of shape {values.shape} for bars of shape "
                f"{bars.close.shape}; give one figure for each bar and symbol"
            )
        return values


def feature(*, look_back: int, scaled: bool = True) -> Callable[[Function], Function]:
    """Makes a function of `Bars` a feature of the data set, under the function's name.

    Args:
        look_back: bars that it reads, the bar itself included: 21 for a change over 20 bars.
        scaled: whether it is z-scored over `build_features.scale_window` like the others; False for what has unit size.

    Raises:
        UserError: the look-back is not a whole number from 1 up.
    """
    if not isinstance(look_back, int) or isinstance(look_back, bool) or look_back < 1:
        raise UserError(f"@feature(look_back={look_back!r}): give the number of bars that the feature reads, 1 or more")

    def mark(function: Function) -> Function:
        setattr(function, MARK, (look_back, scaled))
        return function

    return mark


def load_custom(path: Path, taken: Sequence[str]) -> tuple[CustomFeature, ...]:
    """The features of a file, in the order in which they stand there. The file must be all of it: what it imports
    besides installed packages is not tracked.

    Args:
        taken: names of features that exist.

    Raises:
        UserError: there is no such file, it fails, it marks no feature, or a name is taken.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    module_name = f"marl_custom_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: not a Python file; name one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.modules[module_name] = module  # dataclasses and pickling look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file raises is the user's to know
        raise UserError(f"{path}: {_said(error, str(path))}") from None
    finally:
        sys.dont_write_bytecode = writes
        sys.modules.pop(module_name, None)
    found = []
    for name, value in vars(module).items():
        if callable(value) and hasattr(value, MARK):
            look_back, scaled = getattr(value, MARK)
            found.append(CustomFeature(name, look_back, scaled, value, str(path)))
    if not found:
        raise UserError(f"{path}: no function there is marked with @feature(look_back=...)")
    for one in found:
        if one.name in taken:
            raise UserError(f"{path}: feature {one.name} exists already; give the function another name")
    return tuple(found)


def _differ(left: FloatArray, right: FloatArray) -> np.ndarray:
    """[K, N] where two computations of the same figures are not the same but for rounding."""
    known = np.isfinite(left) & np.isfinite(right)
    size = np.abs(np.where(known, left, 0.0))
    spread = np.where(known, left, np.nan)
    scale = np.nanstd(spread) if known.any() else 0.0
    close = np.abs(np.where(known, left - right, 0.0)) <= TOLERANCE * (size + scale)
    return np.where(known, ~close, np.isfinite(left) != np.isfinite(right))


def _said(error: Exception, origin: str) -> str:
    """What an error says, in one line, with the line of the user's file where it was raised."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == origin]
    if isinstance(error, SyntaxError) and error.lineno:
        lines = [error.lineno]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" + (f" (line {lines[-1]})" if lines else "")
