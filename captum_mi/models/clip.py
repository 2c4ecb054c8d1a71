"""Dual encoders of Hugging Face: loading them, and what they embed: pixels and token ids."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_mi.models import tiny_clip
from captum_mi.models.towers import blocks

POOLS_AT_EOS = ("clip", "metaclip_2", "clipseg", "groupvit", "aimv2", "owlvit", "owlv2")
POOLS_AT_LEGACY_EOS = ("clip", "clipseg", "groupvit")  # ... where configured as below
POOLS_AT_LARGEST_ID = ("owlvit", "owlv2")
POOLS_AT_LAST_POSITION = ("siglip",)
FIXED_SIZE = ("aimv2", "groupvit")  # transformers does not interpolate their positions
LARGEST_PIXEL = 20.0  # normalised pixels stay within about 3, noise on them hardly reaches this
LEGACY_EOS = 2  # this eos_token_id in a CLIP configuration stands for "the largest id of the row"


def load_clip(name: str | Path | None = None) -> tuple[Any, Any]:
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


def check_dual_encoder(model: object, name: str = "`model`") -> None:
    """Raises ValueError where a model does not embed images and texts."""
    for method in ("get_image_features", "get_text_features"):
        if not hasattr(model, method):
            raise ValueError(
                f"{name} is a {type(model).__name__}, which has no {method}; give an image-text"
                " model such as CLIP"
            )


def image_features(model: Any, pixel_values: Tensor) -> Tensor:  # noqa: ANN401
    """Returns the projected image embeddings, (B, D), of images of any size.

    Positions are interpolated for another size than the model's own; pixels are cast to the
    precision of the model.

    Raises:
        TypeError: if the pixels are no tensor, or integers that no processor has scaled.
        ValueError: if the model takes images of variable resolution as patches, or the image is not
            (B, 3, H, W), or of a size that the model cannot take.
    """
    vision = getattr(model.config, "vision_config", None) or model.config.image_config
    size = getattr(vision, "image_size", None)
    if not isinstance(size, int):
        raise ValueError(
            f"{type(model).__name__} takes no images of one fixed size; use a fixed-resolution"
            " checkpoint"
        )
    check_pixels(pixel_values)
    native = tuple(pixel_values.shape[-2:]) == (size, size)
    if not native and model.config.model_type in FIXED_SIZE and not getattr(vision, "is_native", 0):
        raise ValueError(
            f"`pixel_values` must be {size}x{size}, for {type(model).__name__} knows no other"
            f" positions, got {tuple(pixel_values.shape)}; resize the image as the processor does"
        )
    options = {} if native else {"interpolate_pos_encoding": True}
    pixels = pixel_values.to(next(model.parameters()).dtype)
    return _embedding(model.get_image_features(pixel_values=pixels, **options))


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
            "`pixel_values` must be floating-point, scaled and normalised by the processor, got"
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


def text_features(model: Any, encoded: Mapping[str, Tensor | None]) -> Tensor:  # noqa: ANN401
    """Returns the projected text embeddings, (B, D)."""
    given = {name: value for name, value in encoded.items() if value is not None}
    return _embedding(model.get_text_features(**given))


def _embedding(output: Any) -> Tensor:  # noqa: ANN401
    """Returns the embedding in what ``get_*_features`` of any transformers version returns."""
    embedding: Tensor
    if isinstance(output, Tensor):
        embedding = output
    else:
        embedding = output[1] if isinstance(output, tuple) else output.pooler_output
    # FLAVA projects every token; the first is the one that it compares.
    return embedding[:, 0] if embedding.ndim == 3 else embedding


def check_texts(texts: Sequence[str]) -> list[str]:
    """Returns the texts as a list if there is one and none is empty."""
    if isinstance(texts, str):
        raise TypeError(f"`texts` must be a list of texts, got the single text {texts!r}")
    if not texts:
        raise ValueError("`texts` must hold at least one text, got none")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"`texts` must hold non-empty texts, got {text!r}")
    return list(texts)


def _brief(text: str) -> str:
    """Quotes a text, the end of a long one left out."""
    return repr(text if len(text) <= 60 else f"{text[:57].rstrip()}...")


def tokenize(model: Any, processor: Any, texts: Sequence[str]) -> dict[str, Tensor]:  # noqa: ANN401
    """Tokenizes texts as the model was trained: padding, mask, EOS.

    Args:
        model: the image-text model.
        processor: its processor or its tokenizer.
        texts: non-empty texts.

    Returns:
        ``input_ids`` (K, T) and, where the model uses it, ``attention_mask`` (K, T).

    Raises:
        ValueError: if a text is empty or longer than the model's context, or if the tokenizer adds
            no end token.
    """
    texts = check_texts(texts)
    tokenizer = getattr(processor, "tokenizer", processor)
    context = context_length(model)
    options: dict[str, Any] = {"padding": True}
    names = ["input_ids", "attention_mask"]
    if model.config.model_type in POOLS_AT_LAST_POSITION:
        options = {"padding": "max_length", "max_length": context}
        names = ["input_ids"]
    # Not verbose: a text that is too long is told of below, once.
    encoded = tokenizer(texts, return_attention_mask=True, verbose=False, **options)
    for text, mask in zip(texts, encoded["attention_mask"], strict=True):
        if (length := sum(mask)) > context:
            raise ValueError(
                f"a text has {length} tokens, but the model reads at most {context};"
                f" shorten {_brief(text)}"
            )
    result = {name: torch.tensor(encoded[name]) for name in names}
    check_pooling(model, result["input_ids"], tokenizer.eos_token_id)
    if tokenizer.unk_token_id not in (None, tokenizer.eos_token_id, tokenizer.pad_token_id):
        unknown = (result["input_ids"] == tokenizer.unk_token_id).any(dim=1).tolist()
        _warn_of_unknown_words(model, list(compress(texts, unknown)))
    return result


def _warn_of_unknown_words(model: object, texts: Sequence[str]) -> None:
    if not texts:
        return
    message = (
        f"{', '.join(_brief(text) for text in texts)}: there are words that the tokenizer does not"
        " know; the model reads each as the same unknown word"
    )
    if getattr(model, "name_or_path", None) == str(tiny_clip.FOLDER):
        message += (
            ". The embedded model knows colored shapes AND NOTHING ELSE: what it makes of other"
            " texts and of photographs means nothing. Give the name or the folder of a real model,"
            ' as in load_clip("openai/clip-vit-base-patch32")'
        )
    warnings.warn(message, stacklevel=3)


def context_length(model: Any) -> int:  # noqa: ANN401
    """Returns how many tokens the text tower reads."""
    config = model.config.text_config
    positions: int = config.max_position_embeddings
    if "roberta" in type(blocks(model, "text")[0]).__name__.lower():
        positions -= config.pad_token_id + 1  # RoBERTa's first position stands behind the padding's
    return positions


def check_pooling(model: Any, input_ids: Tensor, eos_token_id: int | None) -> None:  # noqa: ANN401
    """Raises ValueError where the model would silently pool at the wrong token."""
    kind = model.config.model_type
    if kind in POOLS_AT_LAST_POSITION and input_ids.shape[1] != context_length(model):
        raise ValueError(
            f"`input_ids` must be padded to {context_length(model)} tokens, for"
            f" {type(model).__name__} pools the last position; got {input_ids.shape[1]}. Tokenize"
            " with padding='max_length'"
        )
    if kind not in POOLS_AT_EOS:
        return
    eos = model.config.text_config.eos_token_id
    legacy = kind in POOLS_AT_LEGACY_EOS and eos == LEGACY_EOS
    if legacy or kind in POOLS_AT_LARGEST_ID:
        if eos_token_id is None:
            return
        eos = eos_token_id
        found = input_ids.amax(dim=1).eq(eos)
    else:
        found = input_ids.eq(eos).any(dim=1)
    if not found.all():
        row = int((~found).nonzero()[0])
        raise ValueError(
            f"`input_ids` row {row} has no end token ({eos}), where {type(model).__name__} pools"
            " the text; tokenize with add_special_tokens=True and do not truncate"
        )
