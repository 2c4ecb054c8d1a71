"""Fitting and compression: where a layer's information about the input turns."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from captum_mi.infoplane.rows import Row


class Phase(NamedTuple):
    """A stretch of training in which I(X; L) goes one way.

    Attributes:
        layer: dotted name.
        kind: "fitting", it rises, or "compression", it falls.
        first: epoch of the extreme before.
        last: epoch of the extreme behind.
        change: nats, signed.
    """

    layer: str
    kind: str
    first: int
    last: int
    change: float


def phases(rows: Sequence[Row], level: float = 0.95) -> list[Phase]:
    """Finds the phases of each layer: movements that are larger than their interval.

    A path turns where it comes back from its extreme by more than the interval of the difference of
    the two estimates, whose errors are taken for independent; what is smaller is no phase. The
    intervals hold for all pairs of a path's n epochs together (Bonferroni), for the extremes of
    many estimates lie far apart by chance.

    Args:
        rows: of a plane; estimates of NaN are left out.
        level: with which a path that does not move has no phase, between 0 and 1.

    Returns:
        the phases, layer by layer, in the order of the epochs; none of a path that only wavers.

    Raises:
        ValueError: if ``level`` is out of range.

    Example:
        >>> from captum_mi.infoplane import Row
        >>> path = [0.0, 1.0, 2.0, 1.0]
        >>> rows = [Row(i, 0.0, "a", x, 0.1, 0.0, 0.0, 1.0, 9) for i, x in enumerate(path)]
        >>> [(phase.kind, phase.first, phase.last) for phase in phases(rows)]
        [('fitting', 0, 2), ('compression', 2, 3)]
    """
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie between 0 and 1, got {level}")
    known = [row for row in rows if not math.isnan(row.of_input)]
    layers = dict.fromkeys(row.layer for row in known)
    found = []
    for layer in layers:
        path = sorted((row for row in known if row.layer == layer), key=lambda row: row.epoch)
        pairs = max(math.comb(len(path), 2), 1)
        quantile = -NormalDist().inv_cdf((1 - level) / 2 / pairs)
        turns = _turning_points(path, quantile)
        for start, end in itertools.pairwise(turns):
            change = end.of_input - start.of_input
            kind = "fitting" if change > 0 else "compression"
            found.append(Phase(layer, kind, start.epoch, end.epoch, change))
    return found


def _differs(one: Row, other: Row, quantile: float) -> bool:
    error = math.hypot(one.of_input_error, other.of_input_error)
    return abs(one.of_input - other.of_input) > quantile * error


def _turning_points(path: Sequence[Row], quantile: float) -> list[Row]:
    """Returns the first extreme, those at which the path turns, and the last."""
    low = high = path[0]
    turns: list[Row] = []
    rising: bool | None = None
    for row in path[1:]:
        if row.of_input > high.of_input:
            high = row
        if row.of_input < low.of_input:
            low = row
        if rising is not True and _differs(row, low, quantile) and row.of_input > low.of_input:
            turns.append(low)
            rising, high = True, row
        elif rising is not False and _differs(row, high, quantile) and row.of_input < high.of_input:
            turns.append(high)
            rising, low = False, row
    if rising is not None:
        turns.append(high if rising else low)
    return turns
