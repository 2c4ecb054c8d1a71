"""From a text layer's attribution to scores of the text's tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from captum_mi._protocols import tokenizer_of

if TYPE_CHECKING:
    from captum_mi._protocols import Processor, Tokenizer


@dataclass(frozen=True)
class TokenScores:
    """Scores of the tokens of one text.

    Attributes:
        tokens: the tokens as words, without the marks of their tokenizer. Padding is left out;
            where it has a score (SigLIP pools it), all of it is one last token, "<padding>".
        scores: one for each token, signed.
        special: whether the token is one that the tokenizer added (BOS, EOS, CLS, padding): apart
            from the words.
        joined: whether the token goes on the word that the one before began, without a space; None
            where that is not known.
    """

    tokens: tuple[str, ...]
    scores: tuple[float, ...]
    special: tuple[bool, ...]
    joined: tuple[bool, ...] | None = None


def token_scores(
    attribution: Tensor, input_ids: Tensor, processor: Processor | Tokenizer
) -> list[TokenScores]:
    """Turns a text layer's attribution into one score per token: the sum over the channels.

    Args:
        attribution: (B, T, D), signed.
        input_ids: (B, T).
        processor: the processor, or the tokenizer, that made the ids.

    Returns:
        B token scores.

    Raises:
        ValueError: if the shapes do not match.

    Example:
        >>> ids = tokenize(clip, processor, ["a red circle"])["input_ids"]
        >>> token_scores(torch.ones(1, 5, 96), ids, processor)[0].tokens
        ('<bos>', 'a', 'red', 'circle', '<eos>')
    """
    if attribution.ndim != 3 or attribution.shape[:2] != input_ids.shape:
        raise ValueError(
            "`attribution` must have shape (B, T, D) for `input_ids` of shape"
            f" {tuple(input_ids.shape)}, got {tuple(attribution.shape)}"
        )
    tokenizer = tokenizer_of(processor)
    return [
        _scores_of_one(*one, tokenizer)
        for one in zip(
            input_ids.tolist(),
            attribution.sum(-1).tolist(),
            special_tokens(tokenizer, input_ids).tolist(),
            strict=True,
        )
    ]


def special_tokens(processor: Processor | Tokenizer, input_ids: Tensor) -> Tensor:
    """Finds the tokens that the tokenizer added (BOS, EOS, CLS, padding): those that are no words.

    Args:
        processor: the processor, or the tokenizer, that made the ids.
        input_ids: (B, T).

    Returns:
        (B, T) bool. What follows the first end token is padding, for that may be the same token.

    Example:
        >>> ids = tokenize(clip, processor, ["a red circle"])["input_ids"]
        >>> special_tokens(processor, ids).tolist()
        [[True, False, False, False, True]]
    """
    tokenizer = tokenizer_of(processor)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    special |= {token for token in ends if token is not None}
    found: Tensor = torch.isin(input_ids, torch.tensor(sorted(special), device=input_ids.device))
    if tokenizer.eos_token_id is None:
        return found
    found |= (input_ids == tokenizer.eos_token_id).cumsum(dim=1).gt(0)
    return found


def _scores_of_one(
    ids: list[int],
    scores: list[float],
    special: list[bool],
    tokenizer: Tokenizer,
) -> TokenScores:
    # The end token may double as padding: what follows the first one is padding.
    end = tokenizer.eos_token_id
    last = ids.index(end) if end in ids else len(ids)
    padding = {tokenizer.pad_token_id} - {end}
    kept = [i for i, token in enumerate(ids) if i <= last and token not in padding]
    rest = sum(score for i, score in enumerate(scores) if i not in kept)
    padded = ["<padding>"] if rest else []
    joined = [
        i > 0 and not any(special[i - 1 : i + 1]) and _joined(ids[i - 1], ids[i], tokenizer)
        for i in kept
    ]
    return TokenScores(
        tokens=(*(_word([ids[i]], tokenizer) for i in kept), *padded),
        scores=(*(scores[i] for i in kept), *(rest for _ in padded)),
        special=(*(special[i] for i in kept), *(True for _ in padded)),
        joined=(*joined, *(False for _ in padded)),
    )


def _joined(before: int, token: int, tokenizer: Tokenizer) -> bool:
    """Returns True if the tokenizer writes no space between two tokens."""
    apart = _word([before], tokenizer) + _word([token], tokenizer)
    return _word([before, token], tokenizer) == apart


def _word(tokens: list[int], tokenizer: Tokenizer) -> str:
    """Decodes tokens; strips what wordpiece marks a continuation with."""
    word = str(tokenizer.decode(tokens, clean_up_tokenization_spaces=False))
    return word.strip().removeprefix("##")
