"""Mutual information column by column: scores of features, and a matrix of a whole table."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from captum_mi.estimators.discrete import PlugIn, value_codes
from captum_mi.estimators.independence import DEFAULT, permutation_test, workers
from captum_mi.estimators.kinds import Kind, kind_of, numbers_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pandas import DataFrame

    from captum_mi.estimators._samples import Samples
    from captum_mi.estimators.base import MutualInformationEstimator


def mutual_info(
    X: Samples,  # noqa: N803 - scikit-learn's name
    y: Samples,
    *,
    discrete_target: bool | None = None,
    estimator: MutualInformationEstimator = DEFAULT,
    n_jobs: int = 1,
) -> NDArray[np.float64]:
    """Estimates the mutual information of each column with a target, as scikit-learn's scores do.

    It stands where ``mutual_info_classif`` and ``mutual_info_regression`` do, as in
    ``SelectKBest(mutual_info)``; :func:`column_information` gives standard errors, too.

    Args:
        X: (N, d), array, tensor or data frame.
        y: (N,), the target: labels or numbers.
        discrete_target: whether ``y`` is a label; None decides by :func:`kind_of`.
        estimator: of what is not two labels, see :func:`column_information`.
        n_jobs: how many threads; -1 for all cores.

    Returns:
        (d,) nats; nothing is clipped, so a column that tells nothing may be below 0.

    Raises:
        ValueError: if the lengths differ, or as the estimator does.

    Example:
        >>> from sklearn.feature_selection import SelectKBest
        >>> rng = np.random.default_rng(0)
        >>> X = rng.standard_normal((300, 4))
        >>> y = X[:, 2] > rng.standard_normal(300)
        >>> SelectKBest(mutual_info, k=1).fit(X, y).get_support()
        array([False, False,  True, False])
    """
    table = column_information(
        X, y, discrete_target=discrete_target, estimator=estimator, n_jobs=n_jobs
    )
    found: NDArray[np.float64] = table["value"].to_numpy()
    return found


def column_information(
    X: Samples,  # noqa: N803 - scikit-learn's name
    y: Samples,
    *,
    discrete_target: bool | None = None,
    estimator: MutualInformationEstimator = DEFAULT,
    permutations: int = 0,
    seed: int = 0,
    n_jobs: int = 1,
) -> DataFrame:
    """Estimates the mutual information of each column with a target, with standard errors.

    The kinds of columns (:func:`kind_of`) decide: :class:`PlugIn` takes two labels, the estimator's
    ``estimate_discrete`` a label and numbers, ``estimate`` numbers. Rows in which the column or the
    target is missing are left out.

    Args:
        X: (N, d), array, tensor or data frame.
        y: (N,), the target: labels or numbers.
        discrete_target: whether ``y`` is a label; None decides by :func:`kind_of`.
        estimator: of what is not two labels.
        permutations: of a :func:`permutation_test` of each column; 0 makes none.
        seed: of the permutations.
        n_jobs: how many threads; -1 for all cores.

    Returns:
        One row for each column: ``kind``, ``value`` and ``std_error`` in nats, ``n_samples`` and,
        with permutations, ``p_value``.

    Raises:
        ValueError: if the lengths differ, or as the estimator does.

    Example:
        >>> import pandas as pd
        >>> rng = np.random.default_rng(0)
        >>> pet = rng.choice(["cat", "dog"], 400)
        >>> weight = rng.normal(np.where(pet == "cat", 4, 20), 4)
        >>> color = rng.choice(["black", "white"], 400)
        >>> table = pd.DataFrame({"weight": weight, "color": color})
        >>> print(column_information(table, pet, permutations=19).round(3))
                      kind  value  std_error  n_samples  p_value
        weight  continuous  0.626      0.019        400     0.05
        color        label -0.001      0.002        400     1.00
    """
    import pandas as pd

    columns = _columns("X", X)
    target = _column("`y`", y, discrete_target)
    compare = _Comparison(estimator, permutations, seed, n_jobs)
    found = _parallel(compare, [(column, target) for column in columns.values()])
    kinds = [column.kind for column in columns.values()]
    table = pd.DataFrame([each._asdict() for each in found], index=list(columns))
    table.insert(0, "kind", kinds)
    return table if permutations else table.drop(columns="p_value")


@dataclass(frozen=True)
class InformationMatrix:
    """The mutual information of each pair of columns of a table, as symmetric data frames.

    Attributes:
        values: (d, d) nats; NaN on the diagonal.
        std_errors: (d, d) nats, the same.
        p_values: (d, d), of permutation tests for each pair alone; None if there were none.
        kinds: what kind of values each column holds.
    """

    values: DataFrame
    std_errors: DataFrame
    p_values: DataFrame | None
    kinds: dict[Any, Kind]


def mutual_info_matrix(
    table: Samples,
    *,
    estimator: MutualInformationEstimator = DEFAULT,
    permutations: int = 0,
    seed: int = 0,
    n_jobs: int = 1,
) -> InformationMatrix:
    """Estimates the mutual information of each pair of columns, each by its kinds of values.

    Args:
        table: (N, d), data frame, array or tensor; missing values as in :func:`column_information`.
        estimator: of what is not two labels.
        permutations: of a :func:`permutation_test` of each pair; 0 makes none.
        seed: of the permutations.
        n_jobs: how many threads; -1 for all cores.

    Raises:
        ValueError: if there are fewer than two columns, or as the estimator does.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> a = rng.standard_normal(500)
        >>> found = mutual_info_matrix(np.stack([a, -a + rng.standard_normal(500), a > 1], axis=1))
        >>> print(found.values.round(2))
              0     1     2
        0   NaN  0.39  0.45
        1  0.39   NaN  0.16
        2  0.45  0.16   NaN
    """
    import pandas as pd

    columns = _columns("table", table)
    if len(columns) < 2:
        raise ValueError(f"`table` must have at least 2 columns, got {len(columns)}")
    compare = _Comparison(estimator, permutations, seed, n_jobs)
    found = _parallel(compare, list(combinations(columns.values(), 2)))
    names = list(columns)
    rows, others = np.triu_indices(len(names), 1)

    def matrix(field: str) -> DataFrame:
        cells = np.full((len(names), len(names)), np.nan)
        cells[rows, others] = cells[others, rows] = [getattr(each, field) for each in found]
        return pd.DataFrame(cells, index=names, columns=names)

    return InformationMatrix(
        matrix("value"),
        matrix("std_error"),
        matrix("p_value") if permutations else None,
        {name: column.kind for name, column in columns.items()},
    )


class _Column(NamedTuple):
    """A column as numbers, or as codes of its labels, NaN where it is missing."""

    name: str
    values: NDArray[np.float64]
    kind: Kind


class _Compared(NamedTuple):
    value: float
    std_error: float
    n_samples: int
    p_value: float


@dataclass(frozen=True)
class _Comparison:
    """Estimates between two columns, by their kinds."""

    estimator: MutualInformationEstimator
    permutations: int
    seed: int
    n_jobs: int  # threads of a permutation test

    def __call__(self, pair: tuple[_Column, _Column]) -> _Compared:
        first, second = sorted(pair, key=lambda column: column.kind == "label")
        if len(first.values) != len(second.values):
            raise ValueError(
                f"{pair[0].name} and {pair[1].name} must have the same number of samples, got"
                f" {len(pair[0].values)} and {len(pair[1].values)}"
            )
        there = ~np.isnan(first.values) & ~np.isnan(second.values)
        x, y = first.values[there], second.values[there]
        estimator = PlugIn() if first.kind == "label" else self.estimator
        discrete = second.kind == "label"
        p_value = np.nan
        if self.permutations:
            test = permutation_test(
                x,
                y,
                estimator=estimator,
                permutations=self.permutations,
                seed=self.seed,
                discrete=discrete,
                n_jobs=self.n_jobs,
                show_progress=False,
            )
            found, p_value = test.statistic, test.p_value
        else:
            found = (estimator.estimate_discrete if discrete else estimator.estimate)(x, y)
        return _Compared(found.value, found.std_error, found.n_samples, p_value)


def _parallel(compare: _Comparison, pairs: Sequence[tuple[_Column, _Column]]) -> list[_Compared]:
    """Compares several pairs at a time, or one whose permutations share the threads."""
    with ThreadPoolExecutor(1 if compare.permutations else workers(compare.n_jobs)) as pool:
        found = pool.map(compare, pairs)
        return list(tqdm(found, "mutual information", len(pairs), leave=False, delay=2))


def _columns(name: str, table: Samples) -> dict[Any, _Column]:
    """Returns the columns of a table by their names, or by their numbers."""
    import pandas as pd

    cells: Any = table.detach().cpu().numpy() if isinstance(table, torch.Tensor) else table
    if np.ndim(cells) != 2:
        raise ValueError(f"`{name}` must be (N, d), got shape {np.shape(cells)}")
    frame = pd.DataFrame(cells)
    if not frame.columns.is_unique:
        raise ValueError(f"the columns of `{name}` must have different names; rename them")
    return {key: _column(f"column {key!r} of `{name}`", frame[key]) for key in frame.columns}


def _column(name: str, values: Samples, discrete: bool | None = None) -> _Column:
    """Returns a column by its kind; if ``discrete``, as labels, and if not, as numbers."""
    import pandas as pd

    kind: Kind = "label" if discrete else kind_of(values)
    numbers = None if discrete else numbers_of(values)
    if numbers is not None and (kind != "label" or discrete is False):
        return _Column(name, numbers, "count" if kind == "label" else kind)
    if discrete is False:
        raise ValueError(f"{name} must hold numbers for `discrete_target=False`, got labels")
    cells: Any = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
    series = pd.Series(np.ravel(cells) if not isinstance(cells, pd.Series) else cells)
    there = series.notna().to_numpy()
    codes = np.full(len(series), np.nan)
    codes[there] = value_codes(name, series[there])
    return _Column(name, codes, "label")
