"""What leaving a word out does: the cosines of a text without each of its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from captum_mi._intervention.hooks import edit_output
from captum_mi._protocols import tokenizer_of
from captum_mi.maps import special_tokens
from captum_mi.models.blanks import blank_ids
from captum_mi.models.clip import check_dual_encoder
from captum_mi.models.similarity import TextImageSimilarity
from captum_mi.models.texts import POOLS_AT_LAST_POSITION
from captum_mi.models.towers import token_embedding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from captum_mi._protocols import Processor, Tokenizer
    from captum_mi.models.sentences import SentenceSimilarity


@torch.no_grad()
def cosines_without(
    similarity: TextImageSimilarity | SentenceSimilarity,
    processor: Processor | Tokenizer,
    encoded: Mapping[str, Tensor],
    *,
    blank: bool = False,
) -> Tensor:
    """Returns the cosines of a text without each of its words, from one batch.

    A word that is deleted lets the others move up. A model that has seen few forms of sentences
    knows its words by their places, as the embedded one does: there each deletion costs much, be it
    of an "a", and blanking tells more. Of a word of several tokens, the others stay.

    Args:
        similarity: the model, and the K images or texts that the text is compared with.
        processor: the model's processor, or its tokenizer.
        encoded: ``input_ids`` (1, T) of the text and, where the model uses it, ``attention_mask``.
        blank: put the embedding of padding in the word's place, so that nothing moves: neither
            the other words nor, where padding is the end token as in OpenAI's CLIP, the end that
            the model pools.

    Returns:
        (T, K) in [-1, 1]; NaN for tokens that are no words, and where nothing would remain.

    Raises:
        ValueError: if it is not one text; if ``blank`` and the tokenizer has no padding.

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
    if not words.any() or (length == 1 and not blank):
        return torch.full_like(similarity(ids, mask), torch.nan).repeat(length, 1)
    here = torch.eye(length, dtype=torch.bool, device=ids.device)[words]  # (words, T)
    if blank:
        rows = ids.expand_as(here)
        row_mask = None if mask is None else mask.expand_as(here)
        embed = token_embedding(similarity.model)
        blanks = embed(blank_ids(processor, ids).where(here, ids))
        with edit_output(embed, lambda _: blanks):
            found: Tensor = similarity(rows, row_mask)
    else:
        whole = _needs_whole_context(similarity)
        rows = _deleted(ids, here, tokenizer_of(processor).pad_token_id if whole else None)
        row_mask = None if mask is None else _deleted(mask, here, 0 if whole else None)
        found = similarity(rows, row_mask)
    result = found.new_full((length, found.shape[1]), torch.nan)
    result[words] = found
    return result


def _deleted(values: Tensor, here: Tensor, padding: int | None) -> Tensor:
    """Returns the values (1, T) without those here, in rows, with padding behind if it is given."""
    rest = values.expand_as(here)[~here].view(len(here), -1)
    return rest if padding is None else pad(rest, (0, 1), value=padding)


def _needs_whole_context(similarity: TextImageSimilarity | SentenceSimilarity) -> bool:
    """Returns True if the model reads texts padded to one length alone."""
    return (
        isinstance(similarity, TextImageSimilarity)
        and check_dual_encoder(similarity.model).config.model_type in POOLS_AT_LAST_POSITION
    )
