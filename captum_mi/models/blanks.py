"""Inputs that say nothing: where a path to an image or to a text may start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from captum_mi._protocols import image_processor_of, tokenizer_of
from captum_mi.maps import special_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from captum_mi._protocols import ImageProcessor, Processor, Tokenizer


def blank_pixels(processor: Processor | ImageProcessor, pixels: Tensor) -> Tensor:
    """Returns images of the mean color, for ``baselines`` of a method that follows a path.

    Args:
        processor: the processor, or the image processor, that made the pixels.
        pixels: (B, 3, H, W).

    Returns:
        the same shape: zeros, the mean of normalized pixels; 0.5 where the processor does not
        normalize.

    Example:
        >>> similarity = ImageTextSimilarity(clip, processor, ["a red circle"])
        >>> from captum_mi.models.clip import preprocess
        >>> x = preprocess(clip, processor, [scene.image])
        >>> nib = NarrowingIB(similarity, blocks(clip)[0])
        >>> nib.attribute(x, blank_pixels(processor, x), target=0).shape
        torch.Size([1, 65, 128])
    """
    middle = 0.0 if image_processor_of(processor).do_normalize else 0.5
    return torch.full_like(pixels, middle)


def blank_ids(processor: Processor | Tokenizer, input_ids: Tensor) -> Tensor:
    """Returns texts whose words are padding, for ``baselines`` of a method that follows a path.

    The special tokens stay, so the text has its length. Where padding is the end token, as in
    OpenAI's CLIP, the model itself would pool such a text at its first word; a path from it keeps
    the pooling of the text that is explained.

    Args:
        processor: the processor, or the tokenizer, that made the ids.
        input_ids: (B, T).

    Returns:
        (B, T).

    Raises:
        ValueError: if the tokenizer has no padding.

    Example:
        >>> encoded = tokenize(clip, processor, ["a red circle"])
        >>> blank_ids(processor, encoded["input_ids"]).tolist()
        [[1, 0, 0, 0, 3]]
    """
    padding = tokenizer_of(processor).pad_token_id
    if padding is None:
        raise ValueError(
            "`processor` must know a padding token, which stands for the words of a blank text, got"
            " none; set its tokenizer's pad_token"
        )
    return input_ids.where(special_tokens(processor, input_ids), padding)
