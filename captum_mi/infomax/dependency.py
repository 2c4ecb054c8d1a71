"""How far codes are from the prior: their features' dependence, and their marginals."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from captum_mi._training import minimize, split
from captum_mi.estimators import Estimate
from captum_mi.estimators.bounds import pointwise_info_nce
from captum_mi.infomax.prior import discriminator

BATCH = 500
HELD_OUT = 0.2
PATIENCE = 5
SHUFFLES = 10
"""Shuffled samples for each of the codes that the measure is taken on."""


def neural_dependency(
    codes: Tensor, test_codes: Tensor, *, steps: int = 1000, seed: int = 0
) -> Estimate:
    r"""Estimates how much the features of codes depend on each other, by a discriminator.

    .. math:: \mathrm{NDM} = \max_f \; E_p \log \frac{e^{f(e)}}
        {\frac{1}{1 + M} \left( e^{f(e)} + \sum_{m} e^{f(\tilde e_m)} \right)} \le
        \mathrm{KL}\Big( p(e) \,\Big\|\, \prod_i p(e_i) \Big)

    The M codes :math:`\tilde e` have the marginals without the dependence: each feature is shuffled
    by itself. The right side is the total correlation, 0 for independent features alone; a monotone
    function of each feature changes nothing of it. With many shuffled codes the value is that of
    the Donsker-Varadhan bound, but it ends at log(1 + M), where the latter grows without end for
    codes that are never mistaken for shuffled ones.

    Args:
        codes: (N, D), at least 50, to train on; a fifth of them decides when to stop.
        test_codes: (M, D), which it is measured on.
        steps: of the training, at most.
        seed: of weights and shuffles.

    Returns:
        nats, at most log(1 + M), M ten times the number of test codes. A value near it says no more
        than that the features depend on each other strongly.

    Raises:
        ValueError: if there are too few codes.

    Source: Hjelm et al., ICLR 2019, section 4.2, neural dependency measure,
    which takes the Donsker-Varadhan bound.

    Example:
        >>> one = torch.randn(1000, 1)
        >>> codes = torch.cat([one, one + torch.randn(1000, 1)], dim=1)
        >>> estimate = neural_dependency(codes[:500], codes[500:], steps=40)
        >>> abs(estimate.value - math.log(2) / 2) < 0.1
        True
    """
    if len(codes) < 50 or len(test_codes) < 2:
        raise ValueError(
            "`codes` must be at least 50 and `test_codes` at least 2, got"
            f" {len(codes)} and {len(test_codes)}"
        )
    generator = torch.Generator(codes.device).manual_seed(seed)
    mean, deviation = codes.mean(0), codes.std(0).clamp_min(1e-6)
    codes, test_codes = ((part - mean) / deviation for part in (codes, test_codes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = discriminator(codes.shape[1]).to(codes.device)
    kept, held_out = split(len(codes), HELD_OUT, generator)
    train, validation = codes[kept], codes[held_out]
    shuffled = independent(validation, SHUFFLES, generator)

    def terms(of_p: Tensor, of_q: Tensor) -> Tensor:
        f = network(of_p).flatten()
        return pointwise_info_nce(f, network(of_q).flatten().logsumexp(0), len(of_q))

    def loss(_step: int) -> Tensor:
        rows = torch.randint(len(train), (BATCH,), generator=generator, device=codes.device)
        return -terms(train[rows], independent(train[rows], 1, generator)).mean()

    minimize(
        loss,
        network,
        torch.optim.Adam(network.parameters(), 1e-3),
        steps,
        validate=lambda: -float(terms(validation, shuffled).mean()),
        patience=PATIENCE,
        title="dependency",
    )
    with torch.no_grad():
        found = terms(test_codes, independent(test_codes, SHUFFLES, generator))
    return replace(Estimate.of(found), estimator="neural_dependency")


def independent(codes: Tensor, times: int, generator: torch.Generator) -> Tensor:
    """Returns codes, (N, D), with each feature shuffled by itself, ``times`` of them: (N times, D).

    Example:
        >>> codes = torch.arange(8.0).reshape(4, 2)
        >>> independent(codes, 1, torch.Generator().manual_seed(0)).sort(dim=0).values.tolist()
        [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]
    """
    repeated = codes.repeat(times, 1, 1)
    draws = torch.rand(repeated.shape, generator=generator, device=codes.device)
    return repeated.gather(1, draws.argsort(dim=1)).flatten(0, 1)


def distance_to_uniform(codes: Tensor) -> float:
    """Returns the Kolmogorov-Smirnov distance of the codes' sigmoids to the uniform distribution.

    Args:
        codes: (N, D).

    Returns:
        the mean over features, in [0, 1]; of N uniform samples about 0.87 / sqrt(N).

    Example:
        >>> codes = torch.linspace(0.001, 0.999, 500).logit()[:, None]
        >>> round(distance_to_uniform(codes), 3)
        0.001
        >>> distance_to_uniform(torch.zeros(500, 3))
        0.5
    """
    from scipy.stats import kstest

    marginals = codes.double().sigmoid().T.cpu().numpy()
    distances = [float(kstest(marginal, "uniform").statistic) for marginal in marginals]
    return math.fsum(distances) / len(distances)
