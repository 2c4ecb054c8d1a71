"""What the words of one text say, and what leaving each of them out does."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import isnan, nan
from typing import TYPE_CHECKING, Any

import torch

from captum_mi.explanation.attribution import Attributed, attribute_text
from captum_mi.maps import TokenScores, token_scores
from captum_mi.models import SentenceSimilarity, TextImageSimilarity, cosines_without

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from captum_mi._protocols import Processor, Tokenizer


@dataclass(frozen=True)
class WordEvidence:
    """What the words of a text say for a cosine, and against it.

    Attributes:
        tokens: attribution of the text's tokens.
        losses: for each token what the cosine loses if it alone is blanked, that is padding stands
            in its place, as in a blank text; NaN for tokens that are no words.
        gap: by how much the sum of the attribution misses what the cosine gains along the path, as
            a share of it; None for a method that tells no such gap, or if the cosine gains nothing.
    """

    tokens: TokenScores
    losses: tuple[float, ...]
    gap: float | None

    def as_list(self) -> list[dict[str, object]]:
        """Returns the tokens in terms that JSON knows."""
        columns = self.tokens.tokens, self.tokens.scores, self.tokens.special, self.losses
        return [
            {
                "token": token,
                "score": score,
                "special": special,
                "loss_without": None if isnan(loss) else loss,
            }
            for token, score, special, loss in zip(*columns, strict=True)
        ]


def explain_words(
    method: str,
    similarity: TextImageSimilarity | SentenceSimilarity,
    processor: Processor | Tokenizer,
    encoded: Mapping[str, Tensor],
    target: int,
    what: str,
    /,
    **options: Any,
) -> WordEvidence:
    """Explains the words of one text, and blanks each of them.

    Args:
        method: a name in ``METHODS``.
        similarity: the model and the images, or a text encoder and the texts to compare with.
        processor: the model's processor, or its tokenizer.
        encoded: the text's ``input_ids`` (1, T) and, where the model uses it, ``attention_mask``.
        target: index of the image, or of the text to compare with.
        what: what a warning calls the explanation.
        **options: further arguments of :func:`attribute_text`.

    Warns:
        UserWarning: if the sum of the attribution misses more than it says.
    """
    ids = encoded["input_ids"]
    found = attribute_text(method, similarity, processor, encoded, target, **options)
    (tokens,) = token_scores(found.values, ids, processor)
    with torch.no_grad():
        whole = similarity(ids, encoded.get("attention_mask"))[0, target]
    losses = whole - cosines_without(similarity, processor, encoded, blank=True)[:, target]
    (lost,) = token_scores(losses.nan_to_num(0.0)[None, :, None], ids, processor)
    of_words = [
        nan if special else loss for loss, special in zip(lost.scores, lost.special, strict=True)
    ]
    of_words += [nan] * (len(tokens.tokens) - len(of_words))  # padding that is pooled comes last
    return WordEvidence(tokens, tuple(of_words), gap_of(found, 0, what))


def gap_of(found: Attributed, row: int, what: str) -> float | None:
    """Returns a map's completeness gap; warns where its sum is less than what it misses.

    Args:
        found: what a method gave for a batch.
        row: which of its rows is meant.
        what: what the warning calls the map.

    Returns:
        the gap as a share of what the cosine gains; None if there is none.
    """
    if found.delta is None:
        return None
    total, delta = float(found.values[row].sum()), float(found.delta[row])
    if abs(delta) > abs(total):
        warnings.warn(
            f"{what} sums to {total:+.3f}, but along its path the cosine gains"
            f" {total - delta:+.3f}: it misses more than it says; give more `n_steps`, or, for a"
            " path from zero, `start` 'blank'",
            stacklevel=4,
        )
    return found.gap_of(row)
