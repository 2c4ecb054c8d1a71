"""Every estimator, and every compressor, by its short name."""

from __future__ import annotations

from collections.abc import Callable

from captum_mi.estimators.autoencoder import Autoencoder
from captum_mi.estimators.base import MutualInformationEstimator
from captum_mi.estimators.compression import PCA, Compressor
from captum_mi.estimators.kde import KernelDensity
from captum_mi.estimators.knn import KSG, KozachenkoLeonenko, WeightedKozachenkoLeonenko

ESTIMATORS: dict[str, Callable[..., MutualInformationEstimator]] = {
    "wkl": WeightedKozachenkoLeonenko,
    "kl": KozachenkoLeonenko,
    "ksg": KSG,
    "kde": KernelDensity,
}
"""Short name -> factory; those of nearest neighbors take ``k`` and ``jitter``."""

COMPRESSORS: dict[str, Callable[[int], Compressor]] = {"pca": PCA, "autoencoder": Autoencoder}
"""Short name -> factory that takes the numbers in a code."""
