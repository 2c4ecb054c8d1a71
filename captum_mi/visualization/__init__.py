"""Pictures of attributions: each function returns a Figure and changes no data."""

from captum_mi.visualization.heat import heat_map, overlay
from captum_mi.visualization.panels import explanation, gallery
from captum_mi.visualization.tokens import colored_tokens

__all__ = ["colored_tokens", "explanation", "gallery", "heat_map", "overlay"]
