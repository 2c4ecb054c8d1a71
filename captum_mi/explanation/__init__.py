"""Explaining pairs: where in an image, and in which words, the evidence for a similarity lies."""

from captum_mi.explanation.attribution import (
    Attributed,
    Start,
    attribute_image,
    attribute_text,
    layer_of,
)
from captum_mi.explanation.decomposition import (
    FittedDecomposition,
    ImageDecomposition,
    decompose_image,
    fit_decomposition,
    load_decomposition,
)
from captum_mi.explanation.pairs import ImageExplanation, PairExplanation, explain_pairs
from captum_mi.explanation.sentences import SentencePairExplanation, explain_sentences
from captum_mi.explanation.statistics import TokenStatistics, TowerStatistics
from captum_mi.explanation.words import WordEvidence

__all__ = [
    "Attributed",
    "FittedDecomposition",
    "ImageDecomposition",
    "ImageExplanation",
    "PairExplanation",
    "SentencePairExplanation",
    "Start",
    "TokenStatistics",
    "TowerStatistics",
    "WordEvidence",
    "attribute_image",
    "attribute_text",
    "decompose_image",
    "explain_pairs",
    "explain_sentences",
    "fit_decomposition",
    "layer_of",
    "load_decomposition",
]
