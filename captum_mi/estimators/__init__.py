"""Mutual information: bounds on score matrices."""

from captum_mi.estimators.bounds import info_nce

__all__ = ["info_nce"]
