"""From a layer's attribution to a map of the image, or to scores of the tokens of a text."""

from captum_mi.maps.grid import TokenGrid, patch_size, prefix_tokens, token_grid
from captum_mi.maps.image import bits_per_pixel, image_map, min_max, patch_map
from captum_mi.maps.original import image_seen, on_original
from captum_mi.maps.tokens import TokenScores, special_tokens, token_scores

__all__ = [
    "TokenGrid",
    "TokenScores",
    "bits_per_pixel",
    "image_map",
    "image_seen",
    "min_max",
    "on_original",
    "patch_map",
    "patch_size",
    "prefix_tokens",
    "special_tokens",
    "token_grid",
    "token_scores",
]
