"""Explaining image-text pairs: where in the image, and in which words, the evidence lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_mi._checks import check_choice, check_positive
from captum_mi.attr import METHODS
from captum_mi.maps import TokenScores, image_map, patch_map, token_scores
from captum_mi.models import ImageTextSimilarity, TextImageSimilarity, tokenize
from captum_mi.models.clip import default_hidden_state, hidden_state


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
) -> ImageExplanation:
    """Explains an image with each of some texts, from both sides.

    Args:
        model: image-text model.
        processor: its processor.
        image: the image, in any form that the processor takes.
        texts: the texts.
        method: a name in ``METHODS``.
        layers: hidden states to explain in the image and in the text tower, see
            ``models.clip.hidden_state``.
        n_steps: steps of the method.

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
    image_state, text_state = layers
    if image_state is None:
        image_state = default_hidden_state(model, "image")
    if text_state is None:
        text_state = default_hidden_state(model, "text")
    image_layer, image_at_input = hidden_state(model, "image", image_state)
    text_layer, text_at_input = hidden_state(model, "text", text_state)
    device = next(model.parameters()).device
    pixels = processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
    pixels = pixels.to(device)
    size = pixels.shape[-2:]

    in_image = METHODS[method](to_texts, image_layer).attribute(
        pixels.expand(len(texts), -1, -1, -1),
        target=list(range(len(texts))),
        n_steps=n_steps,
        attribute_to_layer_input=image_at_input,
    )
    to_image = TextImageSimilarity(model, processor, [image])
    scores = []
    for text in texts:  # one by one: padding to the longest must not matter
        encoded = {
            name: value.to(device) for name, value in tokenize(model, processor, [text]).items()
        }
        in_text = METHODS[method](to_image, text_layer).attribute(
            encoded["input_ids"],
            target=0,
            additional_forward_args=encoded.get("attention_mask"),
            n_steps=n_steps,
            attribute_to_layer_input=text_at_input,
        )
        scores += token_scores(in_text, encoded["input_ids"], processor)
    with torch.no_grad():
        cosines = to_texts(pixels)[0].tolist()
    tower = getattr(model, "vision_model", model)
    pairs = zip(
        texts,
        cosines,
        patch_map(in_image, size, model=tower)[:, 0].cpu(),
        image_map(in_image, size, model=tower)[:, 0].cpu(),
        scores,
        strict=True,
    )
    return ImageExplanation(
        layers=(image_state, text_state),
        pixels=_displayed(pixels[0].cpu(), processor.image_processor),
        pairs=tuple(PairExplanation(*pair) for pair in pairs),
    )


def _displayed(pixels: Tensor, image_processor: Any) -> Tensor:  # noqa: ANN401
    """Undoes the processor's normalisation; channels last."""
    if getattr(image_processor, "do_normalize", False):
        mean = torch.tensor(image_processor.image_mean)[:, None, None]
        std = torch.tensor(image_processor.image_std)[:, None, None]
        pixels = pixels * std + mean
    return pixels.clamp(0, 1).permute(1, 2, 0)
