"""Why are two texts similar? The words of both, explained by their cosine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from captum_mi._checks import check_positive
from captum_mi.attr.methods import ready_method
from captum_mi.explanation.words import WordEvidence, explain_words
from captum_mi.models import SentenceSimilarity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from transformers import PreTrainedTokenizerBase

    from captum_mi.models.sentences import Pooling


@dataclass(frozen=True)
class SentencePairExplanation:
    """Which words of two texts speak for, and against, their being similar.

    Attributes:
        texts: both texts.
        cosine: their similarity.
        words: what the words of each say.
    """

    texts: tuple[str, str]
    cosine: float
    words: tuple[WordEvidence, WordEvidence]

    def as_dict(self) -> dict[str, object]:
        """Returns all in terms that JSON knows."""
        return {
            "texts": list(self.texts),
            "cosine": self.cosine,
            "tokens": [words.as_list() for words in self.words],
            "completeness_gap": [words.gap for words in self.words],
        }


def explain_sentences(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    others: Sequence[str],
    *,
    pooling: Pooling = "mean",
    method: str = "nib",
    hidden_state: int | None = None,
    start: Literal["zero", "blank"] | None = None,
    n_steps: int = 10,
) -> tuple[SentencePairExplanation, ...]:
    """Explains the similarity of a text to each of some others, word by word, from both sides.

    Args:
        model: text encoder, see :func:`models.load_sentence_encoder`.
        tokenizer: its tokenizer.
        text: the text.
        others: the texts to compare it with.
        pooling: how tokens are pooled, see :class:`models.SentenceSimilarity`.
        method: a name in ``METHODS`` of a method that needs no fit.
        hidden_state: the hidden state to explain, for methods that explain one; None is the
            method's default.
        start: where the method's path starts, see :func:`attribute_text`.
        n_steps: steps of a method that has steps.

    Returns:
        one explanation for each of the others.

    Raises:
        ValueError: if an argument is out of range, or the method has no such start.

    Warns:
        UserWarning: if the sum of an attribution misses more than it says.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> tokenizer = load_clip()[1].tokenizer  # in earnest: load_sentence_encoder(name)
        >>> encoder = BertModel(BertConfig(vocab_size=len(tokenizer), hidden_size=12)).eval()
        >>> (pair,) = explain_sentences(encoder, tokenizer, "a heart", ["a red heart"])
        >>> pair.words[1].tokens.tokens
        ('<bos>', 'a', 'red', 'heart', '<eos>')
    """
    known = ready_method(method)
    check_positive("n_steps", n_steps)
    options = {"hidden_state": hidden_state, "start": start, **known.taken(n_steps=n_steps)}

    def words(one: str, similarity: SentenceSimilarity, target: int) -> WordEvidence:
        encoded = similarity.tokenize([one])
        what = f"the map of {one!r} for {similarity.texts[target]!r}"
        return explain_words(method, similarity, tokenizer, encoded, target, what, **options)

    to_others = SentenceSimilarity(model, tokenizer, others, pooling=pooling)
    to_text = SentenceSimilarity(model, tokenizer, [text], pooling=pooling)
    with torch.no_grad():
        cosines = to_others(**to_others.tokenize([text]))[0].tolist()
    return tuple(
        SentencePairExplanation(
            (text, other), cosine, (words(text, to_others, i), words(other, to_text, 0))
        )
        for i, (other, cosine) in enumerate(zip(others, cosines, strict=True))
    )
