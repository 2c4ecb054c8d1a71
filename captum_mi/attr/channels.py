"""Which axis of a layer's value holds the channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from captum_mi._intervention.hooks import module_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

FEATURES_LAST = (nn.Linear, nn.Embedding, nn.MultiheadAttention, nn.RNNBase)
NORMS_LAST = (nn.LayerNorm, nn.RMSNorm)


def channel_axis(
    value: Tensor,
    layer: nn.Module,
    forward_func: Callable[..., object],
    inputs: Sequence[Tensor] = (),
    channels_last: bool | None = None,
) -> int:
    """Returns the axis of the channels: 1 for (B, C, ...), the last one for (B, ..., C).

    In this order decide: ``channels_last``; the layer's type; the shape of the image, where only
    one of the two readings of a map has it; the types of the modules inside the layer. A type
    tells where its own name, or a base's, ends in 1d, 2d or 3d and the value has as many axes of
    places (``Conv1d``, ``BatchNorm2d``, torchvision's ``LayerNorm2d``: axis 1), and where it works
    on the last axis (``Linear``, ``LayerNorm``, ``Embedding``, attention). What nothing decides is
    a map (B, C, h, w) with four axes or more, and tokens (B, T, D) with three; but next to modules
    of one-dimensional signals it may be (B, C, L) as well and has to be said.

    Args:
        value: (B, ...), the layer's value or an attribution of that many axes.
        layer: the layer.
        forward_func: the model, or any callable that runs it; only a module, or a method of one,
            shows whether it works on one-dimensional signals.
        inputs: what the model was given; the first (B, C, H, W) is the image.
        channels_last: the answer, from who knows it.

    Raises:
        ValueError: if it cannot be told.

    Example:
        >>> block = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8))
        >>> channel_axis(torch.zeros(1, 7, 7, 8), block, block)
        3
    """
    last = value.ndim - 1
    if channels_last is not None:
        return last if channels_last else 1
    if value.ndim == 2:
        return 1
    own = _told(layer, value.ndim)
    if own is not None:
        return own
    fitting = _of_the_image(value, inputs)
    inside = {_told(module, value.ndim) for module in layer.modules()} - {None}
    for candidates in (fitting, inside):
        if len(candidates) == 1:
            return next(iter(candidates))  # type: ignore[return-value]
    if not inside and value.ndim > 3:
        return 1
    if not inside and 1 not in {_told(module, 3) for module in _modules(forward_func)}:
        return last
    first_form, last_form = (
        ("(B, C, L)", "tokens (B, T, D)")
        if value.ndim == 3
        else ("(B, C, ...)", "maps (B, ..., C)")
    )
    raise ValueError(
        f"`channels_last` must be given: the value {tuple(value.shape)} of layer"
        f" {module_name(forward_func, layer)} may hold {first_form} or {last_form}; pass False for"
        " the first, True for the second"
    )


def _told(module: nn.Module, ndim: int) -> int | None:
    """Returns what a module's type tells of a value of ``ndim`` axes."""
    if any(kind.__name__.endswith(f"{ndim - 2}d") for kind in type(module).__mro__):
        return 1
    if type(module) in NORMS_LAST:  # of one axis; a subclass may put it elsewhere
        return ndim - 1 if len(module.normalized_shape) == 1 else None  # type: ignore[arg-type]
    return ndim - 1 if isinstance(module, FEATURES_LAST) else None


def _of_the_image(value: Tensor, inputs: Sequence[Tensor]) -> set[int]:
    """Returns the readings of a map that have the shape of the image, up to rounding."""
    images = [given for given in inputs if given.ndim == 4]
    if value.ndim != 4 or not images:
        return set()
    height, width = images[0].shape[2:]
    places = {1: value.shape[2:], 3: value.shape[1:3]}
    return {
        axis
        for axis, (rows, columns) in places.items()
        if abs(rows * width - columns * height) <= 2 * max(height, width)
    }


def _modules(forward_func: Callable[..., object]) -> Iterable[nn.Module]:
    owner = getattr(forward_func, "__self__", forward_func)
    return owner.modules() if isinstance(owner, nn.Module) else ()
