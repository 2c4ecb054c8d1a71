"""Noise in a network's layers, by hooks, in training and in evaluation."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from captum_mi._checks import check_choice
from captum_mi._intervention import nested
from captum_mi.infoplane.layers import named_layers

if TYPE_CHECKING:
    from typing_extensions import Self


class NoisyLayers:
    """Noise that is on until :meth:`remove`, or to the end of a ``with`` block.

    Made by :func:`stochastic`.

    Attributes:
        names: of the layers.
    """

    def __init__(
        self,
        layers: dict[str, nn.Module],
        sigma: float,
        *,
        relative: bool,
        at: Literal["input", "output"],
        seed: int,
    ) -> None:
        """Hooks the layers."""
        self.names = tuple(layers)
        self._sigma = sigma
        self._relative = relative
        self._at = at
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}
        self._handles = [
            layer.register_forward_pre_hook(self._on_input, with_kwargs=True)
            if at == "input"
            else layer.register_forward_hook(self._on_output)
            for layer in layers.values()
        ]
        _forget_compiled()

    def remove(self) -> None:
        """Takes the noise away; the model is as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        _forget_compiled()

    @property
    def added(self) -> float:
        """Deviation of what is added to outputs, whatever they are; 0 of other noise."""
        return self._sigma if self._at == "output" and not self._relative else 0.0

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Draws in the block what will be drawn again behind it."""
        states = {device: drawn.get_state() for device, drawn in self._generators.items()}
        try:
            yield
        finally:
            for device in self._generators.keys() - states.keys():
                del self._generators[device]
            for device, state in states.items():
                self._generators[device].set_state(state)

    def __enter__(self) -> Self:
        """Returns itself; the noise is on already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Takes the noise away."""
        self.remove()

    def _on_input(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return nested.map_tensors(self._noisy, (args, kwargs))

    def _on_output(self, _module: nn.Module, _args: object, output: object) -> object:
        return nested.map_tensors(self._noisy, output)

    def _noisy(self, values: Tensor) -> Tensor:
        if not values.is_floating_point():
            return values
        if self._relative and 0 < self._sigma < torch.finfo(values.dtype).eps:
            raise ValueError(
                f"`sigma` must be at least {torch.finfo(values.dtype).eps:.2g} for layers in"
                f" {values.dtype}, whose rounding swallows less, got {self._sigma}"
            )
        generator = self._generators.get(values.device)
        if generator is None:
            generator = torch.Generator(values.device).manual_seed(self._seed)
            self._generators[values.device] = generator
        noise = torch.randn(
            values.shape, generator=generator, device=values.device, dtype=values.dtype
        )
        noise = self._sigma * noise
        return values * (1 + noise) if self._relative else values + noise


def noises(module: nn.Module) -> list[NoisyLayers]:
    """Returns the noise that is on at the input or at the output of a module."""
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    owners = [getattr(hook, "__self__", None) for hook in hooks]
    return [owner for owner in owners if isinstance(owner, NoisyLayers)]


def _forget_compiled() -> None:
    """Has compiled models look at their hooks again."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def stochastic(
    model: nn.Module,
    layers: Iterable[nn.Module | str],
    sigma: float,
    relative: bool = True,
    *,
    at: Literal["input", "output"] = "input",
    seed: int = 0,
) -> NoisyLayers:
    r"""Adds normal noise to layers of a model, in training and in evaluation.

    .. math:: x \, (1 + \sigma n) \text{ (relative)}, \quad x + \sigma n, \quad n \sim N(0, 1)

    Without noise, a layer of a network with continuous inputs holds infinite information about
    them, whatever an estimator says; with it, the information is a number. Gradients pass.

    Every floating-point tensor that the layer takes (or returns) is given noise. Where a value is
    zero, as behind a ReLU, relative noise is zero too. Activation checkpointing draws anew when it
    computes again, so that its gradients are those of other noise.

    Args:
        model: the model.
        layers: modules of the model, or their dotted names.
        sigma: of the noise, at least 0.
        relative: multiply the noise by the value, Gaussian dropout; False adds it as it is, which
            is what bounds on what a compression hides need.
        at: "input", before the layer runs, or "output", behind it.
        seed: of a generator of its own: PyTorch's global one is not touched. Each pass draws anew.

    Returns:
        a handle with ``remove()``, which may be used in a ``with`` block.

    Raises:
        TypeError: if a layer is no module or name.
        ValueError: if ``sigma`` is negative or not finite, or the model has no such layer; in a
            pass, if relative noise is below the rounding of the layer's numbers, as 1e-3 is in
            bfloat16.

    Source: Butakov et al., ICLR 2024, section 6 (relative noise of 1e-3 at every layer's input).

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
        >>> x = torch.randn(5, 3)
        >>> with stochastic(model, ["0", "2"], 0.1):
        ...     torch.equal(model(x), model(x))
        False
        >>> torch.equal(model(x), model(x))
        True
    """
    if not 0 <= sigma < math.inf:
        raise ValueError(f"`sigma` must be finite and not negative, got {sigma}")
    check_choice("at", at, ("input", "output"))
    return NoisyLayers(named_layers(model, layers), sigma, relative=relative, at=at, seed=seed)
