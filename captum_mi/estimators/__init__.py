"""Mutual information: bounds on score matrices, and estimators from samples."""

from captum_mi.estimators.autoencoder import Autoencoder
from captum_mi.estimators.base import EntropyEstimator, MutualInformationEstimator
from captum_mi.estimators.bounds import (
    donsker_varadhan,
    info_nce,
    jensen_shannon,
    log_mean_exp,
    nwj,
    pointwise_info_nce,
    pointwise_terms,
    smile,
    tuba,
)
from captum_mi.estimators.choice import MutualInformation
from captum_mi.estimators.columns import (
    InformationMatrix,
    column_information,
    mutual_info,
    mutual_info_matrix,
)
from captum_mi.estimators.compression import PCA, Compressed, Compressor
from captum_mi.estimators.conditional import ConditionalKSG
from captum_mi.estimators.copula import CopulaNeighbors
from captum_mi.estimators.discrete import PlugIn
from captum_mi.estimators.estimate import Estimate
from captum_mi.estimators.gaussian import GaussianCopula
from captum_mi.estimators.independence import PermutationTest, permutation_test
from captum_mi.estimators.kde import KernelDensity
from captum_mi.estimators.kinds import dithered, kind_of
from captum_mi.estimators.knn import KozachenkoLeonenko, WeightedKozachenkoLeonenko
from captum_mi.estimators.ksg import KSG
from captum_mi.estimators.local_bounds import (
    local_donsker_varadhan,
    local_info_nce,
    local_jensen_shannon,
)
from captum_mi.estimators.methods import (
    COMPRESSORS,
    ESTIMATORS,
    NEURAL,
    compress_wide,
    method_options,
)
from captum_mi.estimators.mixed import MixedKSG
from captum_mi.estimators.neural import JSD, MINE, NWJ, SMILE, InfoNCE
from captum_mi.estimators.neural_base import FittedCritic, NeuralEstimator
from captum_mi.estimators.neural_training import Training

__all__ = [
    "COMPRESSORS",
    "ESTIMATORS",
    "JSD",
    "KSG",
    "MINE",
    "NEURAL",
    "NWJ",
    "PCA",
    "SMILE",
    "Autoencoder",
    "Compressed",
    "Compressor",
    "ConditionalKSG",
    "CopulaNeighbors",
    "EntropyEstimator",
    "Estimate",
    "FittedCritic",
    "GaussianCopula",
    "InfoNCE",
    "InformationMatrix",
    "KernelDensity",
    "KozachenkoLeonenko",
    "MixedKSG",
    "MutualInformation",
    "MutualInformationEstimator",
    "NeuralEstimator",
    "PermutationTest",
    "PlugIn",
    "Training",
    "WeightedKozachenkoLeonenko",
    "column_information",
    "compress_wide",
    "dithered",
    "donsker_varadhan",
    "info_nce",
    "jensen_shannon",
    "kind_of",
    "local_donsker_varadhan",
    "local_info_nce",
    "local_jensen_shannon",
    "log_mean_exp",
    "method_options",
    "mutual_info",
    "mutual_info_matrix",
    "nwj",
    "permutation_test",
    "pointwise_info_nce",
    "pointwise_terms",
    "smile",
    "tuba",
]
