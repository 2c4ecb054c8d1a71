"""Data sets that carry their truth, and pairs of real images and texts."""

from captum_mi.datasets.captions import Pair, captioned_images, class_folders, scene_pairs
from captum_mi.datasets.scenes import Scene, Scenes, single_object_texts

__all__ = [
    "Pair",
    "Scene",
    "Scenes",
    "captioned_images",
    "class_folders",
    "scene_pairs",
    "single_object_texts",
]
