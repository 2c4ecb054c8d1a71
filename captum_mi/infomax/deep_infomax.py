"""Deep InfoMax: an encoder learns codes that tell much of their images, and little else."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_mi._state_file import read_state, write_state
from captum_mi.infomax.encoders import (
    device_of,
    evaluating,
    image_batches,
    layer_values,
    places,
    read_layers,
)
from captum_mi.infomax.objectives import Information, Mixture
from captum_mi.infomax.prior import PriorMatching
from captum_mi.infomax.training import Training, train_on

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from captum_mi._training import Progress


class DeepInfoMax(nn.Module):
    r"""Trains an encoder without labels, by what its codes tell of its own earlier layer.

    .. math:: \max \; \alpha\, \hat I(C; E) + \frac{\beta}{K} \sum_k \hat I(C_k; E) - \gamma L_E

    E is the code and C the map, with the places C_k, of an image. Critics, the prior's
    discriminator and the encoder take their steps together, each by its own loss.

    Args:
        encoder: any network of images; trained in place, where its parameters are, those that take
            gradients.
        layer: dotted name of the layer whose tensor is the map: (B, C, h, w), (B, T, C) or (B, C).
        global_layer: name of the layer whose tensor, flattened, is the code.
        mixture: weights, bound and critic; None for ``Mixture()``, which is DIM(L) with InfoNCE.

    Attributes:
        encoder: the encoder.
        history: of :meth:`fit`, the mean loss of each epoch.

    Source: Hjelm et al., "Learning deep representations by mutual information estimation and
    maximization", ICLR 2019.

    Example:
        >>> from captum_mi.infomax import ConvEncoder
        >>> images = torch.rand(128, 1, 8, 8)
        >>> infomax = DeepInfoMax(ConvEncoder(1, 8), "conv2", "code")
        >>> infomax = infomax.fit(images, Training(epochs=2))
        >>> infomax.transform(images).shape
        torch.Size([128, 64])
        >>> sorted(infomax.bounds(images))
        ['local', 'told_apart']
    """

    whole: Information | None
    local: Information | None
    prior: PriorMatching | None

    def __init__(
        self, encoder: nn.Module, layer: str, global_layer: str, mixture: Mixture | None = None
    ) -> None:
        """Stores the arguments."""
        super().__init__()
        self.encoder = encoder
        self.layer = layer
        self.global_layer = global_layer
        self.mixture = mixture or Mixture()
        self.whole = self.local = self.prior = None
        self.history: list[Progress] = []
        self._shape: tuple[int, ...] | None = None

    def fit(self, images: Tensor | Iterable[Any], training: Training | None = None) -> DeepInfoMax:
        """Trains the encoder, from the weights that it has, with new critics.

        Args:
            images: (N, ...), as the encoder takes them; or a loader of batches, at least two images
                each, with or without labels, which are not looked at.
            training: epochs, batches, rate and seed; None for ``Training()``.

        Returns:
            itself.

        Raises:
            ValueError: if a layer is unknown or has no such tensor, or training diverges.
        """
        training = training or Training()
        first = next(image_batches(images, 2), None)
        if first is None or len(first) < 2:
            raise ValueError("`images` must hold batches of at least two images")
        with evaluating(self.encoder):
            map_, codes = self._read(first.to(device_of(self.encoder)))
        with training.seeded(codes.device):
            self._build((codes.shape[1], *map_.shape[1:]))
        self.to(codes.device)
        noise = torch.Generator(codes.device).manual_seed(training.seed)
        self.history = train_on(
            images, lambda batch: self._loss(batch, noise), self, training, self.mixture.name
        )
        return self

    def transform(self, images: Tensor | Iterable[Any]) -> Tensor:
        """Returns the codes of images, (N, D), on the CPU, in evaluation mode."""
        return read_layers(self.encoder, [self.global_layer], images)[self.global_layer]

    @torch.no_grad()
    def bounds(self, images: Tensor | Iterable[Any], batch_size: int = 64) -> dict[str, float]:
        """Returns what is bounded, of images that should be none of those trained on.

        Args:
            images: (N, ...), or a loader of batches.
            batch_size: images of a batch; a last one that is smaller is left out.

        Returns:
            "global" and "local", nats, the bounds that have a weight, in the mean over batches; and
            with prior matching "told_apart", the share of codes and uniform samples that the
            discriminator tells apart; 0.5 is chance.
        """
        self._fitted()
        found: dict[str, list[float]] = {}
        draws = torch.Generator(device_of(self)).manual_seed(0)
        with evaluating(self):
            for batch in self._whole_batches(images, batch_size):
                map_, codes = self._read(batch)
                if self.whole is not None:
                    value = self.whole(codes, map_.flatten(1)[:, None])
                    found.setdefault("global", []).append(float(value))
                if self.local is not None:
                    found.setdefault("local", []).append(float(self.local(codes, map_)))
                if self.prior is not None:
                    share = self.prior.told_apart(codes, draws)
                    found.setdefault("told_apart", []).append(share)
        return {name: math.fsum(values) / len(values) for name, values in found.items()}

    def save(self, path: str | Path) -> None:
        """Writes encoder, critics, discriminator and settings as safetensors."""
        facts = {
            "layer": self.layer,
            "global_layer": self.global_layer,
            "mixture": asdict(self.mixture),
            "shape": self._fitted(),
        }
        write_state(path, self, facts)

    @classmethod
    def load(cls, path: str | Path, encoder: nn.Module) -> DeepInfoMax:
        """Reads what :meth:`save` wrote, into an encoder of the same build.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds something else, or another encoder's weights.
        """
        names = ["layer", "global_layer", "mixture", "shape"]
        state, facts = read_state(path, names, "Deep InfoMax")
        loaded = cls(encoder, facts["layer"], facts["global_layer"], Mixture(**facts["mixture"]))
        with torch.random.fork_rng(devices=[]):
            loaded._build(tuple(facts["shape"]))
        try:
            loaded.to(device_of(encoder)).load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"`encoder` is not that of {str(path)!r}: {error}") from error
        return loaded

    def _build(self, shape: tuple[int, ...]) -> None:
        """Makes new critics and discriminator, for codes of D and maps of K places of C numbers."""
        dim, n_places, channels = self._shape = shape
        mixture = self.mixture
        self.whole = Information(dim, n_places * channels, mixture) if mixture.alpha else None
        self.local = Information(dim, channels, mixture) if mixture.beta else None
        self.prior = PriorMatching(dim) if mixture.gamma else None

    def _read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the places, (B, K, C), and the codes, (B, D), of images."""
        found = layer_values(self.encoder, [self.layer, self.global_layer], images)
        return places(found[self.layer]), found[self.global_layer].flatten(1)

    def _loss(self, images: Tensor, noise: torch.Generator) -> Tensor:
        map_, codes = self._read(images)
        loss = codes.new_zeros(())
        if self.whole is not None:
            loss = loss - self.mixture.alpha * self.whole(codes, map_.flatten(1)[:, None])
        if self.local is not None:
            loss = loss - self.mixture.beta * self.local(codes, map_)
        if self.prior is not None:
            loss = loss + self.mixture.gamma * self.prior.encoder_loss(codes)
            loss = loss + self.prior.discriminator_loss(codes, noise)
        return loss

    def _whole_batches(self, images: Tensor | Iterable[Any], size: int) -> Iterator[Tensor]:
        size = min(size, len(images)) if isinstance(images, Tensor) else size
        for batch in image_batches(images, size):
            if not isinstance(images, Tensor) or len(batch) == size:
                yield batch.to(device_of(self))

    def _fitted(self) -> tuple[int, ...]:
        if self._shape is None:
            raise RuntimeError("DeepInfoMax is not fitted; call fit(images), or load a file")
        return self._shape
