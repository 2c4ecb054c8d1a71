"""Every estimator, and every compressor, by its short name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from captum_mi.estimators.autoencoder import Autoencoder
from captum_mi.estimators.base import MutualInformationEstimator
from captum_mi.estimators.choice import MutualInformation
from captum_mi.estimators.compression import PCA, Compressed, Compressor
from captum_mi.estimators.copula import CopulaNeighbors
from captum_mi.estimators.discrete import PlugIn
from captum_mi.estimators.gaussian import GaussianCopula
from captum_mi.estimators.kde import KernelDensity
from captum_mi.estimators.knn import KozachenkoLeonenko, WeightedKozachenkoLeonenko
from captum_mi.estimators.ksg import KSG
from captum_mi.estimators.mixed import MixedKSG
from captum_mi.estimators.neural import JSD, MINE, NWJ, SMILE, InfoNCE
from captum_mi.estimators.neural_base import NeuralEstimator

if TYPE_CHECKING:
    from captum_mi.estimators._samples import Samples

NEURAL: dict[str, Callable[..., NeuralEstimator]] = {
    "mine": MINE,
    "nwj": NWJ,
    "jsd": JSD,
    "infonce": InfoNCE,
    "smile": SMILE,
}
"""Short name -> factory of those that train a critic, which also read images as they are."""

ESTIMATORS: dict[str, Callable[..., MutualInformationEstimator]] = {
    "auto": MutualInformation,
    "copula": CopulaNeighbors,
    "wkl": WeightedKozachenkoLeonenko,
    "kl": KozachenkoLeonenko,
    "ksg": KSG,
    "ksg-cv": partial(KSG, control_variate=True),
    "gaussian": GaussianCopula,
    "kde": KernelDensity,
    "mixed": MixedKSG,
    "plugin": PlugIn,
    **NEURAL,
}
"""Short name -> factory; some take ``k`` or ``jitter``, as :func:`method_options` tells."""

COMPRESSORS: dict[str, Callable[[int], Compressor]] = {"pca": PCA, "autoencoder": Autoencoder}
"""Short name -> factory that takes the numbers in a code."""


def method_options(method: str) -> list[str]:
    """Returns which of ``k`` and ``jitter`` a method takes.

    Args:
        method: a name of ``ESTIMATORS``.

    Example:
        >>> method_options("copula")
        ['k']
    """
    taken = inspect.signature(ESTIMATORS[method]).parameters
    return [name for name in ("k", "jitter") if name in taken]


def compress_wide(
    estimator: MutualInformationEstimator,
    compressor: Compressor,
    x: Samples,
    y: Samples | None = None,
) -> MutualInformationEstimator:
    """Puts a compressor in front of an estimator, for the variables that are wider than its codes.

    Args:
        estimator: estimates between the codes.
        compressor: a new one, which is fitted anew on each variable.
        x: (N, ...).
        y: (N, ...); None if the other variable is a label.

    Returns:
        ``Compressed``, or the estimator itself if no variable is wider.

    Example:
        >>> narrow, wide = torch.randn(9, 2), torch.randn(9, 5)
        >>> compress_wide(KSG(), PCA(2), narrow, wide).y
        PCA(n=2)
        >>> compress_wide(KSG(), PCA(2), narrow)
        KSG(k=3, whiten=False, control_variate=False, jitter=0.0, n_jobs=-1)
    """
    wide = {
        name: compressor
        for name, samples in (("x", x), ("y", y))
        if samples is not None and prod(np.shape(samples)[1:]) > compressor.n
    }
    return Compressed(estimator, **wide) if wide else estimator
