"""The life of a layer attribution; a method adds its arithmetic."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from captum.attr import LayerAttribution
from captum.log import log_usage
from torch import Tensor, nn

from captum_mi._intervention.split import split_at
from captum_mi._intervention.suffix import LayerSuffix
from captum_mi.attr._captum import TargetType, format_outputs
from captum_mi.attr._scores import target_scores

Attributions: TypeAlias = Tensor | Any
"""A tensor; a tuple for a layer of several tensors; a list of these for a list of layers.

To type checkers it is a tensor, or anything: a union of all forms would ask every caller, who has
one layer of one tensor, to rule the others out.
"""
NEGLIGIBLE = 1e-4


class LayerMethod(LayerAttribution):
    """A Captum layer attribution made from what the model does behind the layer.

    The model runs once to trace the layers; targets, finiteness and layers without influence are
    checked; results come as Captum formats them. A subclass's ``attribute`` checks its arguments
    and hands :meth:`attribute_layers` the function that explains one suffix.

    Attributes:
        remedy: what an error says to do where a gradient is not finite.
    """

    remedy = "a half-precision model may need float32"

    def __init_subclass__(cls) -> None:
        """Puts a subclass's ``attribute`` into Captum's log of use, as Captum's own methods are."""
        super().__init_subclass__()
        if "attribute" in vars(cls):
            cls.attribute = log_usage(part_of_slo=True)(cls.attribute)

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        layer: nn.Module | list[nn.Module],
        device_ids: list[int] | None = None,
    ) -> None:
        """Stores the model and the layer; nothing is hooked before ``attribute``.

        Args:
            forward_func: the model, or any callable that runs it and returns (B,) or (B, C).
            layer: the layer, or a list of layers, each explained on its own.
            device_ids: accepted as by Captum's layer methods, and not needed. Models under
                ``DataParallel`` on several devices are refused.
        """
        LayerAttribution.__init__(self, forward_func, layer, device_ids)

    @property
    def layers(self) -> list[nn.Module]:
        """The layers, also where there is one."""
        return self.layer if isinstance(self.layer, list) else [self.layer]

    def attribute_layers(
        self,
        explain: Callable[[LayerSuffix], tuple[Tensor, ...]],
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType,
        additional_forward_args: object = None,
        *,
        at_input: bool = False,
        check: Callable[[Tensor], object] | None = None,
    ) -> Attributions:
        """Splits the model at the layers and explains the suffix behind each.

        Args:
            explain: returns one attribution for each tensor of a suffix's latent.
            inputs: (B, ...), or a tuple of such tensors.
            target: the output to explain, in any form that Captum takes.
            additional_forward_args: further arguments of ``forward_func``.
            at_input: explain the layers' inputs instead of their outputs.
            check: raises if the model's output is not one to explain; by default where ``target``
                does not fit it.

        Raises:
            ValueError: if a layer does not fire exactly once, or a result is not finite.
            AssertionError, IndexError, RuntimeError: if ``target`` does not fit the output, as
                Captum raises.
        """
        suffixes = split_at(
            self.forward_func, self.layers, inputs, additional_forward_args, at_input=at_input
        )
        return self.attribute_suffixes(explain, suffixes, target, check=check)

    def attribute_suffixes(
        self,
        explain: Callable[[LayerSuffix], tuple[Tensor, ...]],
        suffixes: Sequence[LayerSuffix],
        target: TargetType,
        *,
        check: Callable[[Tensor], object] | None = None,
    ) -> Attributions:
        """Explains suffixes, see :meth:`attribute_layers`."""
        check = check or partial(target_scores, target=target)
        check(suffixes[0].output)
        results: list[tuple[Tensor, ...]] = []
        for suffix in suffixes:
            with torch.inference_mode(mode=False), torch.no_grad():
                found = explain(suffix)
            results += suffix.split(self.checked(found, suffix.name))
        return self.formatted(results)

    def checked(self, found: Sequence[Tensor], layer_name: str) -> tuple[Tensor, ...]:
        """Returns the attributions of a layer, detached, if they are finite; may warn of them."""
        check_finite(found, layer_name, self.remedy)
        warn_if_degenerate(found, layer_name)
        return tuple(part.detach() for part in found)

    def formatted(self, results: list[tuple[Tensor, ...]]) -> Attributions:
        """Returns the layers' results as Captum does: a list only for a list of layers."""
        return format_outputs(isinstance(self.layer, list), results)


def check_finite(
    attributions: Sequence[Tensor], layer_name: str, remedy: str = LayerMethod.remedy
) -> None:
    """Raises ValueError if a gradient on the way was not finite."""
    if not all(tensor.isfinite().all() for tensor in attributions):
        raise ValueError(f"the gradient behind layer {layer_name} is not finite; {remedy}")


def warn_if_degenerate(attributions: Sequence[Tensor], layer_name: str) -> None:
    """Warns where a layer has no influence, or only one of its tokens has.

    The second is the last block under CLS or EOS pooling: no other token reaches the output. One
    block earlier they reach it only through a scale-free LayerNorm.
    """
    if not any(tensor.any() for tensor in attributions):
        warnings.warn(
            f"every attribution of layer {layer_name} is zero: the output does not depend on it",
            stacklevel=3,
        )
        return
    for tensor in attributions:
        if tensor.ndim != 3 or tensor.shape[1] == 1:
            continue
        mass = tensor.abs().sum(-1)
        others = mass.sum(1) - mass.amax(1)
        if (others < NEGLIGIBLE * mass.sum(1)).all():
            warnings.warn(
                f"only one token of layer {layer_name} carries attribution; the others do not reach"
                " the pooled token behind this layer (the last blocks of a tower that pools one"
                " token). Choose an earlier layer",
                stacklevel=3,
            )
