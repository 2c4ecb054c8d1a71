"""What the rows of a table get, a pair that is read, tokenized and embedded, and what they give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from captum_mi.evaluation.passes import Passes, count_passes
from captum_mi.models import EmbeddedText, ImageTextSimilarity, TextImageSimilarity, tokenize
from captum_mi.models.clip import preprocess

if TYPE_CHECKING:
    from captum_mi._protocols import Processor
    from captum_mi.datasets import Pair


@dataclass(frozen=True)
class Sample:
    """A pair, read, tokenized and embedded.

    Attributes:
        pair: the pair.
        processor: the model's processor.
        pixels: (1, 3, H, W) what the model sees of the image.
        encoded: the text's ``input_ids`` (1, T) and, where the model uses it, ``attention_mask``.
        to_text: similarity of images to the text.
        to_image: similarity of texts to the image.
        text: the text by its token embeddings.
        passes: what embedding both took; every method needs it.
    """

    pair: Pair
    processor: Processor
    pixels: Tensor
    encoded: dict[str, Tensor]
    to_text: ImageTextSimilarity
    to_image: TextImageSimilarity
    text: EmbeddedText
    passes: Passes

    @property
    def model(self) -> nn.Module:
        """The image-text model."""
        return self.to_text.model

    @property
    def size(self) -> torch.Size:
        """(H, W) of the pixels."""
        return self.pixels.shape[-2:]


class Scored(NamedTuple):
    """What a row gives for one side of a sample.

    Attributes:
        values: the signed map of the image, (1, 1, H, W), or scores of the tokens, (1, 1, T).
        gap: by how much their sum misses F(x) - F(start), as a share of it; None where the row
            follows no path.
    """

    values: Tensor
    gap: float | None = None


def read_sample(model: nn.Module, processor: Processor, pair: Pair) -> Sample:
    """Reads, tokenizes and embeds a pair.

    Raises:
        ValueError: if the image cannot be read, or the text does not fit the model.

    Example:
        >>> read_sample(clip, processor, scene_pairs(1)[0]).pixels.shape
        torch.Size([1, 3, 64, 64])
    """
    image = pair.load()
    pixels = preprocess(model, processor, [image])
    encoded = tokenize(model, processor, [pair.text])
    with count_passes(model) as passes:
        to_text = ImageTextSimilarity(model, processor, [pair.text])
        to_image = TextImageSimilarity(model, processor, [image])
    return Sample(
        pair=pair,
        processor=processor,
        pixels=pixels,
        encoded={name: value.to(pixels.device) for name, value in encoded.items()},
        to_text=to_text,
        to_image=to_image,
        text=EmbeddedText(to_image, processor, [pair.text]),
        passes=passes,
    )
