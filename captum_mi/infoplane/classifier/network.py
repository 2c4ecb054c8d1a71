"""The network whose information plane the paper draws."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from captum_mi.infoplane.classifier.data import CLASSES

SLOPE = 0.01
CHANNELS = (8, 16, 32)
HIDDEN = 32
UNPADDED = 22
"""Pixels of the smallest image that three blocks without padding leave something of."""


class Classifier(nn.Sequential):
    """Three convolutions and two dense layers, ``L1`` to ``L5``; returns logarithms of shares.

    A convolution is followed by pooling and LeakyReLU, so that 28x28 pixels end as 32 numbers, as
    the paper's next layer has it. Images below 22 pixels are padded, which makes 8x8 end likewise.

    Args:
        channels: of the images.
        size: their height and width, at least 8.

    Raises:
        ValueError: if the images are too small.

    Source: Butakov et al., ICLR 2024, table 1; the pooling is in their code alone.

    Example:
        >>> network = Classifier(1, 28)
        >>> network.L4[1]
        Linear(in_features=32, out_features=32, bias=True)
        >>> network(torch.rand(5, 1, 28, 28)).exp().sum(1).round(decimals=4)
        tensor([1., 1., 1., 1., 1.], grad_fn=<RoundBackward1>)
    """

    def __init__(self, channels: int = 1, size: int = 28) -> None:
        """Draws the weights from torch's global generator."""
        if size < 8:
            raise ValueError(f"`size` must be at least 8 pixels, got {size}")
        padding = int(size < UNPADDED)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        before = channels
        for number, after in enumerate(CHANNELS, start=1):
            layers[f"L{number}"] = nn.Sequential(
                nn.Conv2d(before, after, 3, padding=padding), nn.MaxPool2d(2), nn.LeakyReLU(SLOPE)
            )
            before, size = after, (size + 2 * padding - 2) // 2
        features = before * size**2
        layers["L4"] = nn.Sequential(nn.Flatten(), nn.Linear(features, HIDDEN), nn.LeakyReLU(SLOPE))
        layers["L5"] = nn.Sequential(nn.Linear(HIDDEN, CLASSES), nn.LogSoftmax(1))
        super().__init__(layers)
