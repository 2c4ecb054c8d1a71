"""A text as a function of its token embeddings, so that its words can be masked one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from captum_mi._checks import check_choice
from captum_mi._intervention.hooks import edit_output, layer_value
from captum_mi._intervention.nested import tensors
from captum_mi._intervention.precision import at_least_single
from captum_mi.maps import min_max, special_tokens
from captum_mi.models.similarity import TextImageSimilarity
from captum_mi.models.texts import tokenize
from captum_mi.models.towers import token_embedding


class EmbeddedText(nn.Module):
    """Cosine similarities of texts to K fixed images, from the texts' token embeddings (B, D, T).

    The embeddings take the place of what the model's token embedding returns; positions are added
    behind it, as always. The special tokens of a row tell where its text ends, and so where it is
    pooled; they must be left as they are unless all texts have one length.

    Args:
        similarity: the model and the images.
        processor: the model's processor, or its tokenizer.
        texts: the texts, padded to one length.
        compat: "nib" reproduces the text score of the NIB paper's code, for one text. It is wrong
            in three ways: the special tokens are cut off, so that the model pools some word (the
            largest id, or the first) instead of the end of the text and, being causal, does not
            see what follows it; a word that occurs twice is multiplied by both its scores; the
            scores are normalised with those of the special tokens among them.

    Attributes:
        input_ids: (B, T).
        special: (B, T) bool, the tokens that are no words.
        tokens: layer that passes the embeddings on as (B, T, D), for methods that explain a layer.
        embeddings: (B, D, T) of the texts, float32 for half-precision models.

    Raises:
        ValueError: if a text is empty or too long, or there are several with ``compat``.

    Example:
        >>> similarity = TextImageSimilarity(clip, processor, [scene.image])
        >>> text = EmbeddedText(similarity, processor, ["a red circle", "a blue square"])
        >>> text(text.embeddings).shape
        torch.Size([2, 1])
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    special: Tensor
    embeddings: Tensor

    def __init__(
        self,
        similarity: TextImageSimilarity,
        processor: Any,  # noqa: ANN401
        texts: Sequence[str],
        *,
        compat: Literal["nib"] | None = None,
    ) -> None:
        """Tokenizes and embeds the texts."""
        super().__init__()
        check_choice("compat", compat, (None, "nib"))
        self.similarity = similarity
        self.compat = compat
        self.training = similarity.training
        device = similarity.image_embeddings.device
        encoded = tokenize(similarity.model, processor, texts)
        ids, mask = encoded["input_ids"].to(device), encoded.get("attention_mask")
        special = special_tokens(processor, ids)
        if compat is not None:
            if len(ids) != 1:
                raise ValueError(f"`texts` must be one text with `compat`, got {len(ids)}")
            ids, mask, special = ids[~special][None], None, special[~special][None]
        self.tokens = nn.Identity()
        self.register_buffer("input_ids", ids)
        self.register_buffer("attention_mask", None if mask is None else mask.to(device))
        self.register_buffer("special", special)
        with torch.no_grad():
            found = layer_value(
                lambda: similarity.unchecked(ids, self.attention_mask),
                token_embedding(similarity.model),
            )
            embeddings = next(tensors(found))
        self.register_buffer("embeddings", at_least_single(embeddings.transpose(1, 2)))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Returns the cosines.

        Args:
            embeddings: (B, D, T), rows of ``self.embeddings`` in any order and number, their words
                changed at will.

        Returns:
            (B, K) in [-1, 1].

        Raises:
            ValueError: if the special tokens of a row are those of no text.
        """
        rows = self._rows(embeddings)
        mask = None if self.attention_mask is None else self.attention_mask[rows]

        tokens: Tensor = self.tokens(embeddings.transpose(1, 2))

        def place(output: Tensor) -> Tensor:
            return tokens.to(output)

        with edit_output(token_embedding(self.similarity.model), place):
            return self.similarity.unchecked(self.input_ids[rows], mask)

    def fixed(self, embeddings: Tensor) -> Tensor:
        """Tells which tokens of the embeddings are no words, (B, T) bool."""
        return self.special[self._rows(embeddings)]

    def masks(self, embeddings: Tensor, maps: Tensor, *, normalise: bool = True) -> Tensor:
        """Turns scores of the tokens into what their embeddings are to be multiplied with.

        Args:
            embeddings: (B, D, T), rows of ``self.embeddings``.
            maps: (B, 1, T) scores.
            normalise: scale the words' scores of each row to [0, 1] first; with ``compat`` do it
                yourself, with the special tokens' scores.

        Returns:
            (B, 1, T), 1 at special tokens.
        """
        rows = self._rows(embeddings)
        if self.compat is not None:
            same = self.input_ids[0][:, None] == self.input_ids[0]
            repeated = maps.expand(-1, maps.shape[-1], -1)
            return repeated.where(same, 1.0).prod(dim=-1)[:, None]
        special = self.special[rows][:, None]
        if normalise:
            # A word's score in the place of the special tokens' does not move the extremes.
            words = maps.masked_fill(special, torch.inf).amin(-1, keepdim=True)
            maps = min_max(maps.where(~special, words))
        return maps.where(~special, 1.0)

    def _rows(self, embeddings: Tensor) -> Tensor:
        """(B,) a text with each row's special tokens."""
        if not isinstance(embeddings, Tensor):
            raise TypeError(
                f"`embeddings` must be a tensor (B, D, T), got a {type(embeddings).__name__}; give"
                " rows of the module's own `embeddings`"
            )
        if embeddings.ndim != 3 or embeddings.shape[1:] != self.embeddings.shape[1:]:
            raise ValueError(
                f"`embeddings` must have shape (B, {self.embeddings.shape[1]},"
                f" {self.embeddings.shape[2]}), got {tuple(embeddings.shape)}"
            )
        layouts = self.input_ids.where(self.special, -1)
        rows = torch.zeros(len(embeddings), dtype=torch.long, device=embeddings.device)
        if (layouts == layouts[0]).all():
            return rows
        known = torch.zeros_like(rows, dtype=torch.bool)
        # Where the end token is the padding too, a short text looks like the longer ones: it first.
        shortest_first = self.special.sum(1).argsort(descending=True).tolist()
        for row in {tuple(layouts[row].tolist()): row for row in shortest_first}.values():
            same = (embeddings == self.embeddings[row].to(embeddings)).all(1)
            fits = (same | ~self.special[row]).all(1) & ~known
            rows = rows.where(~fits, row)
            known |= fits
        if not known.all():
            raise ValueError(
                f"`embeddings` row {int((~known).nonzero()[0])} has the special tokens of none of"
                " the texts; change words only, or give texts of one length"
            )
        return rows
