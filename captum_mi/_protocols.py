"""What this package needs of other libraries' image-text models and processors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor


class ImageProcessor(Protocol):
    """Makes pixels of images, as Hugging Face's image processors do."""

    do_normalize: bool
    image_mean: Sequence[float]
    image_std: Sequence[float]

    def __call__(self, *, images: Sequence[object], return_tensors: str) -> Mapping[str, Tensor]:
        """Returns ``pixel_values`` (B, 3, H, W)."""
        ...


class Tokenizer(Protocol):
    """Makes ids of texts, as Hugging Face's tokenizers do."""

    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    unk_token_id: int | None
    all_special_ids: Sequence[int]

    def __call__(self, texts: Sequence[str], **options: Any) -> Mapping[str, Any]:
        """Returns ``input_ids`` and ``attention_mask``, one list for each text."""
        ...

    def decode(self, token_ids: Sequence[int], **options: Any) -> str:
        """Returns the text of some ids."""
        ...


class Processor(Protocol):
    """An image processor and a tokenizer, as Hugging Face's processors are."""

    image_processor: ImageProcessor
    tokenizer: Tokenizer
