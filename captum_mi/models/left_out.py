"""What leaving a word out does: the cosines of a text without each of its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from captum_mi._protocols import tokenizer_of
from captum_mi.maps import special_tokens
from captum_mi.models.clip import check_dual_encoder
from captum_mi.models.similarity import TextImageSimilarity
from captum_mi.models.texts import POOLS_AT_LAST_POSITION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from captum_mi._protocols import Processor, Tokenizer
    from captum_mi.models.sentences import SentenceSimilarity


@torch.no_grad()
def cosines_without(
    similarity: TextImageSimilarity | SentenceSimilarity,
    processor: Processor | Tokenizer,
    encoded: Mapping[str, Tensor],
) -> Tensor:
    """Returns the cosines of a text without each of its words, from one batch.

    A token is deleted, not blanked: what follows it moves up. Of a word of several tokens, the
    others stay.

    Args:
        similarity: the model, and the K images or texts that the text is compared with.
        processor: the model's processor, or its tokenizer.
        encoded: ``input_ids`` (1, T) of the text and, where the model uses it, ``attention_mask``.

    Returns:
        (T, K) in [-1, 1]; NaN for tokens that are no words, and for one that is all of its text.

    Raises:
        ValueError: if it is not one text.

    Example:
        >>> similarity = TextImageSimilarity(clip, processor, [scene.image])
        >>> encoded = tokenize(clip, processor, ["a red circle"])
        >>> added = similarity(**encoded) - cosines_without(similarity, processor, encoded)
        >>> added.isnan()[:, 0].tolist()
        [True, False, False, False, True]
    """
    ids, mask = encoded["input_ids"], encoded.get("attention_mask")
    if len(ids) != 1:
        raise ValueError(f"`encoded` must be one text, (1, T), got {tuple(ids.shape)}")
    length = ids.shape[1]
    words = ~special_tokens(processor, ids)[0]
    if length == 1 or not words.any():
        return torch.full_like(similarity(ids, mask), torch.nan).repeat(length, 1)
    places = torch.arange(length, device=ids.device)
    left_out = places[words, None]
    others = places[:-1] + (places[:-1] >= left_out)  # (words, T - 1)
    shorter, shorter_mask = ids[0, others], None if mask is None else mask[0, others]
    if _needs_whole_context(similarity):
        shorter = pad(shorter, (0, 1), value=tokenizer_of(processor).pad_token_id)
        shorter_mask = None if shorter_mask is None else pad(shorter_mask, (0, 1))
    found: Tensor = similarity(shorter, shorter_mask)
    result = found.new_full((length, found.shape[1]), torch.nan)
    result[words] = found
    return result


def _needs_whole_context(similarity: TextImageSimilarity | SentenceSimilarity) -> bool:
    """Returns True if the model reads texts padded to one length alone."""
    return (
        isinstance(similarity, TextImageSimilarity)
        and check_dual_encoder(similarity.model).config.model_type in POOLS_AT_LAST_POSITION
    )
