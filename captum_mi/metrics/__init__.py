"""Confidence metrics of maps, as functions and for Quantus; explanations for Quantus."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from captum_mi.metrics.confidence import (
    Confidence,
    confidence,
    confidence_drop,
    confidence_increase,
)

if TYPE_CHECKING:
    from captum_mi.metrics.explain_func import explain
    from captum_mi.metrics.quantus import ConfidenceDrop, ConfidenceIncrease

__all__ = [
    "Confidence",
    "ConfidenceDrop",
    "ConfidenceIncrease",
    "confidence",
    "confidence_drop",
    "confidence_increase",
    "explain",
]

_HOMES = {"ConfidenceDrop": "quantus", "ConfidenceIncrease": "quantus", "explain": "explain_func"}


def __getattr__(name: str) -> object:
    """Loads what needs Quantus, or the models, when it is first used."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"captum_mi.metrics.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'captum_mi.metrics' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Lists the public names, the lazy ones among them, as ``help`` shows them."""
    return sorted({*globals(), *__all__})
