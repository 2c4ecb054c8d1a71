"""Data whose truth is known, pairs of images and texts, and few-shot episodes."""

from captum_mi.datasets.captions import captioned_images
from captum_mi.datasets.colored_places import ColoredPlaces
from captum_mi.datasets.episodes import Episode, Episodes, SceneClasses
from captum_mi.datasets.gaussian_modes import Coverage, GaussianModes
from captum_mi.datasets.gaussian_places import GaussianPlaces
from captum_mi.datasets.known_local import KnownPlaces
from captum_mi.datasets.known_mi import (
    CorrelatedNormals,
    CorrelatedStudent,
    CorrelatedUniforms,
    DiscreteLabels,
    KnownInformation,
    gaussian_information,
)
from captum_mi.datasets.known_mi_images import (
    AntiPCA,
    CorrelatedBumps,
    GaussianBumps,
    KnownImages,
    Rectangles,
)
from captum_mi.datasets.pairs import Pair, scene_pairs
from captum_mi.datasets.scenes import Scene, Scenes, single_object_texts

__all__ = [
    "AntiPCA",
    "ColoredPlaces",
    "CorrelatedBumps",
    "CorrelatedNormals",
    "CorrelatedStudent",
    "CorrelatedUniforms",
    "Coverage",
    "DiscreteLabels",
    "Episode",
    "Episodes",
    "GaussianBumps",
    "GaussianModes",
    "GaussianPlaces",
    "KnownImages",
    "KnownInformation",
    "KnownPlaces",
    "Pair",
    "Rectangles",
    "Scene",
    "SceneClasses",
    "Scenes",
    "captioned_images",
    "gaussian_information",
    "scene_pairs",
    "single_object_texts",
]
