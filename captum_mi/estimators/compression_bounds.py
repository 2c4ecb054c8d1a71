r"""What compression and noise can do to mutual information: bounds, in nats.

Throughout, Y is the other variable and Z is noise that is added to X, such as the noise that makes
a layer stochastic. All bounds need Z to be independent of X and Y *together*. That holds when Y is
the label or the input's class. It does not hold when Y is computed from X + Z, as a later layer is:
then Y depends on Z, and the gap of a compression can exceed its bound many times. Every function
that needs the condition therefore asks for it by name.

Source: Butakov et al., "Information bottleneck analysis of deep neural networks via lossy
compression", ICLR 2024, section 3 and appendices B and C.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from captum_mi._checks import check_positive_number

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

SYMMETRY = 1e-8  # relative


def information_range(
    code_information: float,
    *,
    signal_is_recoverable: bool,
    noise_is_independent: bool,
    noise_information: float = math.inf,
) -> tuple[float, float]:
    r"""Returns what I(X; Y) can be, given the information of a code f(X, Z) of X and noise Z.

    A code has no more information than X and Z together, and no less than X if X can be computed
    from it:

    .. math:: I(X;Y) \le I(f(X,Z);Y) \le I(X,Z;Y) = I(X;Y) + I(Z;Y|X)

    Independent noise has :math:`I(Z;Y|X) = 0`, so that a code from which X can be computed has
    exactly the information of X (Statement 3 and Corollary 2). An autoencoder that denoises is such
    a code.

    Args:
        code_information: I(f(X, Z); Y), nats.
        signal_is_recoverable: whether some function of the code is X; else there is no upper limit.
        noise_is_independent: whether Z is independent of (X, Y).
        noise_information: I(Z; Y | X), nats, where the noise is not independent.

    Returns:
        the least and the largest I(X; Y), nats.

    Raises:
        ValueError: if independent noise is said to carry information, or a number is out of range.

    Example:
        >>> information_range(1.5, signal_is_recoverable=True, noise_is_independent=True)
        (1.5, 1.5)
        >>> information_range(1.5, signal_is_recoverable=False, noise_is_independent=True)
        (1.5, inf)
    """
    if not noise_information >= 0:
        raise ValueError(f"`noise_information` must not be negative, got {noise_information}")
    if noise_is_independent:
        if 0 < noise_information < math.inf:
            raise ValueError(
                "`noise_information` must be left out for independent noise, got"
                f" {noise_information}"
            )
        noise_information = 0.0
    if math.isnan(code_information):
        raise ValueError("`code_information` must be a number, got nan")
    unknown = math.isinf(noise_information)
    least = 0.0 if unknown else max(code_information - noise_information, 0.0)
    return least, max(code_information, least) if signal_is_recoverable else math.inf


def maximum_entropy(covariance: ArrayLike) -> float:
    r"""Returns the largest entropy of any X with this covariance, the normal one's (Statement 7).

    .. math:: h(X) \le \tfrac12 \log \det (2 \pi e\, C)

    Args:
        covariance: (n, n), positive semi-definite.

    Returns:
        nats; minus infinity if the covariance is singular to the precision of a float64.

    Example:
        >>> round(maximum_entropy(np.eye(2)), 4)
        2.8379
    """
    matrix = _covariance(covariance)
    deviations = np.sqrt(np.diag(matrix).clip(min=0))
    if not deviations.all():
        return -math.inf
    # Correlations, for variances may lie many orders of magnitude apart.
    correlations = matrix / np.outer(deviations, deviations)
    if np.linalg.matrix_rank(correlations, hermitian=True) < len(matrix):
        return -math.inf
    return float(np.linalg.slogdet(2 * math.pi * math.e * matrix)[1] / 2)


def noisy_entropy_range(
    covariance: ArrayLike, deviation: float, *, noise_is_independent: bool
) -> tuple[float, float]:
    r"""Returns the least and the largest entropy of X + Z, Z normal noise.

    .. math:: h(Z) \le h(X + Z) \le \tfrac12 \log \det (2 \pi e\, (C + \sigma^2))

    The first is Statement 8, for given X the entropy of Z is left; the second is Statement 7.

    Args:
        covariance: (n, n), of X.
        deviation: sigma, of every coordinate of Z.
        noise_is_independent: whether Z is independent of X; it must be.

    Returns:
        both limits, nats.

    Raises:
        ValueError: if the noise is not independent, or ``deviation`` not positive.

    Example:
        >>> low, high = noisy_entropy_range(np.eye(2), 1.0, noise_is_independent=True)
        >>> round(low, 4), round(high, 4)
        (2.8379, 3.531)
    """
    gain = noisy_information_limit(covariance, deviation, noise_is_independent=noise_is_independent)
    least = maximum_entropy(deviation**2 * np.eye(len(np.asarray(covariance))))
    return least, least + gain


def noisy_information_limit(
    covariance: ArrayLike, deviation: float, *, noise_is_independent: bool
) -> float:
    r"""Returns the most information that X + Z, Z normal noise, can have about any Y.

    .. math:: I(X + Z; Y) \le h(X + Z) - h(Z) \le \tfrac12 \log \det (1 + C / \sigma^2)

    Given Y, the entropy of X + Z is still at least h(Z). A normal X reaches it with Y = X.

    Args:
        covariance: (n, n), of X.
        deviation: sigma, of every coordinate of Z.
        noise_is_independent: whether Z is independent of (X, Y); it must be.

    Returns:
        nats.

    Raises:
        ValueError: as :func:`noisy_entropy_range`.

    Example:
        >>> round(noisy_information_limit([[3.0]], 1.0, noise_is_independent=True), 4)
        0.6931
    """
    _check_noise(deviation, independent=noise_is_independent)
    # By eigenvalues: beside a large signal, noise that is added to a matrix is rounded away.
    variances = np.linalg.eigvalsh(_covariance(covariance)).clip(min=0)
    return float(np.log1p(variances / deviation**2).sum() / 2)


def linear_gap(
    covariance: ArrayLike,
    encoder: ArrayLike,
    deviation: float,
    *,
    noise_is_independent: bool,
) -> float:
    r"""Returns the most that a linear code of X + Z can lose of the information about any Y.

    With R the projection on what the encoder E leaves out,

    .. math:: I(X + Z; Y) - I(E(X + Z); Y) = I(R(X + Z); Y \mid E(X + Z))
        \le h(R(X + Z) \mid E(X + Z)) - h(RZ)

    because X, EZ and Y together still leave RZ unknown. The conditional entropy is at most that of
    a normal X, for which the bound is :func:`noisy_information_limit` of X less that of its code.

    Args:
        covariance: (n, n), of X.
        encoder: (n', n), independent rows.
        deviation: sigma, of every coordinate of the normal noise Z.
        noise_is_independent: whether Z is independent of (X, Y); it must be.

    Returns:
        nats; 0 if the encoder keeps everything.

    Raises:
        ValueError: if the noise is not independent, or an argument is out of range.

    Example:
        >>> covariance = np.diag([4.0, 3.0])
        >>> round(linear_gap(covariance, [[1.0, 0.0]], 1.0, noise_is_independent=True), 4)
        0.6931
    """
    matrix = _covariance(covariance)
    _check_noise(deviation, independent=noise_is_independent)
    rows = np.atleast_2d(np.asarray(encoder, dtype=np.float64))
    if not np.isfinite(rows).all():
        raise ValueError("`encoder` must be finite, got NaN or infinity")
    if not rows.size or rows.shape[1] != len(matrix) or np.linalg.matrix_rank(rows) < len(rows):
        raise ValueError(
            f"`encoder` must be (n', {len(matrix)}) with independent rows, got shape {rows.shape}"
        )
    if len(rows) == len(matrix):
        return 0.0
    axes = np.linalg.svd(rows)[2][: len(rows)]  # orthonormal: the noise of the code stays white
    of_signal, of_code = (
        noisy_information_limit(part, deviation, noise_is_independent=noise_is_independent)
        for part in (matrix, axes @ matrix @ axes.T)
    )
    return of_signal - of_code


def pca_gap(variances: ArrayLike, n: int, deviation: float, *, noise_is_independent: bool) -> float:
    r"""Returns the most that the first n' principal components lose (Corollaries 5 and 6).

    .. math:: I(X + Z; Y) - I(\mathrm{PCA}(X + Z); Y)
        \le \frac{n - n'}2 \log \left(1 + \frac{\lambda_{n'+1}}{\sigma^2}\right)

    Args:
        variances: (n,), eigenvalues of the covariance of X without the noise, in falling order,
            all of them. Those of a fitted ``PCA`` on X + Z are larger by sigma squared.
        n: n', components kept.
        deviation: sigma, of every coordinate of the normal noise Z.
        noise_is_independent: whether Z is independent of (X, Y); it must be.

    Returns:
        nats; 0 if all components are kept.

    Raises:
        ValueError: if the noise is not independent, or an argument is out of range.

    Example:
        >>> round(pca_gap([4.0, 3.0], 1, 1.0, noise_is_independent=True), 4)
        0.6931
    """
    values = np.asarray(variances, dtype=np.float64)
    falling = values.ndim == 1 and (values >= 0).all() and (np.diff(values) <= 0).all()
    if not falling:
        raise ValueError("`variances` must be a list of falling numbers, none negative")
    if not 0 <= n <= len(values):
        raise ValueError(f"`n` must lie between 0 and {len(values)}, got {n}")
    _check_noise(deviation, independent=noise_is_independent)
    if n == len(values):
        return 0.0
    return (len(values) - n) / 2 * math.log1p(values[n] / deviation**2)


def hidden_from_pca(information: float, variance: float = 0.5) -> Floats:
    r"""Returns a covariance whose information PCA with one component loses (Statement 2).

    X1 has variance 1 and is independent of Y, X2 has a smaller variance v and covariance a with Y,
    whose variance is 1:

    .. math:: a = \sqrt{v (1 - e^{-2 I})}

    so that I(X; Y) is as asked while PCA with one component keeps X1 alone.
    The paper prints another a, which gives :math:`-\frac12 \log(1 - a^2 / v)`.

    Args:
        information: I(X; Y), nats.
        variance: v, between 0 and 1.

    Returns:
        (3, 3) covariance of (X1, X2, Y).

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> from captum_mi.datasets import gaussian_information
        >>> covariance = hidden_from_pca(0.2)
        >>> round(gaussian_information(covariance, 2), 4)
        0.2
        >>> gaussian_information(covariance[::2, ::2], 1)
        0.0
    """
    if not 0 <= information < math.inf:
        raise ValueError(f"`information` must not be negative, got {information}")
    if not 0 < variance < 1:
        raise ValueError(f"`variance` must lie between 0 and 1, got {variance}")
    covariance = np.diag([1.0, variance, 1.0])
    covariance[1, 2] = covariance[2, 1] = math.sqrt(variance * -math.expm1(-2 * information))
    return covariance


def _covariance(value: ArrayLike) -> Floats:
    matrix: Floats = np.asarray(value, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"`covariance` must be a square matrix, got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("`covariance` must be finite, got NaN or infinity")
    largest = abs(matrix).max()
    if abs(matrix - matrix.T).max() > SYMMETRY * largest:
        raise ValueError("`covariance` must be symmetric")
    least = np.linalg.eigvalsh(matrix)[0]
    if least < -SYMMETRY * largest:
        raise ValueError(f"`covariance` must not have negative eigenvalues, got {least:.3g}")
    return matrix


def _check_noise(deviation: float, *, independent: bool) -> None:
    """Raises ValueError if there is no noise, or it depends on what it is added to."""
    check_positive_number("deviation", deviation)
    if not independent:
        raise ValueError(
            "`noise_is_independent` must be True: the bound does not hold if Y depends on the"
            " noise, as a later layer does"
        )
