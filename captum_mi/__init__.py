"""Explain what information a neural representation holds, and where in the input it came from."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from captum_mi import (
        attr,
        datasets,
        estimators,
        infomax,
        infoplane,
        maps,
        metrics,
        models,
        visualization,
    )
    from captum_mi.attr import InfoNCEDecomposition, MultimodalIB, NarrowingIB

    __version__: str

__all__ = [
    "InfoNCEDecomposition",
    "MultimodalIB",
    "NarrowingIB",
    "attr",
    "datasets",
    "estimators",
    "infomax",
    "infoplane",
    "maps",
    "metrics",
    "models",
    "visualization",
]

_CLASSES = dict.fromkeys(("InfoNCEDecomposition", "MultimodalIB", "NarrowingIB"), "captum_mi.attr")


def __getattr__(name: str) -> object:
    """Loads a public name when it is first used."""
    if name == "__version__":
        return importlib.metadata.version("captum_mi")
    if name in _CLASSES:
        return getattr(importlib.import_module(_CLASSES[name]), name)
    if name in __all__:
        return importlib.import_module(f"captum_mi.{name}")
    raise AttributeError(f"module 'captum_mi' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Lists the public names."""
    return sorted([*__all__, "__version__"])
