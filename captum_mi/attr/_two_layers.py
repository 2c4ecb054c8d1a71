"""A model seen at two of its layers, one behind the other, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_mi._intervention import nested
from captum_mi._intervention.arguments import as_tuple, model_arguments
from captum_mi._intervention.hooks import edit_output, layer_value, module_name, watch_calls
from captum_mi._intervention.split import split_at
from captum_mi._intervention.suffix import LayerSuffix
from captum_mi._intervention.trace import AS_WRITTEN, is_random


class TwoLayers:
    """The local values and the global ones of a frozen model.

    Args:
        forward_func: the model, or any callable that runs it.
        layer: the first layer to fire; one tensor, (B, ...).
        global_layer: the other; one tensor, (B, ...).
    """

    def __init__(
        self, forward_func: Callable[..., Any], layer: nn.Module, global_layer: nn.Module
    ) -> None:
        self._forward_func = forward_func
        self._layer = layer
        self._global_layer = global_layer

    def values(
        self, inputs: Tensor | tuple[Tensor, ...], additional_forward_args: object = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the layer's value, (B, ...), and Z, (B, D), in a pass that ends at Z.

        Raises:
            RuntimeError: if the model is in a training mode that changes it.
            ValueError: if the layers do not fire one after the other, have not one tensor of one
                row for each input, or hold a NaN.
        """
        args = nested.detached_copy(model_arguments(inputs, additional_forward_args))
        found: list[object] = []
        with (
            torch.inference_mode(mode=False),
            torch.no_grad(),  # which leaving inference mode has undone
            AS_WRITTEN,
            self._refusing_training(),
            edit_output(self._layer, lambda value: found.append(nested.detached_copy(value))),
        ):
            last = layer_value(lambda: self._forward_func(*args), self._global_layer)
        if len(found) != 1:
            raise ValueError(
                f"layer {self._name(self._layer)} fired {len(found)} times before `global_layer`"
                f" {self._name(self._global_layer)}, it must fire once; `layer` comes first"
            )
        rows = len(as_tuple(inputs)[0])
        return self._tensor(found[0], self._layer, rows), self._z(last, rows)

    def split(self, inputs: Tensor) -> tuple[LayerSuffix, Tensor]:
        """Returns the model behind the layer, and Z, (B, D), of one pass through all of it.

        Raises:
            ValueError: if a layer does not fire once.
        """
        passes: list[object] = []  # the pass may be repeated
        found: list[object] = []
        with (
            edit_output(self._layer, lambda _value: passes.append(None)),
            edit_output(
                self._global_layer, lambda value: found.append(nested.detached_copy(value))
            ),
        ):
            (suffix,) = split_at(self._forward_func, [self._layer], inputs)
        if len(found) != len(passes):
            raise ValueError(
                f"`global_layer` {self._name(self._global_layer)} fired"
                f" {len(found) // len(passes)} times in one pass, it must fire once; choose a layer"
                " that runs once, such as the block around it"
            )
        return suffix, self._z(found[-1], len(inputs))

    @contextmanager
    def _refusing_training(self) -> Iterator[None]:
        """Raises RuntimeError before any module runs in a training mode that changes it."""

        def refuse(module: nn.Module, _args: tuple[Any, ...]) -> None:
            if is_random(module):
                raise RuntimeError(
                    f"{self._name(module)} is in training mode, in which the model changes or does"
                    " not repeat its output; call model.eval() first"
                )

        owner = getattr(self._forward_func, "__self__", self._forward_func)
        if isinstance(owner, nn.Module):
            for module in owner.modules():
                refuse(module, ())
        with watch_calls(refuse, lambda _module, _output: None):
            yield

    @property
    def device(self) -> torch.device | None:
        """Where the model's weights are; None if it shows none."""
        owner = getattr(self._forward_func, "__self__", self._forward_func)
        owners = [self._layer, self._global_layer, owner]
        for module in owners:
            if isinstance(module, nn.Module):
                for weight in module.parameters():
                    return weight.device
        return None

    def _z(self, value: object, rows: int) -> Tensor:
        return self._tensor(value, self._global_layer, rows).flatten(1).float()

    def _tensor(self, value: object, layer: nn.Module, rows: int) -> Tensor:
        found = nested.take(value, nested.floating(value))
        if len(found) != 1 or len(found[0]) != rows or found[0].ndim < 2:
            shapes = [tuple(tensor.shape) for tensor in found]
            raise ValueError(
                f"layer {self._name(layer)} must return one floating-point tensor ({rows}, ...),"
                f" got {shapes}"
            )
        if not found[0].isfinite().all():
            raise ValueError(f"layer {self._name(layer)} holds NaN or infinity for these inputs")
        return found[0].detach()

    def _name(self, layer: nn.Module) -> str:
        return module_name(self._forward_func, layer)
