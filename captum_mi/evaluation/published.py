"""The NIB paper's published tables, its headline recomputed from them, and how it scored texts."""

from __future__ import annotations

import json
from importlib.resources import files
from statistics import mean
from typing import TYPE_CHECKING, Any

from captum_mi.maps import min_max
from captum_mi.metrics.confidence import Confidence, confidence
from captum_mi.models import EmbeddedText

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from captum_mi._protocols import Processor
    from captum_mi.evaluation.samples import Sample


def published() -> dict[str, Any]:
    """Returns the paper's Tables 2 to 8.

    Returns:
        "table2" to "table8", each with "what" it holds and its "values": by data set (but in Table
        8), then by method, by its name in ``METHODS``, or by the value of the setting, as text:
        {"image_drop", "image_increase", "text_drop", "text_increase"}.

    Source: Zhu et al., ICLR 2025.

    Example:
        >>> published()["table2"]["values"]["ImageNet"]["nib-zero"]["image_drop"]
        0.9012
    """
    tables: dict[str, Any] = json.loads(
        files("captum_mi.evaluation").joinpath("published.json").read_text(encoding="utf-8")
    )
    return tables


def headline() -> dict[str, float]:
    """Recomputes what the abstract claims of NIB over M2IB, in percent, from Table 2.

    Drops count as (M2IB - NIB) / M2IB, increases and maps per second as (NIB - M2IB) / NIB; means
    over drop and increase and over the three data sets. So "speed" is time saved, not speed gained.

    Returns:
        "image", "text" and "speed".

    Example:
        >>> {name: round(value, 2) for name, value in headline().items()}
        {'image': 9.0, 'text': 58.83, 'speed': 63.95}
    """
    sets = published()["table2"]["values"].values()

    def gain(score: str) -> float:
        parts: list[float] = []
        for methods in sets:
            ours, theirs = methods["nib-zero"][score], methods["m2ib"][score]
            better, worse = (theirs, ours) if score.endswith("drop") else (ours, theirs)
            parts.append(100 * (better - worse) / better)
        return mean(parts)

    return {
        "image": mean((gain("image_drop"), gain("image_increase"))),
        "text": mean((gain("text_drop"), gain("text_increase"))),
        "speed": gain("fps"),
    }


class PublishedEmbeddedText(EmbeddedText):
    """The text score of the NIB paper's code, for one text, to compare with its tables.

    It is wrong in three ways: the special tokens are cut off, so that the model pools some word
    (the largest id, or the first) instead of the end of the text and, being causal, does not see
    what follows it; a word that occurs twice is multiplied by both its scores; the scores are
    normalized with those of the special tokens among them.

    Raises:
        ValueError: if there are several texts, or it is empty or too long.

    Source: the NIB authors' code.

    Example:
        >>> similarity = TextImageSimilarity(clip, processor, [scene.image])
        >>> PublishedEmbeddedText(similarity, processor, ["a red circle"]).embeddings.shape
        torch.Size([1, 96, 3])
    """

    def read(
        self, processor: Processor, texts: Sequence[str]
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Returns the words' ids, no attention mask, and that each is a word, (1, T) each."""
        ids, _, special = super().read(processor, texts)
        if len(ids) != 1:
            raise ValueError(f"`texts` must be one text, got {len(ids)}")
        return ids[~special][None], None, special[~special][None]

    def masks(self, embeddings: Tensor, maps: Tensor, *, normalize: bool = False) -> Tensor:
        """Returns what each word is multiplied with: the product of its occurrences' scores.

        Args:
            embeddings: (1, D, T).
            maps: (1, 1, T) scores in [0, 1].
            normalize: has no effect; the published code scales them before it cuts the special
                tokens off.

        Returns:
            (1, 1, T).
        """
        scores = super().masks(embeddings, maps, normalize=False)
        same = self.input_ids[0][:, None] == self.input_ids[0]
        repeated = scores.expand(-1, scores.shape[-1], -1)
        return repeated.where(same, 1.0).prod(dim=-1)[:, None]


def published_text_confidence(sample: Sample, scores: Tensor) -> Confidence:
    """Scores a sample's text before and after masking its words, as the NIB paper's code does.

    Args:
        sample: the pair.
        scores: (1, 1, T) scores of its tokens.
    """
    text = PublishedEmbeddedText(sample.to_image, sample.processor, [sample.pair.text])
    words = min_max(scores)[..., ~sample.text.special[0]]
    masks = text.masks(text.embeddings, words)
    return confidence(lambda x: text(x)[:, 0], text.embeddings, masks)
