"""The layers of a decomposition by the names that its file has them under."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable


def name_of(forward_func: Callable[..., Any], layer: nn.Module) -> str:
    """Returns the dotted name of a layer; "" if the model does not tell."""
    owner = getattr(forward_func, "__self__", forward_func)
    modules = owner.named_modules() if isinstance(owner, nn.Module) else ()
    return next((name for name, module in modules if module is layer), "")


def module_of(forward_func: Callable[..., Any], name: str) -> nn.Module:
    """Returns the layer of a name.

    Raises:
        ValueError: if the model has none of this name.
    """
    owner = getattr(forward_func, "__self__", forward_func)
    modules: dict[str, nn.Module] = {}
    if isinstance(owner, nn.Module):
        modules |= owner.named_modules()
    if not name or name not in modules:
        raise ValueError(
            f"`forward_func` {type(owner).__name__} has no module {name!r}, on which this was"
            " fitted; give the model it was fitted on, or `layer` and `global_layer`"
        )
    return modules[name]
