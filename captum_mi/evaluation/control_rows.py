"""Rows of the table that methods are compared with."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from captum.attr import IntegratedGradients

from captum_mi.evaluation.method_row import MethodRow
from captum_mi.evaluation.samples import Sample, Scored
from captum_mi.explanation import Attributed
from captum_mi.maps import image_map, patch_size

if TYPE_CHECKING:
    from torch import Tensor, nn

ROWS_AT_ONCE = 64
"""Steps of Captum's IntegratedGradients that run through the model together."""


@dataclass(frozen=True)
class CaptumRow:
    """Captum's IntegratedGradients, of the pixels and of the words' embeddings."""

    name: str

    def image_map(self, sample: Sample) -> Scored:
        """Returns the map of the image."""
        values, gap = _integrate(sample.to_text, sample.pixels, torch.zeros_like(sample.pixels))
        return Scored(image_map(values, sample.size).float(), gap)

    def token_scores(self, sample: Sample) -> Scored:
        """Returns the scores of the tokens, 0 for those that are no words."""
        text = sample.text
        values, gap = _integrate(text, text.embeddings, text.embeddings * text.special[:, None])
        return Scored(values.sum(1, keepdim=True).float(), gap)


def _integrate(
    similarity: nn.Module, inputs: Tensor, baselines: Tensor
) -> tuple[Tensor, float | None]:
    """Returns Captum's attribution of a batch of one, and its completeness gap."""
    values, delta = IntegratedGradients(similarity).attribute(
        inputs,
        baselines,
        target=0,
        internal_batch_size=ROWS_AT_ONCE,
        return_convergence_delta=True,
    )
    return values, Attributed(values, delta).gap_of(0)


@dataclass(frozen=True)
class NoiseRow:
    """Uniform noise, for each pair its own.

    Attributes:
        name: what the row is called.
        on_patches: one number a patch, interpolated as a token layer's map; else one a pixel.
    """

    name: str
    on_patches: bool

    def image_map(self, sample: Sample) -> Scored:
        """Returns noise in [0, 1]."""
        side = patch_size(sample.model) if self.on_patches else 1
        height, width = sample.size
        noise = torch.rand(1, 1, height // side, width // side, generator=_generator(sample))
        return Scored(image_map(noise.to(sample.pixels), sample.size))

    def token_scores(self, sample: Sample) -> Scored:
        """Returns noise in [0, 1]."""
        tokens = sample.encoded["input_ids"].shape[1]
        noise = torch.rand(1, 1, tokens, generator=_generator(sample))
        return Scored(noise.to(sample.pixels))


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

    def image_map(self, sample: Sample) -> Scored:
        """Returns the map of the image, its sign turned."""
        return Scored(-self.row.image_map(sample).values)

    def token_scores(self, sample: Sample) -> Scored:
        """Returns the scores of the tokens, their sign turned."""
        return Scored(-self.row.token_scores(sample).values)


CONTROL_ROWS: dict[str, Callable[[Callable[[], MethodRow]], CaptumRow | NoiseRow | InvertedRow]] = {
    "ig": lambda _: CaptumRow("ig"),
    "random": lambda _: NoiseRow("random", on_patches=False),
    "patches": lambda _: NoiseRow("patches", on_patches=True),
    "inverted": lambda nib: InvertedRow(nib()),
}
"""Name in ``CONTROLS`` -> makes its row; called with what makes the row of nib."""


def _generator(sample: Sample) -> torch.Generator:
    """Returns a generator whose seed is the pair's name."""
    return torch.Generator().manual_seed(zlib.crc32(sample.pair.name.encode()))
