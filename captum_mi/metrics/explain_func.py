"""Explanations for Quantus: the ``explain_func`` of its metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import captum.attr
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from captum_mi import attr, maps
from captum_mi._intervention.split import split_at
from captum_mi.attr.channels import channel_axis
from captum_mi.attr.methods import (
    METHODS,
    STARTS,
    Method,
    call_attribute,
    ready_method,
    ready_methods,
    takes_layer,
)
from captum_mi.models import EmbeddedText

if TYPE_CHECKING:
    from numpy.typing import NDArray


def explain(
    model: nn.Module,
    inputs: NDArray[Any],
    targets: NDArray[Any],
    method: str = "NarrowingIB",
    layer: str | None = None,
    *,
    device: str | None = None,
    channels_last: bool | None = None,
    **options: Any,
) -> NDArray[np.float32]:
    """Explains a batch for Quantus: its metrics' ``explain_func``.

    ``quantus.evaluate`` takes it in ``xai_methods={"NarrowingIB": explain, "rise": explain}``, and
    the layer in ``explain_func_kwargs={"layer": ...}``.

    Args:
        model: the model, or Quantus' copy of it.
        inputs: (B, C, H, W) images, (B, D, T) token embeddings, or (B, F) features of a table.
        targets: (B,) index of each row's output.
        method: a name in ``METHODS``, or of a class in ``captum_mi.attr`` or ``captum.attr``, that
            needs no fit. ``quantus.evaluate`` passes the key of its ``xai_methods`` here. On an
            ``EmbeddedText`` the special tokens are never masked, and are part of the default
            baseline. "rise" and "RISE" mask the layer, and without one the input. "nib" starts at
            inputs of zero (mean color, words of zero), "nib-zero" and the class NarrowingIB at the
            zero latent.
        layer: dotted name of the layer in the model, for a method that takes one. A name and not
            a module, for Quantus explains copies of the model. Of a table it must be one that holds
            the features themselves, such as the first with ``attribute_to_layer_input=True``.
        device: where to run; by default where the model is.
        channels_last: whether the layer is (B, ..., C), where that cannot be told, see
            ``TokenGradCam``.
        **options: further arguments of the method's constructor or of its ``attribute``.

    Returns:
        (B, 1, H, W) or (B, 1, T), channels summed, or (B, F), signed.

    Raises:
        TypeError: if an option is not one of the method's, or ``layer`` is a module.
        ValueError: if there is no such method or layer, or no such inputs, if a table is explained
            at a layer that does not hold its features, or if it cannot be told where the layer has
            its channels.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        >>> explain(model, np.random.rand(2, 3, 8, 8), np.array([0, 1]), layer="0").shape
        (2, 1, 8, 8)
    """
    known = _in_table(method)
    if layer is None and known is not None and known.input_kind is not None:
        layer = "tokens" if isinstance(model, EmbeddedText) else None
    kind = _kind(method) if known is None else known.explaining(layer)
    module = _layer(model, layer) if takes_layer(kind) else None
    parameter = next(model.parameters(), torch.zeros(()))
    x = torch.as_tensor(
        np.asarray(inputs), dtype=parameter.dtype, device=device or parameter.device
    )
    if x.ndim not in (2, 3, 4):
        raise ValueError(
            f"`inputs` must be (B, C, H, W), (B, D, T) or (B, F), got shape {tuple(x.shape)}"
        )
    if x.ndim == 2 and module is not None:
        at_input = bool(options.get("attribute_to_layer_input", False))
        _check_features(model, module, x, f"{layer!r}", at_input=at_input)
    offered: dict[str, object] = {
        "target": torch.as_tensor(np.asarray(targets), device=x.device),
        "channels_last": False if module is None else channels_last,
    }
    if module is not None:
        offered["layer"] = module
    blank = torch.zeros_like(x)
    if isinstance(model, EmbeddedText):  # words change, the special tokens stay
        fixed = model.fixed(x)
        offered["keep"] = fixed
        blank = x * fixed[:, None]
        if module is None:
            offered["baselines"] = blank
    if known is not None and not STARTS & options.keys():
        if known.start == "fitted":
            argument = "layer_baselines" if known.takes("layer_baselines") else "prior"
            raise ValueError(
                f"`method` {known.name!r} starts at statistics; give `{argument}`, the layer's"
                " LayerStatistics"
            )
        if known.start == "blank":
            offered["baselines"] = blank
    attribution, _ = call_attribute(kind, model, x, offered=offered, options=options)
    found: NDArray[np.float32] = (
        _as_map(attribution.detach(), x, model, module, channels_last).float().cpu().numpy()
    )
    return found


def _in_table(method: str) -> Method | None:
    """Returns the entry of a short name, or of a class that no other entry has.

    So "RISE" is "rise", whose class for layers is another, and what needs a fit is told.
    """
    for known in METHODS.values():
        alone = known.kind if known.needs_fit else known.input_kind
        if method in (known.name, alone and alone.__name__):
            return ready_method(known.name)
    return None


def _kind(method: str) -> type[captum.attr.Attribution]:
    """Returns a class of this package or of Captum by its name."""
    for found in (getattr(attr, method, None), getattr(captum.attr, method, None)):
        if isinstance(found, type) and issubclass(found, captum.attr.Attribution):
            return found
    raise ValueError(
        f"`method` must be one of {', '.join(ready_methods())}, or the name of an attribution class"
        f" in captum_mi.attr or captum.attr, got {method!r}"
    )


def _layer(model: nn.Module, layer: object) -> nn.Module:
    if isinstance(layer, nn.Module):
        raise TypeError(
            f"`layer` must be a dotted name, got a {type(layer).__name__}: Quantus explains copies"
            " of the model, in which that module never runs"
        )
    names = [name for name, _ in model.named_modules() if name]
    if layer not in names:
        raise ValueError(
            f"`layer` must name a module of {type(model).__name__}, such as {names[0]!r}, got"
            f" {layer!r}"
        )
    return model.get_submodule(str(layer))


def _check_features(
    model: nn.Module, layer: nn.Module, x: Tensor, name: str, *, at_input: bool
) -> None:
    """Raises ValueError where a layer holds other numbers than the features of a table."""
    (suffix,) = split_at(model, [layer], x, at_input=at_input)
    if len(suffix.latent) != 1 or not torch.equal(suffix.latent[0], x):
        raise ValueError(
            f"`layer` {name} holds {[tuple(part.shape) for part in suffix.latent]}, which are not"
            f" the features {tuple(x.shape)} of `inputs`, so its attribution does not belong to"
            " them; take the layer that reads them with attribute_to_layer_input=True, or a method"
            " that explains the inputs"
        )


def _as_map(
    attribution: Tensor,
    x: Tensor,
    model: nn.Module,
    layer: nn.Module | None,
    channels_last: bool | None,
) -> Tensor:
    """Sums the channels and brings the map to the places of the input, (B, 1, ...) or (B, F)."""
    if x.ndim == 2:
        return attribution
    tokens_of_an_image = x.ndim == 4 and attribution.ndim == 3
    is_a_map = attribution.ndim > 3 and attribution.shape[1] == 1
    if layer is not None and not tokens_of_an_image and not is_a_map:
        attribution = attribution.movedim(
            channel_axis(attribution, layer, model, (x,), channels_last), 1
        )
    if x.ndim == 4:
        return maps.image_map(attribution, x, model=model)
    summed = attribution.sum(1, keepdim=True)
    return interpolate(summed, size=x.shape[2:], mode="linear", align_corners=False)
