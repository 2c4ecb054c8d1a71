"""Grad-CAM on convolution layers and on token layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum._utils.typing import TargetType
from captum.attr import LayerGradCam, LayerGradientXActivation
from captum.attr._utils.attribution import LayerAttribution
from captum.log import log_usage
from torch import Tensor, nn

from captum_mi._nested import at_least_single
from captum_mi._suffix import LayerSuffix
from captum_mi.attr._layers import explain_layers
from captum_mi.maps import token_grid


class TokenGradCam(LayerAttribution):  # type: ignore[misc]
    r"""Grad-CAM that also reads token layers, whose patches it takes for the map. Sums channels.

    Each channel is weighed by its mean gradient over the map's places,

    .. math:: L_i = \mathrm{ReLU} \Big( \sum_c w_c \, a_{ic} \Big),
              \qquad w_c = \frac1n \sum_i \frac{\partial F}{\partial a_{ic}}.

    On a token layer (B, T, D) of an image encoder the places are the patches; prefix tokens (CLS,
    registers) are left out and score zero. On a text encoder they are all tokens. The arithmetic is
    Captum's ``LayerGradCam``, behind the layer only.

    Args:
        forward_func: the model, or any callable that runs it and returns (B,) or (B, C).
        layer: the layer, or a list of layers, each explained on its own.
        elementwise: weigh each element by its own gradient instead of the channel's mean: HiResCAM,
            and what the NIB paper's table calls Grad-CAM.

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017, eq. 1 and 2.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> TokenGradCam(model, model[0]).attribute(torch.randn(2, 3, 8, 8), target=1).shape
        torch.Size([2, 1, 6, 6])
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | list[nn.Module],
        *,
        elementwise: bool = False,
    ) -> None:
        """Stores the model and the layer; nothing is hooked before ``attribute``."""
        LayerAttribution.__init__(self, forward_func, layer)
        self.elementwise = elementwise

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "Token Grad-CAM"

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,  # noqa: ANN401
        *,
        relu_attributions: bool = True,
        prefix_tokens: int | None = None,
        attribute_to_layer_input: bool = False,
    ) -> Any:  # noqa: ANN401
        """Weighs the layer's channels by their gradients and sums them.

        Args:
            inputs: (B, ...), or a tuple of such tensors.
            target: the output to explain, in any form that Captum takes.
            additional_forward_args: further arguments of ``forward_func``.
            relu_attributions: keep positive evidence only, as the paper does.
            prefix_tokens: how many tokens of a token layer lie before the map. None finds it out
                where ``inputs`` is one image (B, C, H, W), and is 0 elsewhere.
            attribute_to_layer_input: explain the layer's input instead of its output.

        Returns:
            (B, 1, h, w) for a convolution layer, (B, T, 1) for a token layer; a tuple for a layer
            with several tensors, a list for a list of layers.

        Raises:
            ValueError: if the layer is neither (B, C, h, w) nor (B, T, D), does not fire exactly
                once, or a NaN turns up.
            AssertionError: if ``target`` does not fit the output (as Captum raises).
        """
        images = inputs if isinstance(inputs, tuple) else (inputs,)
        size = images[0].shape[-2:] if len(images) == 1 and images[0].ndim == 4 else None

        def explain(suffix: LayerSuffix) -> tuple[Tensor, ...]:
            return tuple(
                self._map(suffix, i, target, prefix_tokens, size, relu=relu_attributions)
                for i in range(len(suffix.latent))
            )

        return explain_layers(
            self,
            explain,
            inputs,
            target,
            additional_forward_args,
            at_input=attribute_to_layer_input,
        )

    def _map(
        self,
        suffix: LayerSuffix,
        position: int,
        target: TargetType,
        prefix_tokens: int | None,
        size: torch.Size | None,
        *,
        relu: bool,
    ) -> Tensor:
        """Explains one of the layer's tensors, its places as a map (B, D, ...) for Captum."""
        latent = at_least_single(suffix.latent[position])
        if latent.ndim not in (3, 4):
            raise ValueError(
                f"layer {suffix.name} must be (B, C, h, w) or (B, T, D) for Grad-CAM, got"
                f" {tuple(latent.shape)}"
            )
        tokens = latent.ndim == 3
        prefix = prefix_tokens or 0
        if tokens and prefix_tokens is None and size is not None:
            prefix = token_grid(latent.shape[1], size).prefix
        view = nn.Identity()

        def score(places: Tensor) -> Tensor:
            found = view(places)
            if tokens:
                found = torch.cat([latent[:, :prefix], found.transpose(1, 2)], dim=1)
            whole = list(suffix.latent)
            whole[position] = found
            return suffix(*whole)

        places = latent[:, prefix:].transpose(1, 2) if tokens else latent
        method = (LayerGradientXActivation if self.elementwise else LayerGradCam)(score, view)
        with torch.enable_grad():
            found: Tensor = method.attribute.__wrapped__(
                method,
                places.clone().requires_grad_(),
                target=target,
                grad_kwargs={"materialize_grads": True},
            )
        found = found.detach().sum(1, keepdim=True)
        if relu:
            found = found.relu()
        if not tokens:
            return found
        return torch.cat([latent.new_zeros(len(latent), prefix, 1), found.transpose(1, 2)], dim=1)
