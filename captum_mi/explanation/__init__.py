"""Explaining image-text pairs: where in the image, and in which words, the evidence lies."""

from captum_mi.explanation.attribution import (
    Attributed,
    Start,
    attribute_image,
    attribute_text,
    layer_of,
)
from captum_mi.explanation.pairs import ImageExplanation, PairExplanation, explain_pairs
from captum_mi.explanation.statistics import TokenStatistics, TowerStatistics

__all__ = [
    "Attributed",
    "ImageExplanation",
    "PairExplanation",
    "Start",
    "TokenStatistics",
    "TowerStatistics",
    "attribute_image",
    "attribute_text",
    "explain_pairs",
    "layer_of",
]
