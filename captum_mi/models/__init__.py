"""Image-text models as classifiers, and how to load them."""

from captum_mi.models.clip import blocks, load_clip, tokenize
from captum_mi.models.similarity import ImageTextSimilarity, TextImageSimilarity

__all__ = ["ImageTextSimilarity", "TextImageSimilarity", "blocks", "load_clip", "tokenize"]
