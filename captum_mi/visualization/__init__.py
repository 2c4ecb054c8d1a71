"""Pictures of attributions: each function returns a Figure and changes no data."""

from captum_mi.visualization.panels import (
    coloured_tokens,
    explanation,
    gallery,
    heat_map,
    overlay,
)

__all__ = ["coloured_tokens", "explanation", "gallery", "heat_map", "overlay"]
