"""Pictures of attributions and of training: each function returns a Figure and changes no data."""

from captum_mi.visualization.columns import gallery
from captum_mi.visualization.decomposition import decomposition, episode
from captum_mi.visualization.heat import heat_map, overlay
from captum_mi.visualization.matrix import information_matrix
from captum_mi.visualization.panels import colored_tokens, explanation, sentences
from captum_mi.visualization.plane import information_by_epoch, information_plane
from captum_mi.visualization.scale import Unit

__all__ = [
    "Unit",
    "colored_tokens",
    "decomposition",
    "episode",
    "explanation",
    "gallery",
    "heat_map",
    "information_by_epoch",
    "information_matrix",
    "information_plane",
    "overlay",
    "sentences",
]
