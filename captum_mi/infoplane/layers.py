"""Layers of a model, given by name or as modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable


def named_layers(model: nn.Module, layers: Iterable[nn.Module | str]) -> dict[str, nn.Module]:
    """Returns the layers by their dotted names, in the order given.

    Raises:
        TypeError: if a layer is no module or name, or ``layers`` is one of these itself.
        ValueError: if there is none, or the model has no such layer.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        >>> named_layers(model, ["0", model[1]])
        {'0': Linear(in_features=3, out_features=4, bias=True), '1': ReLU()}
    """
    if isinstance(layers, str) or (
        isinstance(layers, nn.Module) and not isinstance(layers, (nn.ModuleList, nn.Sequential))
    ):
        raise TypeError("`layers` must be a list of modules or of names, got one of them")
    modules = dict(model.named_modules())
    names = {id(module): name for name, module in modules.items()}
    found = {}
    for layer in layers:
        if isinstance(layer, str):
            if layer not in modules:
                raise ValueError(f"`layers` names {layer!r}, which {type(model).__name__} has not")
            found[layer] = modules[layer]
        elif isinstance(layer, nn.Module):
            if id(layer) not in names:
                raise ValueError(
                    f"`layers` holds a {type(layer).__name__} that is no part of"
                    f" {type(model).__name__}"
                )
            found[names[id(layer)]] = layer
        else:
            raise TypeError(
                f"`layers` must hold modules or their names, got a {type(layer).__name__}"
            )
    if not found:
        raise ValueError("`layers` must hold at least one layer, got none")
    return found
