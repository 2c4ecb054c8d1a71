"""Rows of the table that methods are compared with."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from captum.attr import IntegratedGradients

from captum_mi.evaluation.method_row import MethodRow
from captum_mi.maps import image_map, patch_size

if TYPE_CHECKING:
    from torch import Tensor

    from captum_mi.evaluation.samples import Sample

ROWS_AT_ONCE = 64
"""Steps of Captum's IntegratedGradients that run through the model together."""


@dataclass(frozen=True)
class CaptumRow:
    """Captum's IntegratedGradients, of the pixels and of the words' embeddings."""

    name: str

    def image_map(self, sample: Sample) -> Tensor:
        """Returns the signed map of the image, (1, 1, H, W)."""
        attribution = IntegratedGradients(sample.to_text).attribute(
            sample.pixels, target=0, internal_batch_size=ROWS_AT_ONCE
        )
        return image_map(attribution, sample.size).float()

    def token_scores(self, sample: Sample) -> Tensor:
        """Returns the signed scores of the tokens, 0 for those that are no words, (1, 1, T)."""
        text = sample.text
        attribution: Tensor = IntegratedGradients(text).attribute(
            text.embeddings,
            baselines=text.embeddings * text.special[:, None],
            target=0,
            internal_batch_size=ROWS_AT_ONCE,
        )
        return attribution.sum(1, keepdim=True).float()


@dataclass(frozen=True)
class NoiseRow:
    """Uniform noise, for each pair its own.

    Attributes:
        name: what the row is called.
        on_patches: one number a patch, interpolated as a token layer's map; else one a pixel.
    """

    name: str
    on_patches: bool

    def image_map(self, sample: Sample) -> Tensor:
        """Returns noise in [0, 1], (1, 1, H, W)."""
        side = patch_size(sample.model) if self.on_patches else 1
        height, width = sample.size
        noise = torch.rand(1, 1, height // side, width // side, generator=_generator(sample))
        return image_map(noise.to(sample.pixels), sample.size)

    def token_scores(self, sample: Sample) -> Tensor:
        """Returns noise in [0, 1], (1, 1, T)."""
        tokens = sample.encoded["input_ids"].shape[1]
        return torch.rand(1, 1, tokens, generator=_generator(sample)).to(sample.pixels)


@dataclass(frozen=True)
class InvertedRow:
    """A method with its sign turned.

    Attributes:
        row: the method's row.
    """

    row: MethodRow

    @property
    def name(self) -> str:
        """What the row is called."""
        return self.row.name

    def image_map(self, sample: Sample) -> Tensor:
        """Returns the map of the image, its sign turned, (1, 1, H, W)."""
        return -self.row.image_map(sample)

    def token_scores(self, sample: Sample) -> Tensor:
        """Returns the scores of the tokens, their sign turned, (1, 1, T)."""
        return -self.row.token_scores(sample)


CONTROL_ROWS: dict[
    str,
    Callable[[str, tuple[int, int], Mapping[str, Any]], CaptumRow | NoiseRow | InvertedRow],
] = {
    "ig": lambda name, *_: CaptumRow(name),
    "random": lambda name, *_: NoiseRow(name, on_patches=False),
    "patches": lambda name, *_: NoiseRow(name, on_patches=True),
    "inverted": lambda name, *settings: InvertedRow(MethodRow.among(name, "nib", *settings)),
}
"""Name in ``CONTROLS`` -> makes its row, of the hidden states to explain and a table's options."""


def _generator(sample: Sample) -> torch.Generator:
    """Returns a generator whose seed is the pair's name."""
    return torch.Generator().manual_seed(zlib.crc32(sample.pair.name.encode()))
