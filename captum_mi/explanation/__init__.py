"""Explaining pairs: where in an image, and in which words, the evidence for a similarity lies."""

from captum_mi.explanation.attribution import (
    Attributed,
    Start,
    attribute_image,
    attribute_text,
    layer_of,
)
from captum_mi.explanation.pairs import ImageExplanation, PairExplanation, explain_pairs
from captum_mi.explanation.sentences import SentencePairExplanation, explain_sentences
from captum_mi.explanation.statistics import TokenStatistics, TowerStatistics
from captum_mi.explanation.words import WordEvidence

__all__ = [
    "Attributed",
    "ImageExplanation",
    "PairExplanation",
    "SentencePairExplanation",
    "Start",
    "TokenStatistics",
    "TowerStatistics",
    "WordEvidence",
    "attribute_image",
    "attribute_text",
    "explain_pairs",
    "explain_sentences",
    "layer_of",
]
