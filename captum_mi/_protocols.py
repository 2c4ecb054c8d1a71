"""What this package needs of other libraries' image-text models and processors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image as PILImage
    from torch import Tensor

    Image = PILImage.Image | NDArray[Any] | Tensor


class PooledOutput(Protocol):
    """An output that holds the embeddings of a batch."""

    pooler_output: Tensor


class ImageTextModel(Protocol):
    """A model that embeds images and texts in one space, as Hugging Face's dual encoders do."""

    config: Any

    def get_image_features(self, **inputs: Any) -> Tensor | tuple[Tensor, ...] | PooledOutput:
        """Returns the images' embeddings (B, D), bare or in an output."""

    def get_text_features(self, **inputs: Any) -> Tensor | tuple[Tensor, ...] | PooledOutput:
        """Returns the texts' embeddings (B, D), bare or in an output."""


class ImageProcessor(Protocol):
    """Makes pixels of images, as Hugging Face's image processors do."""

    @property
    def do_normalize(self) -> bool | None:
        """True where pixels are normalized by the channels' mean and deviation."""

    @property
    def image_mean(self) -> float | Sequence[float] | None:
        """Mean of each channel."""

    @property
    def image_std(self) -> float | Sequence[float] | None:
        """Deviation of each channel."""

    def __call__(self, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
        """Returns ``pixel_values`` (B, 3, H, W)."""


class Tokenizer(Protocol):
    """Makes ids of texts, as Hugging Face's tokenizers do."""

    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    unk_token_id: int | None

    @property
    def all_special_ids(self) -> Sequence[int]:
        """Ids of tokens that are no words."""

    def __call__(self, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
        """Returns ``input_ids`` and ``attention_mask``, one list for each text."""

    def decode(self, *args: Any, **kwargs: Any) -> str | list[str]:
        """Returns the text of some ids, or the texts of some rows of them."""


class Processor(Protocol):
    """An image processor and a tokenizer, as Hugging Face's processors are."""

    image_processor: ImageProcessor
    tokenizer: Tokenizer


def image_processor_of(processor: Processor | ImageProcessor) -> ImageProcessor:
    """Returns the image processor of a processor, or what is one itself."""
    if hasattr(processor, "image_processor"):
        return processor.image_processor
    return processor


def tokenizer_of(processor: Processor | Tokenizer) -> Tokenizer:
    """Returns the tokenizer of a processor, or what is one itself."""
    if hasattr(processor, "tokenizer"):
        return processor.tokenizer
    return processor
