"""Dual encoders of Hugging Face: loading them, and embedding images and texts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from captum_mi.models import tiny_clip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, ProcessorMixin

    from captum_mi._protocols import Image, ImageTextModel, PooledOutput, Processor

FIXED_SIZE = ("aimv2", "groupvit")  # transformers does not interpolate their positions
LARGEST_PIXEL = 20.0  # normalized pixels stay within about 3, noise on them hardly reaches this


def load_clip(name: str | Path | None = None) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Loads an image-text model and its processor.

    Args:
        name: a local folder in Hugging Face layout, or a hub name such as
            "openai/clip-vit-base-patch32"; None is the embedded model. Weights are read from
            safetensors only; nothing is downloaded for a folder.

    Returns:
        the model, in evaluation mode, and its processor.

    Raises:
        OSError: if the folder or the hub name cannot be read.
        ValueError: if the model is not a dual encoder.

    Example:
        >>> clip, processor = load_clip()
        >>> len(blocks(clip, "image"))
        6
    """
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoProcessor

    source = str(tiny_clip.FOLDER if name is None else name)
    if name is not None and Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        raise OSError(
            f"folder {source!r} holds no config.json; give a folder in Hugging Face layout"
        )
    try:
        model = AutoModel.from_pretrained(source, use_safetensors=True)
        processor = AutoProcessor.from_pretrained(source)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"cannot load a model from {source!r}; give a local folder in Hugging Face layout with"
            f" safetensors weights, or a hub name that can be reached ({reason})"
        ) from error
    check_dual_encoder(model, repr(source))
    return model.eval(), processor


def check_dual_encoder(model: object, name: str = "`model`") -> ImageTextModel:
    """Returns a model that embeds images and texts; raises ValueError for any other."""
    if not hasattr(model, "get_image_features"):
        missing = "get_image_features"
    elif not hasattr(model, "get_text_features"):
        missing = "get_text_features"
    elif not hasattr(model, "config"):
        missing = "config"
    else:
        return model
    raise ValueError(
        f"{name} is a {type(model).__name__}, which has no {missing}; give an image-text model such"
        " as CLIP"
    )


def preprocess(model: nn.Module, processor: Processor, images: Sequence[Image] | Tensor) -> Tensor:
    """Returns what the model reads of images: resized, cropped, normalized, on its device.

    Args:
        model: the image-text model.
        processor: its processor.
        images: the images, of any size.

    Returns:
        ``pixel_values`` (B, 3, H, W).

    Example:
        >>> preprocess(clip, processor, [scene.image]).shape
        torch.Size([1, 3, 64, 64])
    """
    made = processor.image_processor(images=list(images), return_tensors="pt")
    pixels: Tensor = made["pixel_values"]
    return pixels.to(next(model.parameters()).device)


def image_features(model: nn.Module, pixel_values: Tensor) -> Tensor:
    """Returns the projected image embeddings, (B, D), of images of any size.

    Positions are interpolated for another size than the model's own; pixels are cast to the
    precision of the model.

    Raises:
        TypeError: if the pixels are no tensor, or integers that no processor has scaled.
        ValueError: if the model takes images of variable resolution as patches, or the image is not
            (B, 3, H, W), or of a size that the model cannot take.
    """
    encoder = check_dual_encoder(model)
    config = encoder.config
    vision = getattr(config, "vision_config", None) or config.image_config
    size = getattr(vision, "image_size", None)
    if not isinstance(size, int):
        raise ValueError(
            f"{type(model).__name__} takes no images of one fixed size; use a fixed-resolution"
            " checkpoint"
        )
    check_pixels(pixel_values)
    native = tuple(pixel_values.shape[-2:]) == (size, size)
    if not native and config.model_type in FIXED_SIZE and not getattr(vision, "is_native", 0):
        raise ValueError(
            f"`pixel_values` must be {size}x{size}, for {type(model).__name__} knows no other"
            f" positions, got {tuple(pixel_values.shape)}; resize the image as the processor does"
        )
    options = {} if native else {"interpolate_pos_encoding": True}
    pixels = pixel_values.to(next(model.parameters()).dtype)
    return _embedding(encoder.get_image_features(pixel_values=pixels, **options))


def check_pixels(pixel_values: object) -> None:
    """Raises, or warns, where the pixels are not what a processor makes of images."""
    remedy = 'make it with processor(images=[image], return_tensors="pt")["pixel_values"]'
    if not isinstance(pixel_values, Tensor):
        if isinstance(pixel_values, Mapping):
            remedy = 'give its item, ["pixel_values"]'
        raise TypeError(
            "`pixel_values` must be a tensor (B, 3, H, W), got a"
            f" {type(pixel_values).__name__}; {remedy}"
        )
    if not pixel_values.is_floating_point():
        raise TypeError(
            "`pixel_values` must be floating-point, scaled and normalized by the processor, got"
            f" {pixel_values.dtype}; {remedy}"
        )
    if pixel_values.ndim != 4:
        raise ValueError(
            f"`pixel_values` must have shape (B, 3, H, W), got {tuple(pixel_values.shape)}"
        )
    if pixel_values.detach().abs().gt(LARGEST_PIXEL).any():
        warnings.warn(  # the same words each time, so that they are shown once
            f"`pixel_values` holds values beyond {LARGEST_PIXEL:g}, where a processor makes of an"
            f" image values within about 3; {remedy}",
            stacklevel=4,
        )


def text_features(model: nn.Module, encoded: Mapping[str, Tensor | None]) -> Tensor:
    """Returns the projected text embeddings, (B, D)."""
    given = {name: value for name, value in encoded.items() if value is not None}
    return _embedding(check_dual_encoder(model).get_text_features(**given))


def _embedding(output: Tensor | tuple[Tensor, ...] | PooledOutput) -> Tensor:
    """Returns the embedding in what ``get_*_features`` of any transformers version returns."""
    if isinstance(output, Tensor):
        embedding = output
    else:
        embedding = output[1] if isinstance(output, tuple) else output.pooler_output
    # FLAVA projects every token; the first is the one that it compares.
    return embedding[:, 0] if embedding.ndim == 3 else embedding
