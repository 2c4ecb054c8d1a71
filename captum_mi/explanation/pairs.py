"""Explaining image-text pairs: where in the image, and in which words, the evidence lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from captum_mi._checks import check_positive
from captum_mi.attr.methods import ready_method
from captum_mi.explanation.attribution import Start, attribute_image
from captum_mi.explanation.statistics import TowerStatistics
from captum_mi.explanation.words import WordEvidence, explain_words, gap_of
from captum_mi.maps import image_map, image_seen, patch_map, patch_size
from captum_mi.models import ImageTextSimilarity, TextImageSimilarity, tokenize
from captum_mi.models.clip import preprocess
from captum_mi.models.towers import hidden_states as checked_hidden_states

if TYPE_CHECKING:
    from captum_mi._protocols import Image, Processor


@dataclass(frozen=True)
class PairExplanation:
    """What speaks for, and against, an image and a text belonging together.

    Attributes:
        text: the text.
        cosine: similarity of the pair.
        patches: (h, w) signed attribution of the image's patches.
        heat: (H, W) the same on the pixels that the model saw.
        words: what the words of the text say.
        gap: by how much the sum of the image's attribution misses what the cosine gains along the
            path, as a share of it; None for a method that tells no such gap, or if the cosine gains
            nothing.
    """

    text: str
    cosine: float
    patches: Tensor
    heat: Tensor
    words: WordEvidence
    gap: float | None

    def as_dict(self) -> dict[str, object]:
        """Returns all but ``heat`` in terms that JSON knows.

        Example:
            >>> (pair,) = explain_pairs(clip, processor, scene.image, ["a heart"]).pairs
            >>> list(pair.as_dict())
            ['text', 'cosine', 'patches', 'tokens', 'completeness_gap']
        """
        return {
            "text": self.text,
            "cosine": self.cosine,
            "patches": self.patches.tolist(),
            "tokens": self.words.as_list(),
            "completeness_gap": {"image": self.gap, "text": self.words.gap},
        }


@dataclass(frozen=True)
class ImageExplanation:
    """Explanations of one image with several texts.

    Attributes:
        hidden_states: those asked for, in the image and in the text tower; explained by methods
            whose place they are.
        pixels: (H, W, 3) in [0, 1], the image as the model saw it, resized and cropped.
        pairs: one explanation per text.
    """

    hidden_states: tuple[int, int]
    pixels: Tensor
    pairs: tuple[PairExplanation, ...]


def explain_pairs(
    model: nn.Module,
    processor: Processor,
    image: Image,
    texts: Sequence[str],
    *,
    method: str = "nib",
    hidden_states: tuple[int | None, int | None] = (None, None),
    start: Start | None = None,
    n_steps: int = 10,
    show_progress: bool = False,
) -> ImageExplanation:
    """Explains an image with each of some texts, from both sides.

    Every method explains the place that it is made for, the ``place`` of its entry in ``METHODS``.

    Args:
        model: image-text model.
        processor: its processor.
        image: the image, in any form that the processor takes.
        texts: the texts.
        method: a name in ``METHODS`` of a method that needs no fit.
        hidden_states: those to explain in the image and in the text tower, see
            ``models.towers.hidden_states``; None is that of the statistics to start at, or the
            method's default.
        start: where the method's path starts, or its noise lies: "zero", "blank", or fitted
            statistics; None is its own, the ``start`` of its entry in ``METHODS``.
        n_steps: steps of a method that has steps.
        show_progress: show the progress of a method that can tell it.

    Returns:
        the image as seen and one explanation per text.

    Raises:
        ValueError: if an argument is out of range, or the method has no such start.

    Warns:
        UserWarning: if a map's sum misses what the cosine gains by more than this, so that the map
            says little.

    Example:
        >>> clip, processor = load_clip()
        >>> scene = Scenes(1, objects=2)[0]
        >>> explain_pairs(clip, processor, scene.image, scene.texts).pairs[0].heat.shape
        torch.Size([64, 64])
    """
    known = ready_method(method)
    check_positive("n_steps", n_steps)
    to_texts = ImageTextSimilarity(model, processor, texts)
    own = known if not isinstance(start, TowerStatistics) else start
    image_state, text_state = checked_hidden_states(model, hidden_states, own.hidden_states)
    pixels = preprocess(model, processor, [image])
    size = pixels.shape[-2:]

    options = {"start": start, **known.taken(n_steps=n_steps)}
    in_image = attribute_image(
        method,
        to_texts,
        processor,
        pixels.expand(len(texts), -1, -1, -1),
        list(range(len(texts))),
        hidden_state=image_state,
        **options,
        **known.taken(show_progress=show_progress),
    )
    heats = image_map(in_image.values, size, model=model)[:, 0].cpu()
    patches = _patches(in_image.values, heats, model)
    with torch.no_grad():
        cosines = to_texts(pixels)[0].tolist()
    to_image = TextImageSimilarity(model, processor, [image])
    pairs = []
    for row, text in enumerate(texts):  # one by one: padding to the longest must not matter
        encoded = {
            name: value.to(pixels.device)
            for name, value in tokenize(model, processor, [text]).items()
        }
        what = f"the words' map of {text!r}"
        words = explain_words(
            method, to_image, processor, encoded, 0, what, hidden_state=text_state, **options
        )
        gap = gap_of(in_image, row, f"the image's map for {text!r}")
        pairs.append(PairExplanation(text, cosines[row], patches[row], heats[row], words, gap))
    return ImageExplanation(
        hidden_states=(image_state, text_state),
        pixels=image_seen(pixels, processor),
        pairs=tuple(pairs),
    )


def _patches(attribution: Tensor, heats: Tensor, model: nn.Module) -> Tensor:
    """Returns the map at the resolution of the patches, (B, h, w)."""
    if attribution.ndim == 3:
        return patch_map(attribution, heats.shape[-2:], model=model)[:, 0].cpu()
    side = patch_size(model)
    return avg_pool2d(heats, side) * side**2
