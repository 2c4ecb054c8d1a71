"""Grad-CAM on convolution layers and on token layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from captum.attr import LayerGradCam, LayerGradientXActivation
from torch import Tensor, nn
from torch.nn.functional import pad

from captum_mi._intervention.arguments import as_tuple
from captum_mi._intervention.precision import at_least_single
from captum_mi._intervention.suffix import LayerSuffix
from captum_mi.attr._base import Attributions, LayerMethod, check_finite, warn_if_degenerate
from captum_mi.attr._captum import TargetType, unlogged_attribute
from captum_mi.attr.channels import channel_axis
from captum_mi.attr.places import prefix_before_map


class TokenGradCam(LayerMethod):
    r"""Grad-CAM that also reads token layers, whose patches it takes for the map. Sums channels.

    Each channel is weighed by its mean gradient over the map's places,

    .. math:: L_i = \mathrm{ReLU} \Big( \sum_c w_c \, a_{ic} \Big),
              \qquad w_c = \frac1n \sum_i \frac{\partial F}{\partial a_{ic}}.

    On a token layer (B, T, D) of an image encoder the places are the patches; prefix tokens (CLS,
    registers) are left out and score zero. On a text encoder they are all tokens. On a convolution
    layer, of one to three dimensions, they are Captum's. The arithmetic is Captum's
    ``LayerGradCam``, behind the layer only.

    Where a layer holds its channels is told by its type (convolution, batch normalization and
    pooling: axis 1; ``Linear``, ``LayerNorm``, blocks made of these: the last), for maps also by
    the image's shape (Swin: (B, h, w, C)). Three axes of which nothing is known are tokens; where
    the model works on one-dimensional signals (B, C, L) too, as around a ``Conv1d``, an activation
    is refused until ``channels_last`` says what it is. A ``forward_func`` that is no module, nor a
    method of one, does not show that: give ``channels_last`` there.

    Args:
        forward_func: the model, or any callable that runs it and returns (B,) or (B, C).
        layer: the layer, or a list of layers, each explained on its own.
        device_ids: accepted as by Captum's ``LayerGradCam``, and not needed.
        elementwise: weigh each element by its own gradient instead of the channel's mean: HiResCAM,
            and what the NIB paper's table calls Grad-CAM.

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017, eq. 1 and 2.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> TokenGradCam(model, model[0]).attribute(torch.randn(2, 3, 8, 8), target=1).shape
        torch.Size([2, 1, 6, 6])
    """

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "Token Grad-CAM"

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        layer: nn.Module | list[nn.Module],
        device_ids: list[int] | None = None,
        *,
        elementwise: bool = False,
    ) -> None:
        """Stores the model and the layer; nothing is hooked before ``attribute``."""
        super().__init__(forward_func, layer, device_ids)
        self.elementwise = elementwise

    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = True,
        attr_dim_summation: bool = True,
        grad_kwargs: dict[str, Any] | None = None,
        *,
        prefix_tokens: int | None = None,
        channels_last: bool | None = None,
    ) -> Attributions:
        """Weighs the layer's channels by their gradients and sums them.

        Args:
            inputs: (B, ...), or a tuple of such tensors.
            target: the output to explain, in any form that Captum takes.
            additional_forward_args: further arguments of ``forward_func``.
            attribute_to_layer_input: explain the layer's input instead of its output.
            relu_attributions: keep positive evidence only, as the paper does (and Captum only if
                asked).
            attr_dim_summation: sum the channels; False keeps them, in the layer's shape.
            grad_kwargs: further arguments of ``torch.autograd.grad``.
            prefix_tokens: how many tokens of a token layer lie before the map. None finds it out
                where ``inputs`` is one image (B, C, H, W), from the model's patch size if it has
                one, and is 0 elsewhere.
            channels_last: whether the layer is (B, ..., C). None finds it out, see above.

        Returns:
            (B, 1, h, w) for a layer of maps, wherever it holds its channels, (B, 1, L) and
            (B, 1, d, h, w) for those of one and three dimensions, (B, T, 1) for a token layer; a
            tuple for a layer with several tensors, a list for a list of layers.

        Raises:
            ValueError: if the layer has no places beside its channels, it cannot be told which are
                which, the layer does not fire exactly once, or a NaN turns up.
            AssertionError, IndexError, RuntimeError: if ``target`` does not fit the output, as
                Captum raises.
        """
        given = as_tuple(inputs)
        layers = iter(self.layers)
        options = {"materialize_grads": True} | (grad_kwargs or {})

        def explain(suffix: LayerSuffix) -> tuple[Tensor, ...]:
            layer, found = next(layers), []
            for position, part in enumerate(suffix.latent):
                if part.ndim < 3:
                    raise ValueError(
                        f"layer {suffix.name} must have places beside its channels, such as"
                        " (B, C, h, w) or (B, T, D), for Grad-CAM, got"
                        f" {tuple(part.shape)}; choose an earlier layer"
                    )
                axis = channel_axis(part, layer, self.forward_func, given, channels_last)
                tokens = part.ndim == 3 and axis == 2
                prefix = prefix_tokens or 0
                if tokens and prefix_tokens is None:
                    prefix = prefix_before_map(part.shape[1], given, self.forward_func)
                weighed = self._weighed(suffix, position, axis, prefix, target, options)
                if attr_dim_summation:
                    weighed = weighed.sum(1, keepdim=True)
                if tokens or not attr_dim_summation:
                    weighed = weighed.movedim(1, axis)
                found.append(pad(weighed, (0, 0, prefix, 0)))
            warn_if_degenerate(found, suffix.name)
            return tuple(part.relu() for part in found) if relu_attributions else tuple(found)

        return self.attribute_layers(
            explain, inputs, target, additional_forward_args, at_input=attribute_to_layer_input
        )

    def checked(self, found: Sequence[Tensor], layer_name: str) -> tuple[Tensor, ...]:
        """Returns the maps of a layer if they are finite; warnings came before what is negative."""
        check_finite(found, layer_name)
        return tuple(found)

    def _weighed(
        self,
        suffix: LayerSuffix,
        position: int,
        axis: int,
        prefix: int,
        target: TargetType,
        grad_kwargs: dict[str, Any],
    ) -> Tensor:
        """Weighs one of the layer's tensors, its places as a map (B, C, ...) for Captum."""
        latent = at_least_single(suffix.latent[position])
        view = nn.Identity()

        def score(places: Tensor) -> Tensor:
            found = view(places).movedim(1, axis)
            whole = list(suffix.latent)
            whole[position] = torch.cat([latent[:, :prefix], found], dim=1) if prefix else found
            return suffix(*whole)

        options: dict[str, Any] = {"target": target, "grad_kwargs": grad_kwargs}
        if self.elementwise:
            method = LayerGradientXActivation(score, view)
        else:
            method = LayerGradCam(score, view)
            options["attr_dim_summation"] = False
        places = latent[:, prefix:].movedim(axis, 1).clone().requires_grad_()
        with torch.enable_grad():
            found: Tensor = unlogged_attribute(method)(places, **options)
        return found.detach()

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: attributions are the layer's values times weights."""
        return True
