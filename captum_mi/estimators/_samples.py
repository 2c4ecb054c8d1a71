"""Samples as float64 matrices: what every estimator checks before it computes, and whitening."""

from __future__ import annotations

import math
import warnings
from numbers import Real
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from captum_mi.estimators._rounding import unrounded

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import ArrayLike
    from torch import Tensor

    Samples: TypeAlias = ArrayLike | Tensor


NOISE_SEED = 1_894_375_621  # of jitter; unlike any that samples may have been drawn with
FEW = 0.1  # distinct values of a column, or repetitions of one, as a share of the samples


def as_samples(name: str, value: Samples) -> Tensor:
    """Returns ``value`` as (N, d) float64, on its device if it is a tensor.

    Values that rounding to a narrower type has made equal are told apart, see :func:`unrounded`.

    Args:
        name: the argument, for the wording of errors.
        value: (N, d) or (N,), numbers: an array, a tensor or a data frame of any numeric types.

    Raises:
        ValueError: on another number of axes, fewer than two samples, NaN or infinite entries, or
            columns that are constant.

    Example:
        >>> as_samples("x", [1, 2, 4]).shape
        torch.Size([3, 1])
    """
    samples = as_real(name, value).to(torch.float64)
    if samples.ndim == 1:
        samples = samples[:, None]
    if samples.ndim != 2 or samples.shape[1] == 0:
        raise ValueError(
            f"`{name}` must be (N, d) or (N,), got shape {tuple(samples.shape)}; flatten each"
        )
    if len(samples) < 2:
        raise ValueError(f"`{name}` must hold at least 2 samples, got {len(samples)}")
    check_finite(name, samples)
    check_varies(name, samples)
    return unrounded(samples)


def as_real(name: str, value: Samples) -> Tensor:
    """Returns real numbers as a tensor without gradient: a tensor as it is, an array as float64."""
    samples = value.detach() if isinstance(value, torch.Tensor) else _from_array(name, value)
    if samples.is_complex():
        raise ValueError(
            f"`{name}` must be real, got {samples.dtype}; give real and imaginary part"
        )
    return samples


def _from_array(name: str, value: ArrayLike) -> Tensor:
    """Returns numbers as a float64 (or complex) tensor."""
    if np.ma.is_masked(value):
        raise ValueError(f"`{name}` must not have masked entries; drop such rows")
    array = np.asarray(value)
    if array.dtype.kind == "O":  # columns of several types, or with missing entries
        entries = array.ravel().tolist()
        others = [each for each in entries if not isinstance(each, (Real, np.bool_))]
        unknown = [each for each in others if not is_missing(each)]
        if unknown:
            array = np.array(unknown[:1])
        else:
            numbers = [math.nan if is_missing(each) else float(each) for each in entries]
            array = np.reshape(numbers, array.shape)
    if array.dtype.kind in "SU":
        raise ValueError(
            f"`{name}` must hold numbers, got texts; use `estimate_discrete` with texts as `labels`"
        )
    if array.dtype.kind not in "biufc":
        raise ValueError(f"`{name}` must hold numbers, got an array of {array.dtype}")
    dtype = np.complex128 if array.dtype.kind == "c" else np.float64
    return torch.from_numpy(np.array(array, dtype=dtype))


def is_missing(entry: object) -> bool:
    """Tells whether an entry is None, NaN, NaT or pandas' NA, which equals nothing."""
    same = entry == entry
    return entry is None or not isinstance(same, (bool, np.bool_)) or not same


def check_finite(name: str, samples: Tensor) -> None:
    """Raises a ValueError that counts the rows of ``samples`` (N, ...) with NaN or infinity."""
    broken = ~samples.isfinite().flatten(1).all(dim=1)
    if broken.any():
        raise ValueError(
            f"`{name}` must be finite, got NaN or infinity in {int(broken.sum())} of {len(samples)}"
            f" rows, the first is row {int(broken.nonzero()[0, 0])}; drop them"
        )


def check_varies(name: str, samples: Tensor) -> None:
    """Raises a ValueError that lists the constant columns of ``samples`` (N, d), if any."""
    constant = (samples == samples[:1]).all(dim=0).nonzero().flatten().tolist()
    if constant:
        raise ValueError(f"`{name}` has constant columns, {_listed(constant)}; drop them")


def check_least(name: str, samples: Tensor, least: int, estimator: object) -> None:
    """Raises a ValueError if ``samples`` (N, d) are fewer than ``estimator`` can do with."""
    if len(samples) < least:
        remedy = "give more"
        if hasattr(estimator, "k"):
            left_open = estimator.k is None  # then it follows the dimensions
            also = ", or compress to fewer dimensions with `PCA`" if left_open else ""
            remedy += f", or choose a smaller `k`{also}"
        raise ValueError(
            f"`{name}` must hold at least {least} samples for {estimator!r}, got {len(samples)};"
            f" {remedy}"
        )


def check_jitter(value: float) -> float:
    """Returns ``value`` if it is a finite number of at least zero."""
    if not 0 <= value < math.inf:
        raise ValueError(f"`jitter` must be at least 0 and finite, got {value}")
    return value


def as_paired_samples(x: Samples, y: Samples) -> tuple[Tensor, Tensor]:
    """Returns ``x`` (N, d_x) and ``y`` (N, d_y) as float64 on the device of ``x``.

    Raises:
        ValueError: as :func:`as_samples`, or if the lengths differ.
    """
    first, second = as_samples("x", x), as_samples("y", y)
    if len(first) != len(second):
        raise ValueError(
            f"`x` and `y` must have the same number of samples, got {len(first)} and {len(second)}"
        )
    return first, second.to(first.device)


def label_rows(labels: Samples, n_samples: int) -> dict[Hashable, Tensor]:
    """Returns the row numbers of each label, sorted by label.

    Args:
        labels: (N,) or (N, 1), integers, strings or anything that sorts.
        n_samples: N, the number of samples the labels belong to.

    Raises:
        ValueError: if the shape is another or a label is NaN.

    Example:
        >>> label_rows(["cat", "dog", "cat"], 3)
        {'cat': tensor([0, 2]), 'dog': tensor([1])}
    """
    array = (
        labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    )
    if array.shape not in {(n_samples,), (n_samples, 1)}:
        raise ValueError(
            f"`labels` must be ({n_samples},), one for each sample of `x`, got shape {array.shape}"
        )
    missing = sum(map(is_missing, array.ravel().tolist()))
    if missing:
        raise ValueError(f"`labels` must not be missing, got {missing} NaN or None")
    try:
        values, inverse = np.unique(array.ravel(), return_inverse=True)
    except TypeError as error:
        raise ValueError(f"`labels` must be of one kind that sorts ({error})") from error
    return {
        value: torch.from_numpy(np.flatnonzero(inverse == index))
        for index, value in enumerate(values.tolist())
    }


def label_entropy(rows: dict[Hashable, Tensor]) -> float:
    """Returns the entropy, nats, of labels with these row numbers, as frequent as they are."""
    counts = torch.tensor([len(members) for members in rows.values()], dtype=torch.float64)
    shares = counts / counts.sum()
    return float(-(shares * shares.log()).sum())


def jittered(samples: Tensor, scale: float) -> Tensor:
    """Adds normal noise of ``scale`` standard deviations of each column, always the same noise.

    Args:
        samples: (N, d).
        scale: 0 returns the samples themselves.
    """
    if scale == 0:
        return samples
    standard, deviations = standardized(samples)  # far from zero noise would be rounded away
    generator = torch.Generator().manual_seed(NOISE_SEED)
    noise = torch.randn(samples.shape, generator=generator, dtype=torch.float64)
    return (standard + scale * noise.to(samples.device)) * deviations


def warn_if_tied(name: str, samples: Tensor, scale: float) -> None:
    """Warns of ties, in whole samples or in a column, that spoil entropies despite the jitter.

    A jitter far below the values' step breaks them, but entropies fall by its logarithm.
    """
    tied = [column for column in _tied_columns(samples) if scale < _step(samples[:, [column]]) / 10]
    if tied and samples.shape[1] > 1:
        warnings.warn(
            f"`{name}` has columns of few or often repeated values, {_listed(tied)}, which have no"
            " density: entropies, and what is made of them, are far off. Take"
            " `MutualInformation()`, use `estimate_discrete` with a discrete variable as `labels`,"
            " or spread counts and rounded values over their steps, as dithered(x, y) does",
            stacklevel=3,
        )
    ties = n_duplicates(samples) if scale else 0
    if ties and scale < _step(samples) / 10:
        warnings.warn(
            f"`{name}` has {ties} samples that repeat others; where ties differ between x, y and"
            " (x, y), `jitter` adds d log(jitter) for each, far below the truth. Take"
            " `MutualInformation()`, use `estimate_discrete` with a discrete variable as `labels`,"
            " or spread counts and rounded values over their steps, as dithered(x, y) does",
            stacklevel=3,
        )


def _step(samples: Tensor) -> float:
    """Returns the least median gap of neighboring values over the columns, in deviations."""
    columns = standardized(samples)[0].unbind(dim=1)
    return min(float(torch.unique(column).diff().median()) for column in columns)


def _tied_columns(samples: Tensor) -> list[int]:
    """Returns columns with few distinct values, or with one value in more than a tenth of rows."""
    n_samples = len(samples)
    ordered = samples.sort(dim=0).values
    distinct = (ordered[1:] != ordered[:-1]).sum(dim=0) + 1
    run = max(int(FEW * n_samples), 2)
    repeated = (ordered[run:] == ordered[:-run]).any(dim=0)
    return ((distinct < FEW * n_samples) | repeated).nonzero().flatten().tolist()


def n_duplicates(samples: Tensor) -> int:
    """Counts the samples (N, d) that repeat an earlier one."""
    return len(samples) - len(np.unique(samples.cpu().numpy(), axis=0))


def standardized(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Returns columns (N, d) of mean 0 and standard deviation 1, and their deviations (d,).

    Values may be as large or as small as float64 holds: no square of them is taken.
    """
    _, exponents = torch.frexp(samples.abs().amax(dim=0))
    units = torch.ldexp(torch.ones_like(samples[0]), exponents - 1)
    near_one = samples / units
    centered = near_one - near_one.mean(dim=0)
    deviations = centered.std(dim=0)
    return centered / deviations, deviations * units


def whitened(name: str, samples: Tensor) -> tuple[Tensor, float]:
    r"""Maps samples linearly to covariance I.

    Distances after it do not depend on which invertible linear map came before it. It goes by the
    singular values of the standardized columns, which resolve correlations that the eigenvalues of
    the covariance lose to rounding.

    Args:
        name: the argument, for the wording of errors.
        samples: (N, d).

    Returns:
        The whitened samples (N, d), mean 0, and :math:`\tfrac12 \log\det C` in nats, which the
        entropy of the whitened samples lacks.

    Raises:
        ValueError: if the covariance C is degenerate to the precision of the samples.

    Example:
        >>> white, half_log_det = whitened("x", 3 * torch.randn(100, 2, dtype=torch.float64))
        >>> torch.allclose(white.T.cov(), torch.eye(2, dtype=torch.float64))
        True
    """
    n_samples, dim = samples.shape
    if n_samples <= dim:
        raise ValueError(
            f"the covariance of `{name}` is degenerate: {n_samples} samples of {dim} columns; give"
            " more samples, or compress to fewer columns with `PCA`"
        )
    standard, scale = standardized(samples)
    triangle = torch.linalg.qr(standard, mode="r").R
    _, singular, axes = torch.linalg.svd(triangle)
    singular = singular / math.sqrt(n_samples - 1)
    # The samples are known to the rounding of their type, relative to each column's spread.
    shares = (samples == samples.float().double()).double().mean(0)  # the rest is told apart
    single = bool(((shares > 0.5) & (samples != samples.round()).any(0)).any())
    rounding = torch.finfo(torch.float32 if single else torch.float64).eps
    spread = float((1 + (samples / scale).mean(dim=0) ** 2).sqrt().max())
    rank = int((singular > 10 * dim * rounding * spread * singular[0]).sum())
    if rank == 0:
        raise ValueError(
            f"the covariance of `{name}` is degenerate: its columns vary by no more than the"
            " rounding of their values; subtract what is common to them before they are rounded"
        )
    if rank < dim:
        raise ValueError(
            f"the covariance of `{name}` is degenerate: its {dim} columns have rank {rank}; drop"
            f" columns that the others determine, or compress to {rank} or fewer with `PCA`"
        )
    return standard @ (axes.T / singular), float(scale.log().sum() + singular.log().sum())


def _listed(numbers: list[int], shown: int = 8) -> str:
    text = ", ".join(map(str, numbers[:shown]))
    return text if len(numbers) <= shown else f"{text} and {len(numbers) - shown} more"
