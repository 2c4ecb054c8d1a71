"""Image-text models and prototypical networks as classifiers, and how to load them."""

from captum_mi.models.blanks import blank_ids, blank_pixels
from captum_mi.models.clip import load_clip
from captum_mi.models.embedded_text import EmbeddedText
from captum_mi.models.left_out import cosines_without
from captum_mi.models.prototypical import Conv4, PrototypicalNetwork
from captum_mi.models.sentences import SentenceSimilarity, load_sentence_encoder
from captum_mi.models.similarity import ImageTextSimilarity, TextImageSimilarity
from captum_mi.models.texts import tokenize
from captum_mi.models.towers import blocks

__all__ = [
    "Conv4",
    "EmbeddedText",
    "ImageTextSimilarity",
    "PrototypicalNetwork",
    "SentenceSimilarity",
    "TextImageSimilarity",
    "blank_ids",
    "blank_pixels",
    "blocks",
    "cosines_without",
    "load_clip",
    "load_sentence_encoder",
    "tokenize",
]
