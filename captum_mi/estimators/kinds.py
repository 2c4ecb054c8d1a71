"""What kind of values a column holds, and uniform noise for those that come in steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch

from captum_mi.estimators._samples import as_samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from captum_mi.estimators._samples import Samples

    Numbers = NDArray[np.float64]

Kind: TypeAlias = Literal["continuous", "count", "label", "mixed"]

FEW_VALUES = 20  # numbers of no more values, each in TIMES rows on average, are labels
TIMES = 10
ATOM = 0.02  # of the rows: a value in more of them has a probability of its own
STRAY = 0.05  # of the rows: so few may repeat an earlier one by rounding alone
FINEST = 1000  # steps to a row: a finer grid is no grid


def kind_of(column: Samples) -> Kind:
    """Tells what kind of values a column holds, from its type and from how its values repeat.

    In this order:

    1. texts, booleans, categories and other objects are labels, and so are numbers of at most 20
       distinct values, each in 10 rows on average;
    2. numbers of which none repeats are continuous;
    3. if some values have more than 2 % of the rows each (zeros, or the ends of a scale) and at
       most 5 % of the remaining rows repeat another, the column is mixed;
    4. if all are multiples of one step from each other, as integers and rounded numbers are, they
       are counts, see :func:`dithered`;
    5. if at most 5 % of the rows repeat another, they are continuous: ties of a float32;
    6. what else repeats is mixed.

    Args:
        column: (N,) or (N, 1): list, array, tensor or column of a data frame, also of pandas's
            nullable types. Dates count as numbers. What is missing or infinite has no say.

    Raises:
        ValueError: if the shape is another, or no value is left.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> rain = rng.exponential(size=500) * (rng.random(500) < 0.6)  # on two days of five none
        >>> columns = [rain, rng.normal(size=500).round(2), rng.normal(size=500), ["a", "b"]]
        >>> [kind_of(column) for column in columns]
        ['mixed', 'count', 'continuous', 'label']
    """
    values = numbers_of(column)
    if values is None:
        return "label"
    values = values[np.isfinite(values)]
    if not len(values):
        raise ValueError("`column` must hold values, got none that is finite")
    distinct, times = np.unique(values, return_counts=True)
    if len(distinct) <= FEW_VALUES and len(values) >= TIMES * len(distinct):
        return "label"
    if len(distinct) == len(values):
        return "continuous"
    rest = times[times <= _rare(values)]
    if len(rest) < len(times) and len(rest) and _share_of_repetitions(rest) <= STRAY:
        return "mixed"
    if grid_step(values) is not None:
        return "count"
    return "continuous" if _share_of_repetitions(times) <= STRAY else "mixed"


def dithered(*variables: Samples, seed: int = 0) -> list[Samples]:
    r"""Adds uniform noise of one step to columns of counts and of rounded numbers.

    A column X of multiples of a step s becomes X + s U with U uniform on [0, 1). Rounding down to a
    multiple undoes it and U is drawn apart from everything, so no mutual information changes, and
    estimators for continuous variables can be asked for it. All other columns stay as they are.

    Args:
        *variables: (N, d) or (N,) each. Give X and Y in one call: each gets noise of its own.
        seed: of the noise.

    Returns:
        One float64 matrix (N, d) for each, a tensor for a tensor, else an array.

    Raises:
        ValueError: if a variable is no matrix of finite numbers with columns that vary.

    Example:
        >>> from captum_mi.estimators import KSG
        >>> rng = np.random.default_rng(0)
        >>> rate = rng.integers(10, size=5000)
        >>> counts = rate + rng.integers(10, size=5000)
        >>> print(KSG().estimate(*dithered(rate, counts)))  # the truth is 0.491
        0.481 ± 0.015 nats
    """
    rng = np.random.default_rng(seed)
    found: list[Samples] = []
    for number, variable in enumerate(variables):
        samples = as_samples(f"variables[{number}]", variable)
        columns = samples.cpu().numpy().T
        noisy = np.stack(
            [
                column + (grid_step(column) or 0.0) * rng.random(len(column))
                if len(np.unique(column)) < len(column)
                else column
                for column in columns
            ],
            axis=1,
        )
        given = isinstance(variable, torch.Tensor)
        found.append(torch.from_numpy(noisy).to(samples.device) if given else noisy)
    return found


def grid_step(values: Numbers) -> float | None:
    """Returns the largest step of which all values are multiples from each other, if any.

    Args:
        values: (N,), finite.

    Returns:
        The step, up to rounding; None for a single value, or if it would be a thousandth of the
        mean gap between N values or less: any numbers lie on so fine a grid.

    Example:
        >>> grid_step(np.array([0.25, 0.75, 1.75, 3.25]))
        0.5
    """
    levels = np.unique(values)
    gaps = np.diff(levels)
    if not len(gaps):
        return None
    extent = float(levels[-1] - levels[0])
    single = bool((levels == levels.astype(np.float32)).all())
    rounding = 0.0  # integers have none
    if (levels != levels.round()).any():
        rounding = 2 * float(np.finfo(np.float32 if single else np.float64).eps * abs(levels).max())
    # Euclid's algorithm for the greatest common divisor, on all gaps at once.
    step = float(gaps.min())
    while step > max(extent / (FINEST * len(values)), 10 * rounding):
        remainders = np.abs(gaps - step * (gaps / step).round())
        left = remainders[remainders > 0.02 * step + rounding]
        if not len(left):
            return extent / round(extent / step)
        step = float(left.min())
    return None


def atoms(values: Numbers) -> NDArray[np.bool_]:
    """Tells which entries have a value that is frequent: in more than 2 % of the rows, and three.

    Args:
        values: (N,), finite.

    Example:
        >>> atoms(np.array([0.0, 0.3, 0.0, 0.0, 0.5, 0.0])).astype(int)
        array([1, 0, 1, 1, 0, 1])
    """
    _, inverse, times = np.unique(values, return_inverse=True, return_counts=True)
    found: NDArray[np.bool_] = times[inverse] > _rare(values)
    return found


def numbers_of(column: Samples) -> Numbers | None:
    """Returns a column as float64, what is missing as NaN; None if its values are no numbers.

    Args:
        column: (N,) or (N, 1), as of :func:`kind_of`.
    """
    import pandas as pd  # takes half a second

    kinds = pd.api.types
    series: Any = column.detach().cpu().numpy() if isinstance(column, torch.Tensor) else column
    shape = np.shape(series)
    if shape not in {shape[:1], (*shape[:1], 1)}:
        raise ValueError(f"`column` must be (N,) or (N, 1), got shape {shape}")
    if len(shape) == 2:
        series = series.iloc[:, 0] if isinstance(series, pd.DataFrame) else np.ravel(series)
    series = pd.Series(series).infer_objects()
    if kinds.is_datetime64_any_dtype(series) or kinds.is_timedelta64_dtype(series):
        series = series.astype("int64").where(series.notna())
    if not kinds.is_numeric_dtype(series) or kinds.is_bool_dtype(series):
        return None
    if kinds.is_complex_dtype(series):
        raise ValueError("`column` must be real, got complex numbers; give real and imaginary part")
    found: Numbers = series.to_numpy(np.float64, na_value=np.nan)
    return found


def _rare(values: Numbers) -> float:
    """Returns how often a value occurs at most that is no atom."""
    return max(ATOM * len(values), 3)


def _share_of_repetitions(times: NDArray[np.int64]) -> float:
    """Returns which share of rows repeats an earlier one, from how often each value occurs."""
    return float(1 - len(times) / times.sum())
