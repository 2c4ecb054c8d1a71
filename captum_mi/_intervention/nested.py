"""Tensors inside the values that modules pass around: tuples, lists, mappings, model outputs."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")


def tensors(value: object) -> Iterator[Tensor]:
    """Yields every tensor in ``value``, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)


def map_tensors(function: Callable[[Tensor], Tensor], value: T) -> T:
    """Returns ``value``, same containers, with ``function`` applied to every tensor."""
    return cast("T", _mapped(function, value))


def _mapped(function: Callable[[Tensor], Tensor], value: object) -> object:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        result: Any = copy.copy(value)
        for key, item in value.items():
            result[key] = _mapped(function, item)
        return result
    if isinstance(value, (tuple, list)):
        items: list[Any] = [_mapped(function, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def floating(value: object) -> tuple[int, ...]:
    """Returns the positions of the floating-point tensors in ``value``."""
    return tuple(
        i
        for i, tensor in enumerate(tensors(value))
        if tensor.is_floating_point() and tensor.numel()
    )


def take(value: object, positions: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Returns the tensors of ``value`` at ``positions``."""
    found = tuple(tensors(value))
    return tuple(found[i] for i in positions)


def put(value: T, positions: tuple[int, ...], new: tuple[Tensor, ...]) -> T:
    """Returns ``value`` with the tensors at ``positions`` replaced by ``new``."""
    replacement = dict(zip(positions, new, strict=True))
    counter = itertools.count()
    return map_tensors(lambda old: replacement.get(next(counter), old), value)


def detached_copy(value: T) -> T:
    """Detaches and copies every tensor, so that later in-place operations do not reach it.

    The copies can take part in gradients, also where the model itself is in inference mode.
    """
    with torch.inference_mode(mode=False):
        return map_tensors(lambda tensor: tensor.detach().clone(), value)
