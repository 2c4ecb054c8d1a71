"""Arguments of a model and of a method, in one form."""

from __future__ import annotations

from torch import Tensor, nn


def as_tuple(inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Returns a tuple of the inputs, also where there is one."""
    return inputs if isinstance(inputs, tuple) else (inputs,)


def model_arguments(
    inputs: Tensor | tuple[Tensor, ...], additional_forward_args: object = None
) -> tuple[object, ...]:
    """Returns what the model is called with: the inputs, and then the further arguments."""
    if additional_forward_args is None:
        return as_tuple(inputs)
    if isinstance(additional_forward_args, tuple):
        return (*as_tuple(inputs), *additional_forward_args)
    return (*as_tuple(inputs), additional_forward_args)


def check_layer(layer: object) -> None:
    """Raises TypeError if a layer is no module."""
    if not isinstance(layer, nn.Module):
        raise TypeError(
            f"`layer` must be a module or a list of modules, got {type(layer).__name__}; take a"
            " module by its name with model.get_submodule(name)"
        )
