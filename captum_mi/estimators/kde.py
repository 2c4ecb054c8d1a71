"""Entropy and mutual information from Gaussian kernel densities, each sample left out, in nats."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from scipy.optimize import minimize_scalar

from captum_mi._checks import check_choice, check_positive_number
from captum_mi.estimators._samples import as_samples, standardized, whitened
from captum_mi.estimators.base import EntropyEstimator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from captum_mi.estimators._samples import Samples

CHUNK = 2**19  # entries of a block of kernel values
SCAN_ROWS = 1024  # samples at which the scan of bandwidths looks
SCAN_STEP = math.log(2) / 2
PRECISION = 2e-3  # of log bandwidth
WIDEST = math.log(1e5)  # how far from the rule of thumb the scan goes


class KernelDensity(EntropyEstimator):
    r"""Entropies from a Gaussian kernel of one bandwidth b, around all other samples.

    .. math:: \hat p(x_i) = \frac{1}{(N-1)\, b^n (2\pi)^{n/2}}
        \sum_{l \neq i} e^{-\lVert x_i - x_l \rVert^2 / 2 b^2}

    A mutual information uses the bandwidth of (X, Y) for X and Y too, so that their biases cancel
    near independence. Good for smooth densities of few dimensions and up to a few nats; it falls
    below the truth beyond. Time grows with N squared, memory with N. It computes with PyTorch's
    threads, which wait for each other: where other programs keep the cores busy, one of them,
    ``torch.set_num_threads(1)``, is many times faster.

    Args:
        bandwidth: ``"ml"`` maximizes the mean of :math:`\log \hat p(x_i)`; ``"lse"`` minimizes the
            integrated squared error of the density, up to a constant, by least squares
            cross-validation; a number is taken as it is, in units of the whitened samples. Squared
            errors hardly count where samples are sparse: where the density varies much, as that of
            strongly dependent codes does, ``"lse"`` is so narrow that sparse samples of (X, Y) give
            entropies of hundreds of nats, and the mutual information falls far below zero.
        whiten: map the samples to covariance I first, see :class:`EntropyEstimator`.

    Source: Butakov et al. 2024, "Information bottleneck analysis of deep neural networks via lossy
    compression", section 3; Moon et al. 1995, "Estimation of mutual information using kernel
    density estimators".

    Example:
        >>> x, noise = torch.randn(2, 1000)
        >>> estimate = KernelDensity().estimate(x, x + noise)  # the truth is 0.347
        >>> print(f"{estimate.value:.2f} +- {estimate.std_error:.2f}")
        0.34 +- 0.02
    """

    def __init__(
        self, bandwidth: Literal["ml", "lse"] | float = "ml", *, whiten: bool = True
    ) -> None:
        """Stores and checks the arguments."""
        if isinstance(bandwidth, str):
            check_choice("bandwidth", bandwidth, ("ml", "lse"))
        else:
            check_positive_number("bandwidth", bandwidth)
        self.bandwidth = bandwidth
        self.whiten = whiten

    def select_bandwidth(self, x: Samples) -> float:
        """Returns the bandwidth for these samples, in units of the whitened ones if ``whiten``.

        Args:
            x: (N, d).
        """
        samples = as_samples("x", x)
        return self._select("x", whitened("x", samples)[0] if self.whiten else samples)

    def _least_samples(self, dim: int) -> int:
        return 3

    def _minus_log_densities(self, spaces: Mapping[str, Tensor]) -> dict[str, Tensor]:
        bandwidth = self._select(*next(iter(spaces.items())))
        found = {
            name: -leave_one_out_log_densities(samples, bandwidth)
            for name, samples in spaces.items()
        }
        if not all(values.isfinite().all() for values in found.values()):
            raise ValueError(
                f"`bandwidth` {bandwidth:g} is too small: squared distances in its units overflow;"
                " give a larger one"
            )
        return found

    def _select(self, name: str, samples: Tensor) -> float:
        if not isinstance(self.bandwidth, str):
            return float(self.bandwidth)
        loss = {"ml": _likelihood_loss, "lse": _least_squares_loss}[self.bandwidth]
        return _search(name, samples, loss)


def leave_one_out_log_densities(
    samples: Tensor, bandwidth: float, rows: Tensor | None = None
) -> Tensor:
    """Returns the logarithm of the density that all other samples give each sample.

    Args:
        samples: (N, d), float64.
        bandwidth: the kernel's standard deviation.
        rows: (R,), the samples to look at; None takes all.

    Returns:
        (R,), finite.

    Example:
        >>> leave_one_out_log_densities(torch.tensor([[0.0], [1.0]], dtype=torch.float64), 1.0)
        tensor([-1.4189, -1.4189], dtype=torch.float64)
    """
    n_samples, dim = samples.shape
    sums = samples.new_empty(n_samples if rows is None else len(rows))
    for place, block in _log_kernels(samples, bandwidth, rows):
        top = block.amax(dim=1)
        sums[place] = block.sub_(top[:, None]).exp_().sum(dim=1).log_().add_(top)
    return sums - math.log(n_samples - 1) - dim * math.log(bandwidth * math.sqrt(2 * math.pi))


def _log_kernels(
    samples: Tensor, bandwidth: float, rows: Tensor | None
) -> Iterator[tuple[slice, Tensor]]:
    """Yields blocks (B, N) of -|x_i - x_l|^2 / 2 b^2, -inf for l = i, behind the rows they are of.

    All blocks share one memory: fresh ones fragment the heap, by gigabytes in all.
    """
    scaled = (samples - samples.mean(dim=0)) / bandwidth
    half = (scaled**2).sum(dim=1) / 2
    if rows is None:
        rows = torch.arange(len(samples), device=samples.device)
    size = max(1, CHUNK // len(samples))
    memory = samples.new_empty(min(size, len(rows)), len(samples))
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size]
        block = memory[: len(chunk)]
        torch.addmm(-half, scaled[chunk], scaled.T, out=block)
        block.sub_(half[chunk, None]).clamp_(max=0)
        block[torch.arange(len(chunk), device=chunk.device), chunk] = -math.inf
        yield slice(start, start + size), block


def _likelihood_loss(samples: Tensor, bandwidth: float, rows: Tensor | None) -> float:
    return -float(leave_one_out_log_densities(samples, bandwidth, rows).mean())


def _least_squares_loss(samples: Tensor, bandwidth: float, rows: Tensor | None) -> float:
    r"""Returns the integral of the squared density less twice its mean at samples left out.

    The convolution of the kernel with itself is a kernel of variance 2 b^2, whose values are the
    square roots of the kernel's. The unit of density is that of a kernel of bandwidth 1 at its
    center.
    """
    n_samples, dim = samples.shape
    wide, narrow = 0.0, 0.0
    for _, block in _log_kernels(samples, bandwidth, rows):
        kernel = block.div_(2).exp_()
        wide += float(kernel.sum()) + len(block)  # the sample itself is part of the integral
        narrow += float(torch.linalg.vector_norm(kernel) ** 2)
    n_rows = n_samples if rows is None else len(rows)
    integral = wide / n_samples / math.sqrt(2) ** dim
    unit = float(torch.tensor(bandwidth, dtype=torch.float64) ** -dim)  # infinite, not an error
    return (integral - 2 * narrow / (n_samples - 1)) / n_rows * unit


def _search(
    name: str, samples: Tensor, loss: Callable[[Tensor, float, Tensor | None], float]
) -> float:
    """Scans the loss at some samples for its valley, then minimizes it at all of them."""
    n_samples, dim = samples.shape
    # In units of the rule of thumb, which keeps powers of the bandwidth near 1.
    deviations = standardized(samples)[1]
    thumb = n_samples ** (-1 / (dim + 4)) * float(deviations.log().mean().exp())
    scaled = samples / thumb
    some = torch.arange(0, n_samples, -(-n_samples // SCAN_ROWS), device=samples.device)
    steps = range(-6, 4)
    losses = {step: loss(scaled, math.exp(step * SCAN_STEP), some) for step in steps}
    while (best := min(losses, key=losses.__getitem__)) in {min(losses), max(losses)}:
        outward = best - 1 if best == min(losses) else best + 1
        if abs(outward) * SCAN_STEP > WIDEST:
            raise ValueError(
                f"`{name}` has no best bandwidth: the fit improves without end as it"
                f" {'shrinks' if outward < 0 else 'grows'}; drop repeated samples, or give"
                f" `bandwidth` as a number"
            )
        losses[outward] = loss(scaled, math.exp(outward * SCAN_STEP), some)
    center, reached = best * SCAN_STEP, math.inf
    while abs(reached) > SCAN_STEP - 2 * PRECISION:  # the valley of all samples may lie further on
        found = minimize_scalar(
            lambda log_bandwidth: loss(scaled, math.exp(log_bandwidth), None),
            bounds=(center - SCAN_STEP, center + SCAN_STEP),
            method="bounded",
            options={"xatol": PRECISION},
        )
        reached, center = found.x - center, float(found.x)
    return float(thumb) * math.exp(center)
