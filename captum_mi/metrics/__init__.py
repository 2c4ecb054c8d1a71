"""Confidence metrics of maps, as functions and for Quantus; explanations for Quantus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captum_mi._lazy import load_from
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

# What needs Quantus, or the models.
__getattr__ = load_from(
    __name__,
    {"ConfidenceDrop": "quantus", "ConfidenceIncrease": "quantus", "explain": "explain_func"},
)


def __dir__() -> list[str]:
    """Lists the public names, also those that are not loaded yet."""
    return sorted({*globals(), *__all__})
