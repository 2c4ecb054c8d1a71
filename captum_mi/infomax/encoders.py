"""Encoders of images, and what they hold at the layers by which Deep InfoMax reads them."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_mi._checks import check_positive
from captum_mi._intervention import nested
from captum_mi._intervention.hooks import edit_output

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SMALL = 28
"""Pixels up to which images are small: two convolutions of 5x5 instead of three of 4x4."""
HIDDEN = 1024
CHUNK = 500


class ConvEncoder(nn.Sequential):
    """The paper's encoder: convolutions that halve the image, a dense layer, a linear code.

    Each convolution and the dense layer, ``fc``, have batch normalization and ReLU; ``code`` is
    linear. Up to 28 pixels there are two convolutions of 5x5, ``conv1`` and ``conv2`` with 64 and
    128 channels, of which 28x28 pixels leave 7x7 places; below 16 pixels the first keeps the size.
    Larger images have three of 4x4, the third with 256 channels; of 32x32 pixels the second leaves
    8x8 places.

    Args:
        channels: of the images.
        size: their height and width, at least 4.
        dim: of the code.

    Raises:
        ValueError: if an argument is too small.

    Source: Hjelm et al., ICLR 2019, section 4 (32x32, as a DCGAN's discriminator); the form for
    28x28 is that of their code.

    Example:
        >>> encoder = ConvEncoder(1, 28)
        >>> [name for name, _ in encoder.named_children()]
        ['conv1', 'conv2', 'fc', 'code']
        >>> encoder(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 64])
    """

    def __init__(self, channels: int = 1, size: int = 28, dim: int = 64) -> None:
        """Draws the weights from torch's global generator."""
        check_positive("dim", dim)
        if size < 4:
            raise ValueError(f"`size` must be at least 4 pixels, got {size}")
        widths, kernel, padding = ((64, 128), 5, 2) if size <= SMALL else ((64, 128, 256), 4, 1)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        before = check_positive("channels", channels)
        for number, after in enumerate(widths, start=1):
            stride = 1 if size < 16 and number == 1 else 2
            convolution = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
            layers[f"conv{number}"] = nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())
            before, size = after, (size + 2 * padding - kernel) // stride + 1
        features = before * size**2
        dense = nn.Linear(features, HIDDEN, bias=False)
        layers["fc"] = nn.Sequential(nn.Flatten(), dense, nn.BatchNorm1d(HIDDEN), nn.ReLU())
        layers["code"] = nn.Linear(HIDDEN, dim)
        super().__init__(layers)


def layer_values(model: nn.Module, names: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """Returns what layers hold in one pass of a model, with gradients; no hook stays behind.

    Args:
        model: of the images.
        names: of the layers, dotted.
        images: (B, ...).

    Returns:
        by name the layer's tensor, (B, ...).

    Raises:
        ValueError: if the model has no such layer, or it does not fire once with one
            floating-point tensor of a row for each image.

    Example:
        >>> found = layer_values(ConvEncoder(), ["conv2", "fc"], torch.rand(2, 1, 28, 28))
        >>> {name: tuple(value.shape) for name, value in found.items()}
        {'conv2': (2, 128, 7, 7), 'fc': (2, 1024)}
    """
    modules = dict(model.named_modules())
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    with ExitStack() as stack:
        for name, seen in found.items():
            if name not in modules:
                known = ", ".join(filter(None, modules))
                raise ValueError(
                    f"{type(model).__name__} has no layer {name!r}; there are {known[:300]}"
                )

            def keep(value: object, seen: list[Tensor] = seen) -> None:
                # A copy, for a ReLU behind the layer may work in place.
                seen.extend(one.clone() for one in nested.take(value, nested.floating(value)))

            stack.enter_context(edit_output(modules[name], keep))
        model(images)
    for name, seen in found.items():
        if len(seen) != 1 or seen[0].ndim < 2 or len(seen[0]) != len(images):
            raise ValueError(
                f"layer {name!r} must fire once in a pass, with one tensor ({len(images)}, ...),"
                f" got {[tuple(one.shape) for one in seen]}"
            )
    return {name: seen[0] for name, seen in found.items()}


def places(value: Tensor) -> Tensor:
    """Returns the places of a layer's tensor, (B, K, C).

    Args:
        value: a map (B, C, h, w), tokens (B, T, C), or one vector (B, C), which is one place.

    Raises:
        ValueError: if it has another number of axes.

    Example:
        >>> places(torch.rand(2, 128, 7, 7)).shape, places(torch.rand(2, 64)).shape
        (torch.Size([2, 49, 128]), torch.Size([2, 1, 64]))
    """
    if value.ndim == 2:
        return value[:, None]
    if value.ndim == 3:
        return value
    if value.ndim == 4:
        return value.flatten(2).mT
    raise ValueError(
        "`layer` must hold (B, C, h, w), (B, T, C) or (B, C), got shape"
        f" {tuple(value.shape)}; choose another layer"
    )


def read_layers(
    model: nn.Module, names: Sequence[str], images: Tensor | Iterable[Any]
) -> dict[str, Tensor]:
    """Returns what layers hold of many images, in evaluation mode, and leaves the model as it was.

    Args:
        model: of the images; they are brought to its device part by part.
        names: of the layers, dotted.
        images: (N, ...), or batches, as :func:`image_batches` takes them.

    Returns:
        by name the layer's values, (N, D), flattened, on the CPU.

    Raises:
        ValueError: as :func:`layer_values`.

    Example:
        >>> read_layers(ConvEncoder(), ["code"], torch.rand(9, 1, 28, 28))["code"].shape
        torch.Size([9, 64])
    """
    device = device_of(model)
    with evaluating(model):
        parts = [
            layer_values(model, names, part.to(device)) for part in image_batches(images, CHUNK)
        ]
    return {name: torch.cat([part[name].flatten(1).cpu() for part in parts]) for name in names}


def image_batches(images: Tensor | Iterable[Any], size: int) -> Iterator[Tensor]:
    """Yields batches of images.

    Args:
        images: (N, ...), of which as many at a time as ``size`` says; or a loader of batches,
            tensors or tuples whose first entry is one, such as (images, labels).
        size: images of a batch.

    Raises:
        TypeError: if a batch of the loader is something else.

    Example:
        >>> [len(batch) for batch in image_batches(torch.rand(5, 1, 8, 8), 2)]
        [2, 2, 1]
        >>> [len(batch) for batch in image_batches([(torch.rand(3, 1, 8, 8), None)], 2)]
        [3]
    """
    if isinstance(images, Tensor):
        yield from torch.split(images, size)
        return
    for batch in images:
        first = batch[0] if isinstance(batch, (tuple, list)) else batch
        if not isinstance(first, Tensor):
            raise TypeError(
                "`images` must be a tensor, or batches that are tensors or start with one, got a"
                f" batch of {type(first).__name__}"
            )
        yield first


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Runs in evaluation mode without gradients; each module has its own mode again behind it."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def device_of(model: nn.Module) -> torch.device:
    """Returns where a model's parameters are; the CPU if it has none."""
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))
