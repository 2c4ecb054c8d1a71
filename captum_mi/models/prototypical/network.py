"""Prototypical networks: an image belongs to the class whose mean embedding is nearest."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from captum_mi._checks import brief, check_positive
from captum_mi._intervention.precision import at_least_single
from captum_mi._state_file import read_state, write_state


class Conv4(nn.Module):
    """Four blocks of convolution, batch normalization, ReLU and pooling; embeds images.

    The blocks are ``blocks[0]`` .. ``blocks[3]``; ``avgpool`` takes the mean over the places of the
    last.

    Args:
        channels: of the images.
        width: channels of every block, and dimension of the embedding.

    Raises:
        ValueError: if an argument is not positive.

    Source: the embedding of Snell et al., NeurIPS 2017, section 3.1, with global average pooling
    behind it, so that images may have any size from 16 pixels.

    Example:
        >>> Conv4(width=8)(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 8])
    """

    def __init__(self, channels: int = 3, width: int = 64) -> None:
        """Draws the weights from torch's global generator."""
        super().__init__()
        self.channels = check_positive("channels", channels)
        self.width = check_positive("width", width)
        self.blocks = nn.Sequential(_block(channels, width), *(_block(width, width) for _ in "234"))
        self.avgpool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the embeddings, (B, width), of images (B, channels, H, W)."""
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ValueError(f"`images` must be (B, {self.channels}, H, W), got {brief(images)}")
        pooled: Tensor = self.avgpool(self.blocks(images))
        return pooled.flatten(1)

    def save(self, path: str | Path) -> None:
        """Writes settings and weights as safetensors."""
        settings = {"channels": self.channels, "width": self.width}
        write_state(path, self, {"settings": settings})

    @classmethod
    def load(cls, path: str | Path) -> Conv4:
        """Reads what :meth:`save` wrote: on the CPU, in evaluation mode.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds something else.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no network {str(path)!r}; train and save one")
        state, facts = read_state(path, ["settings"], "Conv4")
        try:
            with torch.random.fork_rng(devices=[]):
                loaded = cls(**facts["settings"])
            loaded.load_state_dict(state)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"`path` {str(path)!r} holds no Conv4") from error
        return loaded.eval()


def _block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)
    )


class PrototypicalNetwork(nn.Module):
    r"""Classifies images by the nearest of N class means; ``target`` is the index of a way.

    .. math:: p(y = k \mid x) \propto \exp(-\lVert f(x) - c_k \rVert^2), \quad
        c_k = \frac{1}{|S_k|} \sum_{x_i \in S_k} f(x_i)

    ``forward`` returns the exponents, so that their log-softmax is the log-likelihood of the ways.

    Args:
        backbone: f, embeds images (B, C, H, W) as (B, D).
        support: (N * K, C, H, W), the labeled images; embedded once, here.
        support_labels: (N * K,), the way of each, in 0 .. N - 1; every way has one at least.

    Attributes:
        prototypes: (N, D) buffer, the class means, float32 for half-precision models.

    Raises:
        RuntimeError: if the backbone is in training mode.
        ValueError: if the labels are not one for each image or leave out a way, or the embeddings
            are not (N * K, D).

    Source: Snell et al., "Prototypical Networks for Few-shot Learning", NeurIPS 2017, equations 1
    and 2.

    Example:
        >>> support, labels = torch.rand(6, 3, 64, 64), torch.tensor([0, 0, 1, 1, 2, 2])
        >>> network = PrototypicalNetwork(Conv4(width=8).eval(), support, labels)
        >>> network(torch.rand(4, 3, 64, 64)).log_softmax(1).shape
        torch.Size([4, 3])
    """

    prototypes: Tensor

    def __init__(self, backbone: nn.Module, support: Tensor, support_labels: Tensor) -> None:
        """Embeds the support."""
        super().__init__()
        if backbone.training:
            raise RuntimeError("`backbone` must be in evaluation mode; call backbone.eval() first")
        _check_labels(support, support_labels)
        self.backbone = backbone
        self.training = False
        with torch.no_grad():
            features = backbone(support)
        if features.ndim != 2:
            raise ValueError(f"`backbone` must return (B, D), got {brief(features)}")
        self.register_buffer("prototypes", class_means(features, support_labels))

    def forward(self, images: Tensor) -> Tensor:
        """Returns minus the squared distances to the prototypes.

        Args:
            images: (B, C, H, W).

        Returns:
            (B, N), at most 0, float32 for half-precision models.
        """
        return closeness(self.backbone(images), self.prototypes)


def class_means(features: Tensor, labels: Tensor) -> Tensor:
    """Returns the prototypes (N, D), the means of features (M, D) with one label: equation 1."""
    features = at_least_single(features)
    ways = range(int(labels.max()) + 1)
    return torch.stack([features[labels == way].mean(0) for way in ways])


def closeness(features: Tensor, prototypes: Tensor) -> Tensor:
    """Returns minus the squared distances (B, N), the exponents of equation 2."""
    return -(at_least_single(features)[:, None] - prototypes).square().sum(-1)


def _check_labels(support: Tensor, labels: Tensor) -> None:
    if labels.shape != support.shape[:1]:
        raise ValueError(
            f"`support_labels` must be one for each of {len(support)} images, got {brief(labels)}"
        )
    found = sorted(set(labels.tolist()))
    if not found or found != list(range(len(found))):
        raise ValueError(f"`support_labels` must be all of 0 .. N - 1, got {found}")
