"""The paths of layers in the information plane: from rows, with intervals, smoothed if asked."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.signal import savgol_filter

from captum_mi._checks import brief

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

ORDER = 2
"""Of the polynomials that smooth a path."""

NEEDED = (
    "epoch", "loss", "layer", "of_input", "of_input_error", "of_target", "of_target_error",
)  # fmt: skip


@dataclass(frozen=True)
class Quantity:
    """One of a layer's two informations over the epochs, nats; NaN where an estimate failed.

    Attributes:
        values: (T,), as estimated.
        margins: (T,), half the widths of their intervals.
        line: (T,), what is drawn: the values, or the smoothed ones.
    """

    values: Numbers
    margins: Numbers
    line: Numbers


@dataclass(frozen=True)
class LayerPath:
    """A layer's path, in the order of the epochs.

    Attributes:
        layer: dotted name.
        epochs: (T,).
        losses: (T,).
        of_input: I(X; L).
        of_target: I(L; Y).
    """

    layer: str
    epochs: Numbers
    losses: Numbers
    of_input: Quantity
    of_target: Quantity

    @property
    def known(self) -> NDArray[np.bool_]:
        """(T,) where both could be estimated."""
        return np.isfinite(self.of_input.values) & np.isfinite(self.of_target.values)

    @property
    def steps(self) -> Numbers:
        """(T - 1,) change of the loss per epoch between a record and the next."""
        return np.diff(self.losses) / np.diff(self.epochs)


def paths_of(
    rows: Iterable[object] | pd.DataFrame, *, smooth: int | None, level: float
) -> list[LayerPath]:
    """Returns the path of each layer, in the order in which the layers come.

    Args:
        rows: records with the fields of ``infoplane.Row``, or a table with such columns.
        smooth: records in the window that smooths the line; None leaves it as it is.
        level: of the intervals.

    Raises:
        ValueError: if there are no rows, a field is missing, a layer has two rows of an epoch or
            too few for the window, or ``level`` is no probability.
    """
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie between 0 and 1, got {level}")
    if smooth is not None and smooth <= ORDER:
        raise ValueError(f"`smooth` must be more than {ORDER} records, or None, got {smooth}")
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if not len(table):
        raise ValueError("`rows` must hold a record at least, got none")
    missing = [name for name in NEEDED if name not in table]
    if missing:
        raise ValueError(f"`rows` must have the fields of a plane's rows, it lacks {missing[0]!r}")
    quantile = NormalDist().inv_cdf((1 + level) / 2)
    paths = []
    for layer, own in table.groupby("layer", sort=False):
        ordered = own.sort_values("epoch")
        epochs = ordered["epoch"].to_numpy(float)
        if len(set(epochs)) < len(epochs):
            raise ValueError(f"`rows` must hold one row of layer {brief(layer)} for each epoch")
        quantities = {}
        for name in ("of_input", "of_target"):
            values = ordered[name].to_numpy(float)
            margins = quantile * ordered[f"{name}_error"].to_numpy(float)
            quantities[name] = Quantity(values, margins, _smoothed(values, smooth, str(layer)))
        paths.append(LayerPath(str(layer), epochs, ordered["loss"].to_numpy(float), **quantities))
    return paths


def _smoothed(values: Numbers, window: int | None, layer: str) -> Numbers:
    """Smooths what is known; what is not stays NaN."""
    if window is None:
        return values
    known = np.isfinite(values)
    if known.sum() < window:
        raise ValueError(
            f"`smooth` must be at most {known.sum()}, the records of layer {layer!r}, got {window}"
        )
    line = values.copy()
    line[known] = savgol_filter(values[known], window, ORDER)
    return line
