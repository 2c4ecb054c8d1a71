"""Continuous values that rounding to a narrow type has made equal, told apart again."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

NARROW = (torch.bfloat16, torch.float16, torch.float32)
NEAR = 8  # steps of a type, within which lie more samples than repeat a value, if it is rounded
FEW = 0.01  # of the values repeat
CHANCE = 4  # samples that may share a value with none near it


def unrounded(samples: Tensor) -> Tensor:
    """Spreads repeated values evenly over the numbers that their narrow type rounds to them.

    This concerns columns that a narrower type than float64 can hold, but for integers, and values
    whose repetitions are rounding: then as many samples have any of the neighboring values of that
    type. Discrete values, zeros behind a ReLU and samples given twice lie apart and stay.

    Args:
        samples: (N, d), float64.

    Returns:
        (N, d), the samples themselves if there are no such values. The noise is always the same for
        the same column, and that of another column independent of it.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> halves = torch.randn(2000, 1, generator=generator).half().double()
        >>> len(halves.unique()), len(unrounded(halves).unique())
        (1795, 2000)
    """
    found = samples
    single = (samples == samples.float().double()).all(0) & (samples != samples.round()).any(0)
    for index in single.nonzero().flatten().tolist():
        column = samples[:, index]
        dtype = next(each for each in NARROW if torch.equal(column, column.to(each).double()))
        noise = _noise(column, torch.finfo(dtype).eps)
        if noise.any():
            found = samples.clone() if found is samples else found
            found[:, index] += noise
    return found


def _noise(column: Tensor, eps: float) -> Tensor:
    """Returns (N,) noise for the values that rounding with that relative step has made equal."""
    values, places, counts = torch.unique(column, return_inverse=True, return_counts=True)
    steps, common = _steps(values, eps)
    if common > steps.max():  # discrete
        return torch.zeros_like(column)
    steps = steps.clamp(min=common)
    up_to = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    first = torch.searchsorted(values, values - NEAR * steps)
    behind = torch.searchsorted(values, values + NEAR * steps, right=True)
    near = up_to[behind] - up_to[first] - counts
    rounded = counts <= CHANCE + near
    repeated = counts * (counts - 1)
    if 4 * repeated[rounded].sum() > (counts * near)[rounded].sum():  # by chance 4 times less
        return torch.zeros_like(column)
    generator = torch.Generator().manual_seed(zlib.crc32(column.cpu().numpy().tobytes()))
    uniform = torch.rand(len(column), generator=generator, dtype=torch.float64) - 0.5
    many = repeated.count_nonzero() > FEW * len(values)  # where single ones would be too regular
    widths = torch.where(rounded & (many | (counts > 1)), steps, 0.0)
    return uniform.to(column.device) * widths[places]


def _steps(values: Tensor, eps: float) -> tuple[Tensor, float]:
    """Returns the distance from each value to the next of its type, and the step that all keep."""
    mantissas, exponents = torch.frexp(values)
    digits = torch.ldexp(mantissas, torch.tensor(53)).long()
    last = torch.ldexp((digits & -digits).double(), exponents - 53)
    steps = torch.ldexp(torch.full_like(values, eps / 2), exponents)
    return steps.where(values != 0, 0), float(last[values != 0].min())
