"""Tensors inside the values that modules pass around: tuples, lists, mappings, model outputs."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


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


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:  # noqa: ANN401
    """Returns ``value``, same containers, with ``function`` applied to every tensor."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        result = copy.copy(value)
        for key, item in value.items():
            result[key] = map_tensors(function, item)  # type: ignore[index]
        return result
    if isinstance(value, (tuple, list)):
        items = [map_tensors(function, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def floating(value: object) -> tuple[int, ...]:
    """Returns the positions of the floating-point tensors in ``value``."""
    return tuple(
        i
        for i, tensor in enumerate(tensors(value))
        if tensor.is_floating_point() and tensor.numel()
    )


def is_additive_mask(tensor: Tensor) -> bool:
    """Whether a floating-point tensor is an attention mask: it holds -inf, or the least number."""
    return bool(tensor.amin() <= torch.finfo(tensor.dtype).min / 2)


def at_least_single(tensor: Tensor) -> Tensor:
    """Widens half precision to float32; keeps float32 and float64."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def take(value: object, positions: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Returns the tensors of ``value`` at ``positions``."""
    found = tuple(tensors(value))
    return tuple(found[i] for i in positions)


def put(value: Any, positions: tuple[int, ...], new: tuple[Tensor, ...]) -> Any:  # noqa: ANN401
    """Returns ``value`` with the tensors at ``positions`` replaced by ``new``."""
    replacement = dict(zip(positions, new, strict=True))
    counter = itertools.count()
    return map_tensors(lambda old: replacement.get(next(counter), old), value)
