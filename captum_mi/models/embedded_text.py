"""A text as a function of its token embeddings, so that its words can be masked one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from captum_mi._intervention.hooks import edit_output, layer_value
from captum_mi._intervention.nested import tensors
from captum_mi._intervention.precision import at_least_single
from captum_mi.maps import min_max, special_tokens
from captum_mi.models.similarity import TextImageSimilarity
from captum_mi.models.texts import tokenize
from captum_mi.models.towers import token_embedding

if TYPE_CHECKING:
    from captum_mi._protocols import Processor


class EmbeddedText(nn.Module):
    """Cosine similarities of texts to K fixed images, from the texts' token embeddings (B, D, T).

    The embeddings take the place of what the model's token embedding returns; positions are added
    behind it, as always. The special tokens of a row tell where its text ends, and so where it is
    pooled; they must be left as they are unless all texts have one length.

    Args:
        similarity: the model and the images.
        processor: the model's processor, or its tokenizer.
        texts: the texts, padded to one length.

    Attributes:
        input_ids: (B, T).
        special: (B, T) bool, the tokens that are no words.
        tokens: layer that passes the embeddings on as (B, T, D), for methods that explain a layer.
        embeddings: (B, D, T) of the texts, float32 for half-precision models.

    Raises:
        ValueError: if a text is empty or too long.

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
        processor: Processor,
        texts: Sequence[str],
    ) -> None:
        """Tokenizes and embeds the texts."""
        super().__init__()
        self.similarity = similarity
        self.training = similarity.training
        ids, mask, special = self.read(processor, texts)
        self.tokens = nn.Identity()
        self.register_buffer("input_ids", ids)
        self.register_buffer("attention_mask", mask)
        self.register_buffer("special", special)
        with torch.no_grad():
            found = layer_value(
                lambda: similarity.unchecked(ids, self.attention_mask),
                token_embedding(similarity.model),
            )
            embeddings = next(tensors(found))
        self.register_buffer("embeddings", at_least_single(embeddings.transpose(1, 2)))

    def read(
        self, processor: Processor, texts: Sequence[str]
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Returns the texts' ids, attention mask and which tokens are no words, (B, T) each."""
        encoded = tokenize(self.similarity.model, processor, texts)
        device = self.similarity.image_embeddings.device
        ids, mask = encoded["input_ids"].to(device), encoded.get("attention_mask")
        return ids, None if mask is None else mask.to(device), special_tokens(processor, ids)

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
        """Returns which tokens of the embeddings are no words, (B, T) bool."""
        return self.special[self._rows(embeddings)]

    def masks(self, embeddings: Tensor, maps: Tensor, *, normalize: bool = True) -> Tensor:
        """Turns scores of the tokens into what their embeddings are to be multiplied with.

        Args:
            embeddings: (B, D, T), rows of ``self.embeddings``.
            maps: (B, 1, T) scores.
            normalize: scale the words' scores of each row to [0, 1] first.

        Returns:
            (B, 1, T), 1 at special tokens.
        """
        special = self.fixed(embeddings)[:, None]
        if normalize:
            # A word's score in the place of the special tokens' does not move the extremes.
            words = maps.masked_fill(special, torch.inf).amin(-1, keepdim=True)
            maps = min_max(maps.where(~special, words))
        return maps.where(~special, 1.0)

    def _rows(self, embeddings: Tensor) -> Tensor:
        """Returns the number of a text with each row's special tokens, (B,)."""
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
        # Where the end token is the padding too, a short text's row fits longer texts as well.
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
