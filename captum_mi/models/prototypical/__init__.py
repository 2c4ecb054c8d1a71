"""Prototypical networks for few-shot learning, and the command that trains them."""

from captum_mi.models.prototypical.network import Conv4, PrototypicalNetwork
from captum_mi.models.prototypical.training import Accuracy, accuracy, fit

__all__ = ["Accuracy", "Conv4", "PrototypicalNetwork", "accuracy", "fit"]
