"""What a code keeps of the image: a decoder trained on frozen codes, and how near it comes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from captum_mi._checks import brief
from captum_mi.infomax.encoders import CHUNK, HIDDEN, evaluating
from captum_mi.infomax.training import Training

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, from fine to coarse, of Wang et al. 2003."""
WINDOW = 11


class Reconstruction(NamedTuple):
    """How near decoded images come to their originals.

    Attributes:
        squared_error: mean over pixels, of a range of 1.
        ms_ssim: multi-scale structural similarity; NaN where the images are too small for it.
    """

    squared_error: float
    ms_ssim: float


class Decoder(nn.Module):
    """Draws images, in [0, 1], from codes: two dense layers and two transposed convolutions.

    Args:
        dim: of the codes, which batch normalization standardizes.
        shape: (C, H, W) of the images.

    Example:
        >>> Decoder(64, (1, 28, 28))(torch.randn(2, 64)).shape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(self, dim: int, shape: tuple[int, int, int]) -> None:
        """Draws the weights from torch's global generator."""
        super().__init__()
        channels, self.height, self.width = shape
        rows, columns = -(-self.height // 4), -(-self.width // 4)
        self.layers = nn.Sequential(
            nn.BatchNorm1d(dim, affine=False),
            *(nn.Linear(dim, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU()),
            *(nn.Linear(HIDDEN, 128 * rows * columns), nn.Unflatten(1, (128, rows, columns))),
            *(nn.BatchNorm2d(128), nn.ReLU(), nn.ConvTranspose2d(128, 64, 4, 2, 1)),
            *(nn.BatchNorm2d(64), nn.ReLU(), nn.ConvTranspose2d(64, channels, 4, 2, 1)),
            nn.Sigmoid(),
        )

    def forward(self, codes: Tensor) -> Tensor:
        """Returns images, (B, C, H, W), of codes, (B, D)."""
        drawn: Tensor = self.layers(codes)
        return drawn[..., : self.height, : self.width]


def fit_decoder(codes: Tensor, images: Tensor, *, epochs: int = 10, seed: int = 0) -> Decoder:
    """Trains a decoder of frozen codes by the squared error of its images.

    Args:
        codes: (N, D).
        images: (N, C, H, W), in [0, 1].
        epochs: passes over the images, in batches of 128.
        seed: of weights and order.

    Returns:
        the decoder, in evaluation mode.

    Example:
        >>> decoder = fit_decoder(torch.randn(64, 4), torch.rand(64, 1, 8, 8))
        >>> reconstruction(decoder, torch.randn(5, 4), torch.rand(5, 1, 8, 8)).squared_error < 0.2
        True
    """
    training = Training(epochs, batch_size=128, seed=seed)
    channels, height, width = images.shape[1:]
    with training.seeded(codes.device):
        decoder = Decoder(codes.shape[1], (channels, height, width)).to(codes.device)
    training.run(
        lambda rows: (decoder(codes[rows]) - images[rows]).square().mean(),
        decoder,
        lambda generator: iter(training.rows(len(codes), generator)),
        len(codes) // min(training.batch_size, len(codes)),
        "decoder",
    )
    return decoder.eval()


def reconstruction(decoder: nn.Module, codes: Tensor, images: Tensor) -> Reconstruction:
    """Returns how near the images of codes, (N, D), come to ``images``, (N, C, H, W)."""
    with evaluating(decoder):
        drawn = torch.cat([decoder(part) for part in torch.split(codes, CHUNK)])
    similarity = multi_scale_ssim(drawn, images) if _scales(images) else float("nan")
    return Reconstruction(float((drawn - images).square().mean()), similarity)


def multi_scale_ssim(x: Tensor, y: Tensor) -> float:
    """Returns the multi-scale structural similarity of images, in [0, 1]; 1 for equal ones.

    The window is a Gaussian of deviation 1.5 on 11x11 pixels. Five scales need 176 pixels; smaller
    images have as many as leave a window, with the exponents of the first ones made to sum to 1:
    28x28 and 32x32 pixels have two, so that little of it is of more than one scale.

    Args:
        x: (N, C, H, W), of values in [0, 1].
        y: likewise.

    Raises:
        ValueError: if the images have fewer than 11 pixels, or different shapes.

    Source: Wang, Simoncelli and Bovik, "Multiscale structural similarity for image quality
    assessment", 2003; computed by torchmetrics.

    Example:
        >>> images = torch.rand(4, 1, 28, 28)
        >>> multi_scale_ssim(images, images), multi_scale_ssim(images, 1 - images) < 0.1
        (1.0, True)
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    if x.shape != y.shape:
        raise ValueError(f"`y` must have the shape of `x`, {tuple(x.shape)}, got {brief(y)}")
    scales = _scales(x)
    if not scales:
        raise ValueError(f"`x` must be images of at least {WINDOW} pixels, got {brief(x)}")
    weights = WEIGHTS[:scales]
    total = 0.0
    for first, second in zip(torch.split(x, CHUNK), torch.split(y, CHUNK), strict=True):
        found = multiscale_structural_similarity_index_measure(
            first,
            second,
            kernel_size=WINDOW,
            data_range=1.0,
            betas=tuple(weight / sum(weights) for weight in weights),
            reduction="sum",
        )
        total += float(found)
    return total / len(x)


def _scales(images: Tensor) -> int:
    """Returns how many scales images have whose window fits, as torchmetrics counts them."""
    size = min(images.shape[-2:])
    fitting = [n for n in range(1, len(WEIGHTS) + 1) if size // max(1, n - 1) ** 2 >= WINDOW]
    return len(fitting)
