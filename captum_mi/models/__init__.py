"""Image-text models as classifiers, and how to load them."""

from captum_mi.models.clip import blocks, load_clip, tokenize
from captum_mi.models.embedded_text import EmbeddedText
from captum_mi.models.similarity import ImageTextSimilarity, TextImageSimilarity

__all__ = [
    "EmbeddedText",
    "ImageTextSimilarity",
    "TextImageSimilarity",
    "blocks",
    "load_clip",
    "tokenize",
]
