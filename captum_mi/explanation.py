"""Explaining image-text pairs: where in the image, and in which words, the evidence lies."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from captum._utils.typing import TargetType
from captum.attr import Attribution
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from captum_mi._checks import check_choice, check_positive
from captum_mi.attr import METHODS, RISE
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
from captum_mi.models.towers import Tower, hidden_state, hidden_states, token_embedding


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
        layers: hidden states that were explained, in the image and in the text tower.
        pixels: (H, W, 3) in [0, 1], the image as the model saw it, resized and cropped.
        pairs: one explanation per text.
    """

    layers: tuple[int, int]
    pixels: Tensor
    pairs: tuple[PairExplanation, ...]


def explain_pairs(
    model: Any,  # noqa: ANN401
    processor: Any,  # noqa: ANN401
    image: Any,  # noqa: ANN401
    texts: Sequence[str],
    *,
    method: str = "nib",
    layers: tuple[int | None, int | None] = (None, None),
    n_steps: int = 10,
    show_progress: bool = False,
) -> ImageExplanation:
    """Explains an image with each of some texts, from both sides.

    Every method explains the place that it is made for, see :func:`attribute_image`.

    Args:
        model: image-text model.
        processor: its processor.
        image: the image, in any form that the processor takes.
        texts: the texts.
        method: a name in ``METHODS``.
        layers: hidden states to explain in the image and in the text tower, see
            ``models.towers.hidden_state``.
        n_steps: steps of the method.
        show_progress: show the progress of a method that takes long (RISE).

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
    check_choice("method", method, METHODS)
    check_positive("n_steps", n_steps)
    to_texts = ImageTextSimilarity(model, processor, texts)
    image_state, text_state = hidden_states(model, layers)
    device = next(model.parameters()).device
    pixels = processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
    pixels = pixels.to(device)
    size = pixels.shape[-2:]

    in_image = attribute_image(
        method,
        to_texts,
        pixels.expand(len(texts), -1, -1, -1),
        list(range(len(texts))),
        state=image_state,
        n_steps=n_steps,
        show_progress=show_progress,
    )
    to_image = TextImageSimilarity(model, processor, [image])
    scores = []
    for text in texts:  # one by one: padding to the longest must not matter
        encoded = {
            name: value.to(device) for name, value in tokenize(model, processor, [text]).items()
        }
        in_text = attribute_text(
            method, to_image, processor, encoded, 0, state=text_state, n_steps=n_steps
        )
        scores += token_scores(in_text, encoded["input_ids"], processor)
    with torch.no_grad():
        cosines = to_texts(pixels)[0].tolist()
    heats = image_map(in_image, size, model=model)[:, 0].cpu()
    pairs = zip(texts, cosines, _patches(in_image, heats, model), heats, scores, strict=True)
    return ImageExplanation(
        layers=(image_state, text_state),
        pixels=image_seen(pixels, processor),
        pairs=tuple(PairExplanation(*pair) for pair in pairs),
    )


def attribute_image(
    method: str,
    similarity: ImageTextSimilarity,
    pixels: Tensor,
    target: TargetType,
    /,
    *,
    state: int,
    **options: Any,
) -> Tensor:
    """Attributes the similarity to the image, at the place that the method is made for.

    RISE masks the pixels, MFABA attacks the first hidden state, generic attention is rolled out
    over all blocks and attention saliency reads the last one; the others explain a hidden state.

    Args:
        method: a name in ``METHODS``.
        similarity: the model and the texts.
        pixels: (B, 3, H, W).
        target: index of each row's text.
        state: the hidden state to explain, see ``models.towers.hidden_state``.
        **options: arguments of the method's ``attribute``; those that it does not take are left
            out.

    Returns:
        what ``maps.image_map`` takes.

    Example:
        >>> similarity = ImageTextSimilarity(clip, processor, ["a red circle"])
        >>> attribute_image("chefer", similarity, pixels, 0, state=3).shape
        torch.Size([1, 65, 1])
    """
    settings = {"target": target, **options}
    if method == "rise":
        return _attribute(RISE(similarity), pixels, settings)
    layer, at_input = _place(method, similarity.model, "image", state)
    return _attribute(
        METHODS[method](similarity, layer),
        pixels,
        {"attribute_to_layer_input": at_input, **settings},
    )


def attribute_text(
    method: str,
    similarity: TextImageSimilarity,
    processor: Any,  # noqa: ANN401
    encoded: Mapping[str, Tensor],
    target: TargetType,
    /,
    *,
    state: int,
    **options: Any,
) -> Tensor:
    """Attributes the similarity to the tokens of texts, at the place the method is made for.

    Args:
        method: a name in ``METHODS``. RISE masks the words' embeddings.
        similarity: the model and the images.
        processor: the model's processor.
        encoded: ``input_ids`` (B, T) and, where the model uses it, ``attention_mask``.
        target: index of each row's image.
        state: the hidden state to explain.
        **options: arguments of the method's ``attribute``; those that it does not take are left
            out.

    Returns:
        (B, T, channels), what ``maps.token_scores`` takes.

    Example:
        >>> similarity = TextImageSimilarity(clip, processor, [scene.image])
        >>> encoded = tokenize(clip, processor, ["a red circle"])
        >>> attribute_text("nib", similarity, processor, encoded, 0, state=1).shape
        torch.Size([1, 5, 96])
    """
    layer, at_input = _place(method, similarity.model, "text", state)
    ids = encoded["input_ids"]
    return _attribute(
        METHODS[method](similarity, layer),
        ids,
        {
            "target": target,
            "additional_forward_args": encoded.get("attention_mask"),
            "attribute_to_layer_input": at_input,
            "keep": special_tokens(processor, ids),
            **options,
        },
    )


PLACES = {
    "rise": "the pixels and the words' embeddings",
    "chefer": "the attention of all blocks",
    "attention": "the attention of the last blocks",
    "mfaba": "hidden states 0",
}
"""What a method explains on an image-text model; the others explain the hidden states asked for."""


def place(method: str, layers: tuple[int, int]) -> str:
    """Says in words what a method explains, given the hidden states in the image and text tower."""
    return PLACES.get(method, f"hidden states {layers[0]} (image) and {layers[1]} (text)")


def takes_steps(method: str) -> bool:
    """Whether a method has a number of steps."""
    return "n_steps" in inspect.signature(METHODS[method].attribute).parameters  # type: ignore[attr-defined]


def _place(method: str, model: nn.Module, tower: Tower, state: int) -> tuple[nn.Module, bool]:
    """Returns the layer that a method explains, and whether its input is meant."""
    if method == "rise":
        return token_embedding(model), False
    if method == "chefer":
        return blocks(model, tower), False
    if method == "attention":
        return blocks(model, tower)[-1], False
    return hidden_state(model, tower, 0 if method == "mfaba" else state)


def _attribute(method: Attribution, inputs: Tensor, options: Mapping[str, Any]) -> Tensor:
    """Calls ``attribute`` with those of the options that it takes."""
    taken = inspect.signature(method.attribute).parameters
    attribution: Tensor = method.attribute(
        inputs, **{name: value for name, value in options.items() if name in taken}
    )
    return attribution


def _patches(attribution: Tensor, heats: Tensor, model: nn.Module) -> Tensor:
    """(B, h, w) the map at the resolution of the patches."""
    if attribution.ndim == 3:
        return patch_map(attribution, heats.shape[-2:], model=model)[:, 0].cpu()
    side = patch_size(model)
    return avg_pool2d(heats, side) * side**2
