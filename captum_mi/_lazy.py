"""Public names that are loaded when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def load_from(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Returns the ``__getattr__`` of a package that imports a name's module at its first use.

    Args:
        package: the package's full name.
        homes: public name -> the module of the package that defines it.

    Example:
        >>> load_from("captum_mi.attr", {"FastIG": "fast_ig"})("FastIG").__name__
        'FastIG'
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return load
