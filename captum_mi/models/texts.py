"""Texts as the token ids that a dual encoder reads: padding, context, the token it pools."""

from __future__ import annotations

import warnings
from itertools import compress
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from captum_mi._checks import brief
from captum_mi._protocols import tokenizer_of
from captum_mi.models import tiny_clip
from captum_mi.models.clip import check_dual_encoder
from captum_mi.models.towers import blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from captum_mi._protocols import Processor, Tokenizer

POOLS_AT_EOS = ("clip", "metaclip_2", "clipseg", "groupvit", "aimv2", "owlvit", "owlv2")
POOLS_AT_LEGACY_EOS = ("clip", "clipseg", "groupvit")  # ... where configured as below
POOLS_AT_LARGEST_ID = ("owlvit", "owlv2")
POOLS_AT_LAST_POSITION = ("siglip",)
LEGACY_EOS = 2  # this eos_token_id in a CLIP configuration stands for "the largest id of the row"


def tokenize(
    model: nn.Module, processor: Processor | Tokenizer, texts: Sequence[str]
) -> dict[str, Tensor]:
    """Tokenizes texts as the model was trained: padding, mask, EOS.

    Args:
        model: the image-text model.
        processor: its processor or its tokenizer.
        texts: non-empty texts.

    Returns:
        ``input_ids`` (K, T) and, where the model uses it, ``attention_mask`` (K, T).

    Raises:
        TypeError: if ``texts`` is one text.
        ValueError: if there is no text, one is empty or longer than the model's context, or the
            tokenizer adds no end token.

    Example:
        >>> tokenize(clip, processor, ["a red circle"])["input_ids"].shape
        torch.Size([1, 5])
    """
    texts = check_texts(texts)
    tokenizer = tokenizer_of(processor)
    context = context_length(model)
    options: dict[str, object] = {"padding": True}
    names = ["input_ids", "attention_mask"]
    if check_dual_encoder(model).config.model_type in POOLS_AT_LAST_POSITION:
        options = {"padding": "max_length", "max_length": context}
        names = ["input_ids"]
    # Not verbose: a text that is too long is told of below, once.
    encoded = tokenizer(texts, return_attention_mask=True, verbose=False, **options)
    for text, mask in zip(texts, encoded["attention_mask"], strict=True):
        if (length := sum(mask)) > context:
            raise ValueError(
                f"a text has {length} tokens, but the model reads at most {context};"
                f" shorten {brief(text)}"
            )
    result = {name: torch.tensor(encoded[name]) for name in names}
    check_pooling(model, result["input_ids"], tokenizer.eos_token_id)
    if tokenizer.unk_token_id not in (None, tokenizer.eos_token_id, tokenizer.pad_token_id):
        unknown = (result["input_ids"] == tokenizer.unk_token_id).any(dim=1).tolist()
        _warn_of_unknown_words(model, list(compress(texts, unknown)))
    return result


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


def check_pooling(model: nn.Module, input_ids: Tensor, eos_token_id: int | None) -> None:
    """Raises ValueError where the model would silently pool at the wrong token."""
    config = check_dual_encoder(model).config
    kind = config.model_type
    if kind in POOLS_AT_LAST_POSITION and input_ids.shape[1] != context_length(model):
        raise ValueError(
            f"`input_ids` must be padded to {context_length(model)} tokens, for"
            f" {type(model).__name__} pools the last position; got {input_ids.shape[1]}. Tokenize"
            " with padding='max_length'"
        )
    if kind not in POOLS_AT_EOS:
        return
    eos = config.text_config.eos_token_id
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


def context_length(model: nn.Module) -> int:
    """Returns how many tokens the text tower reads."""
    config = check_dual_encoder(model).config.text_config
    positions: int = config.max_position_embeddings
    if "roberta" in type(blocks(model, "text")[0]).__name__.lower():
        positions -= config.pad_token_id + 1  # RoBERTa's first position stands behind the padding's
    return positions


def _warn_of_unknown_words(model: object, texts: Sequence[str]) -> None:
    if not texts:
        return
    message = (
        f"{', '.join(brief(text) for text in texts)}: there are words that the tokenizer does not"
        " know; the model reads each as the same unknown word"
    )
    if getattr(model, "name_or_path", None) == str(tiny_clip.FOLDER):
        message += (
            ". The embedded model knows colored shapes AND NOTHING ELSE: what it makes of other"
            " texts and of photographs means nothing. Give the name or the folder of a real model,"
            ' as in load_clip("openai/clip-vit-base-patch32")'
        )
    warnings.warn(message, stacklevel=3)
