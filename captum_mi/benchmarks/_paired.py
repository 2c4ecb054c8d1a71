"""Starts of a path beside each other: averages over the same samples, and their differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

RESAMPLES = 2000


class Average(NamedTuple):
    """A mean or a median over samples, and its standard error."""

    value: float
    error: float


def mean(values: Array) -> Average:
    """Averages the samples."""
    return Average(float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5))


def middle(values: Array) -> Average:
    """Takes the median of the samples; its standard error is that of the bootstrap."""
    drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
    return Average(float(np.median(values)), float(np.median(drawn, axis=1).std(ddof=1)))


def table(
    title: str,
    found: Mapping[str, Array],
    places: Sequence[object],
    *,
    average: Callable[[Array], Average] = mean,
    reference: str | None = None,
    digits: int = 2,
) -> str:
    """Returns averages with their standard errors as text.

    Args:
        title: what is averaged, in which unit.
        found: start of the path -> (samples, places), in the same order for every start.
        places: heads of the columns.
        average: what is taken over the samples, :func:`mean` or :func:`middle`.
        reference: start that the others are compared with, sample by sample: each then gets a
            second line, the average of its differences.
        digits: behind the decimal point.
    """
    second = f"  less {reference}"
    width = max(map(len, [*found, second]))
    lines = [title, " " * width + "".join(f"  {place!s:>14}" for place in places)]

    def line(name: str, values: Array, sign: str = "") -> str:
        averages = [average(column) for column in values.T]
        cells = [f"{one.value:{sign}.{digits}f} ± {one.error:.{digits}f}" for one in averages]
        return f"{name:{width}}" + "".join(f"  {cell:>14}" for cell in cells)

    for name, values in found.items():
        lines.append(line(name, values))
        if reference is not None and reference != name:
            lines.append(line(second, values - found[reference], "+"))
    return "\n".join(lines)
