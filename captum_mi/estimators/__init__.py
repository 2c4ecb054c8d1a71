"""Mutual information: bounds on score matrices, and estimators from samples."""

from captum_mi.estimators.base import EntropyEstimator, Estimate, MutualInformationEstimator
from captum_mi.estimators.bounds import info_nce

__all__ = ["EntropyEstimator", "Estimate", "MutualInformationEstimator", "info_nce"]
