"""Data sets that carry their truth."""

from captum_mi.datasets.scenes import Scene, Scenes, single_object_texts

__all__ = ["Scene", "Scenes", "single_object_texts"]
