"""Explaining image-text pairs: where in the image, and in which words, the evidence lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from captum_mi._checks import check_choice, check_positive
from captum_mi.attr.methods import METHODS, Place, call_attribute
from captum_mi.maps import (
    TokenScores,
    image_map,
    image_seen,
    patch_map,
    patch_size,
    special_tokens,
    token_scores,
)
from captum_mi.models import ImageTextSimilarity, TextImageSimilarity, blocks, tokenize
from captum_mi.models.clip import preprocess
from captum_mi.models.towers import Tower, token_embedding
from captum_mi.models.towers import hidden_state as layer_of_hidden_state
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
        tokens: signed attribution of the text's tokens.
    """

    text: str
    cosine: float
    patches: Tensor
    heat: Tensor
    tokens: TokenScores

    def as_dict(self) -> dict[str, object]:
        """Returns all but ``heat`` in terms that JSON knows.

        Example:
            >>> (pair,) = explain_pairs(clip, processor, scene.image, ["a heart"]).pairs
            >>> list(pair.as_dict())
            ['text', 'cosine', 'patches', 'tokens']
        """
        tokens = zip(self.tokens.tokens, self.tokens.scores, self.tokens.special, strict=True)
        return {
            "text": self.text,
            "cosine": self.cosine,
            "patches": self.patches.tolist(),
            "tokens": [
                {"token": token, "score": score, "special": special}
                for token, score, special in tokens
            ],
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
        method: a name in ``METHODS``.
        hidden_states: those to explain in the image and in the text tower, see
            ``models.towers.hidden_state``.
        n_steps: steps of a method that has steps.
        show_progress: show the progress of a method that can tell it.

    Returns:
        the image as seen and one explanation per text.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> clip, processor = load_clip()
        >>> scene = Scenes(1, objects=2)[0]
        >>> explain_pairs(clip, processor, scene.image, scene.texts).pairs[0].heat.shape
        torch.Size([64, 64])
    """
    known = METHODS[check_choice("method", method, METHODS)]
    steps = known.taken(n_steps=check_positive("n_steps", n_steps))
    to_texts = ImageTextSimilarity(model, processor, texts)
    image_state, text_state = checked_hidden_states(model, hidden_states)
    pixels = preprocess(model, processor, [image])
    size = pixels.shape[-2:]

    in_image = attribute_image(
        method,
        to_texts,
        pixels.expand(len(texts), -1, -1, -1),
        list(range(len(texts))),
        hidden_state=image_state,
        **steps,
        **known.taken(show_progress=show_progress),
    )
    to_image = TextImageSimilarity(model, processor, [image])
    scores = []
    for text in texts:  # one by one: padding to the longest must not matter
        encoded = {
            name: value.to(pixels.device)
            for name, value in tokenize(model, processor, [text]).items()
        }
        in_text = attribute_text(
            method, to_image, processor, encoded, 0, hidden_state=text_state, **steps
        )
        scores += token_scores(in_text, encoded["input_ids"], processor)
    with torch.no_grad():
        cosines = to_texts(pixels)[0].tolist()
    heats = image_map(in_image, size, model=model)[:, 0].cpu()
    pairs = zip(texts, cosines, _patches(in_image, heats, model), heats, scores, strict=True)
    return ImageExplanation(
        hidden_states=(image_state, text_state),
        pixels=image_seen(pixels, processor),
        pairs=tuple(PairExplanation(*pair) for pair in pairs),
    )


def attribute_image(
    method: str,
    similarity: ImageTextSimilarity,
    pixels: Tensor,
    target: int | Sequence[int] | Tensor,
    /,
    *,
    hidden_state: int,
    **options: Any,
) -> Tensor:
    """Attributes the similarity to the image, at the place that the method is made for.

    Args:
        method: a name in ``METHODS``, whose ``place`` is explained.
        similarity: the model and the texts.
        pixels: (B, 3, H, W).
        target: index of each row's text.
        hidden_state: the hidden state to explain, see ``models.towers.hidden_state``; for methods
            that explain one.
        **options: arguments of the method's constructor or of its ``attribute``.

    Returns:
        what ``maps.image_map`` takes.

    Raises:
        TypeError: if the method does not take one of the options.
        ValueError: if there is no such method or hidden state.

    Example:
        >>> similarity = ImageTextSimilarity(clip, processor, ["a red circle"])
        >>> attribute_image("chefer", similarity, pixels, 0, hidden_state=3).shape
        torch.Size([1, 65, 1])
    """
    return _attribute(method, similarity, "image", hidden_state, pixels, options, target=target)


def attribute_text(
    method: str,
    similarity: TextImageSimilarity,
    processor: Processor,
    encoded: Mapping[str, Tensor],
    target: int | Sequence[int] | Tensor,
    /,
    *,
    hidden_state: int,
    **options: Any,
) -> Tensor:
    """Attributes the similarity to the tokens of texts, at the place the method is made for.

    Args:
        method: a name in ``METHODS``, whose ``place`` is explained.
        similarity: the model and the images.
        processor: the model's processor.
        encoded: ``input_ids`` (B, T) and, where the model uses it, ``attention_mask``.
        target: index of each row's image.
        hidden_state: the hidden state to explain; for methods that explain one.
        **options: arguments of the method's constructor or of its ``attribute``.

    Returns:
        (B, T, channels), what ``maps.token_scores`` takes.

    Raises:
        TypeError: if the method does not take one of the options.
        ValueError: if there is no such method or hidden state.

    Example:
        >>> similarity = TextImageSimilarity(clip, processor, [scene.image])
        >>> encoded = tokenize(clip, processor, ["a red circle"])
        >>> attribute_text("nib", similarity, processor, encoded, 0, hidden_state=1).shape
        torch.Size([1, 5, 96])
    """
    ids = encoded["input_ids"]
    return _attribute(
        method,
        similarity,
        "text",
        hidden_state,
        ids,
        options,
        target=target,
        additional_forward_args=encoded.get("attention_mask"),
        keep=special_tokens(processor, ids),
    )


def layer_of(
    place: Place, model: nn.Module, tower: Tower, hidden_state: int
) -> tuple[nn.Module | None, bool]:
    """Returns the layer of a place in a tower, and whether its input is meant.

    Args:
        place: what a method explains.
        model: the image-text model.
        tower: which of its encoders.
        hidden_state: the hidden state, where the place is one.

    Returns:
        the layer, None for the pixels; and what ``attribute_to_layer_input`` is to be.
    """
    if place is Place.INPUTS:
        return (None if tower == "image" else token_embedding(model)), False
    if place is Place.ALL_BLOCKS:
        return blocks(model, tower), False
    if place is Place.LAST_BLOCKS:
        return blocks(model, tower)[-1], False
    return layer_of_hidden_state(
        model, tower, 0 if place is Place.FIRST_HIDDEN_STATES else hidden_state
    )


def _attribute(
    method: str,
    similarity: ImageTextSimilarity | TextImageSimilarity,
    tower: Tower,
    hidden_state: int,
    inputs: Tensor,
    options: Mapping[str, object],
    **offered: object,
) -> Tensor:
    """Calls ``attribute`` at the method's place."""
    known = METHODS[check_choice("method", method, METHODS)]
    layer, at_input = layer_of(known.place, similarity.model, tower, hidden_state)
    offered |= {"layer": layer, "attribute_to_layer_input": at_input}
    return call_attribute(
        known.explaining(layer), similarity, inputs, offered=offered, options=options
    )


def _patches(attribution: Tensor, heats: Tensor, model: nn.Module) -> Tensor:
    """Returns the map at the resolution of the patches, (B, h, w)."""
    if attribution.ndim == 3:
        return patch_map(attribution, heats.shape[-2:], model=model)[:, 0].cpu()
    side = patch_size(model)
    return avg_pool2d(heats, side) * side**2
