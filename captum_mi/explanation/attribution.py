"""Attributing a similarity to an image, or to the tokens of texts, with a method of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from captum_mi._checks import check_choice, enumerated
from captum_mi.attr.methods import METHODS, STARTS, Method, Place, call_attribute, ready_method
from captum_mi.explanation.statistics import TowerStatistics
from captum_mi.maps import special_tokens
from captum_mi.models import (
    ImageTextSimilarity,
    SentenceSimilarity,
    TextImageSimilarity,
    blank_ids,
    blank_pixels,
    blocks,
)
from captum_mi.models.towers import Tower, default_hidden_state, hidden_state, token_embedding

if TYPE_CHECKING:
    from captum_mi._protocols import Processor, Tokenizer
    from captum_mi.attr import LayerStatistics

Start: TypeAlias = Literal["zero", "blank"] | TowerStatistics


@dataclass(frozen=True)
class Attributed:
    """What a method gave for a batch.

    Attributes:
        values: (B, ...), the attribution.
        delta: (B,), the sum of the attribution minus F(z) - F(start); None for a method that
            tells no such difference.
    """

    values: Tensor
    delta: Tensor | None

    @property
    def gap(self) -> Tensor | None:
        """By how much the sum misses F(z) - F(start), as a share of it, (B,)."""
        return None if self.delta is None else completeness_gap(self.values, self.delta)

    def gap_of(self, row: int) -> float | None:
        """Returns the gap of a row; None without a path, or where F(z) = F(start)."""
        gap = nan if self.gap is None else float(self.gap[row])
        return None if isnan(gap) else gap


def completeness_gap(attribution: Tensor, delta: Tensor) -> Tensor:
    """Returns how far attributions are from their sum's due, as a share of F(z) - F(start), (B,).

    Args:
        attribution: (B, ...).
        delta: (B,), its convergence delta.

    Returns:
        the shares, NaN where F(z) = F(start): of nothing there is none.
    """
    rise = attribution.flatten(1).sum(1) - delta
    return (delta / rise).abs().where(rise != 0, torch.nan)


def attribute_image(
    method: str,
    similarity: ImageTextSimilarity,
    processor: Processor,
    pixels: Tensor,
    target: int | Sequence[int] | Tensor,
    /,
    *,
    hidden_state: int | None = None,
    start: Start | None = None,
    **options: Any,
) -> Attributed:
    """Attributes the similarity to the image, at the place that the method is made for.

    Args:
        method: a name in ``METHODS`` of a method that needs no fit; its ``place`` is explained.
        similarity: the model and the texts.
        processor: the model's processor.
        pixels: (B, 3, H, W).
        target: index of each row's text.
        hidden_state: the hidden state to explain, see ``models.towers.hidden_state``, for methods
            that explain one; None is that of the statistics to start at, or the method's default.
        start: where the method's path starts, or its noise lies: "zero", "blank", or fitted
            statistics; None is its own, the ``start`` of its entry in ``METHODS``.
        **options: arguments of the method's constructor or of its ``attribute``.

    Returns:
        what ``maps.image_map`` takes.

    Raises:
        TypeError: if the method does not take one of the options.
        ValueError: if there is no such method or hidden state, or the method has no such start, or
            needs statistics and none are given.

    Example:
        >>> similarity = ImageTextSimilarity(clip, processor, ["a red circle"])
        >>> pixels = processor(images=[scene.image], return_tensors="pt")["pixel_values"]
        >>> attribute_image("nib", similarity, processor, pixels, 0).values.shape
        torch.Size([1, 65, 128])
    """
    known = ready_method(method)
    state = _state(known, similarity.model, "image", hidden_state, start)
    offered: dict[str, object] = {"target": target}
    if not STARTS & options.keys():
        offered |= _start(
            known,
            start,
            blank=lambda: blank_pixels(processor, pixels),
            fitted=lambda statistics: statistics.of_image(state),
        )
    return _attribute(known, similarity, "image", state, pixels, offered, options)


def attribute_text(
    method: str,
    similarity: TextImageSimilarity | SentenceSimilarity,
    processor: Processor | Tokenizer,
    encoded: Mapping[str, Tensor],
    target: int | Sequence[int] | Tensor,
    /,
    *,
    hidden_state: int | None = None,
    start: Start | None = None,
    **options: Any,
) -> Attributed:
    """Attributes the similarity to the tokens of texts, at the place the method is made for.

    Args:
        method: a name in ``METHODS`` of a method that needs no fit; its ``place`` is explained.
        similarity: the model and the images, or a text encoder and the texts to compare with.
        processor: the model's processor, or its tokenizer.
        encoded: ``input_ids`` (B, T) and, where the model uses it, ``attention_mask``.
        target: index of each row's image.
        hidden_state: the hidden state to explain, as for :func:`attribute_image`.
        start: where the method's path starts, as for :func:`attribute_image`.
        **options: arguments of the method's constructor or of its ``attribute``.

    Returns:
        (B, T, channels), what ``maps.token_scores`` takes.

    Raises:
        TypeError: if the method does not take one of the options.
        ValueError: if there is no such method or hidden state, or the method has no such start, or
            needs statistics and none are given.

    Example:
        >>> similarity = TextImageSimilarity(clip, processor, [scene.image])
        >>> encoded = tokenize(clip, processor, ["a red circle"])
        >>> attribute_text("nib", similarity, processor, encoded, 0).values.shape
        torch.Size([1, 5, 96])
    """
    ids = encoded["input_ids"]

    known = ready_method(method)
    state = _state(known, similarity.model, "text", hidden_state, start)
    offered: dict[str, object] = {
        "target": target,
        "additional_forward_args": encoded.get("attention_mask"),
        "keep": special_tokens(processor, ids),
    }
    if not STARTS & options.keys():
        offered |= _start(
            known,
            start,
            blank=lambda: blank_ids(processor, ids),
            fitted=lambda statistics: statistics.of_text(state, processor, ids),
        )
    return _attribute(known, similarity, "text", state, ids, offered, options)


def layer_of(
    place: Place, model: nn.Module, tower: Tower, state: int
) -> tuple[nn.Module | None, bool]:
    """Returns the layer of a place in a tower, and whether its input is meant.

    Args:
        place: what a method explains.
        model: the image-text model, or a text encoder.
        tower: which of its encoders.
        state: the hidden state, where the place is one.

    Returns:
        the layer, None for the pixels; and what ``attribute_to_layer_input`` is to be.
    """
    if place is Place.INPUTS:
        return (None if tower == "image" else token_embedding(model)), False
    if place is Place.ALL_BLOCKS:
        return blocks(model, tower), False
    if place is Place.LAST_BLOCKS:
        return blocks(model, tower)[-1], False
    return hidden_state(model, tower, 0 if place is Place.FIRST_HIDDEN_STATES else state)


def _state(
    known: Method, model: nn.Module, tower: Tower, given: int | None, start: Start | None
) -> int:
    """Returns the hidden state to explain: given, that of statistics, or the method's default."""
    if given is not None:
        return given
    if isinstance(start, TowerStatistics):
        return start.hidden_states[tower == "text"]
    if known.hidden_states is not None:
        return known.hidden_states[tower == "text"]
    return default_hidden_state(model, tower) if known.place is Place.HIDDEN_STATES else 0


def _start(
    known: Method,
    start: Start | None,
    *,
    blank: Callable[[], Tensor],
    fitted: Callable[[TowerStatistics], LayerStatistics],
) -> dict[str, object]:
    """Returns the argument of ``attribute`` that says where a method starts; none for its own."""
    if start is not None and known.start is None:
        others = [method.name for method in METHODS.values() if method.start is not None]
        raise ValueError(
            f"`start` is for {enumerated(others)}; {known.name} has no start to choose, nor noise"
        )
    if isinstance(start, TowerStatistics):
        return {"layer_baselines" if known.takes("layer_baselines") else "prior": fitted(start)}
    begin = known.start if start is None else check_choice("start", start, ("zero", "blank"))
    if begin == "fitted":
        raise ValueError(
            f"`start` of {known.name} must be statistics of the hidden states; fit them on images"
            " and texts with captum-mi fit, or TowerStatistics.fit"
        )
    if begin != "blank":
        return {}
    if not known.takes("baselines"):
        raise ValueError(
            f"`start` of {known.name} must be 'zero', noise N(0, 1), or statistics, got 'blank'"
        )
    return {"baselines": blank()}


def _attribute(
    known: Method,
    similarity: ImageTextSimilarity | TextImageSimilarity | SentenceSimilarity,
    tower: Tower,
    state: int,
    inputs: Tensor,
    offered: Mapping[str, object],
    options: Mapping[str, object],
) -> Attributed:
    """Calls ``attribute`` at the method's place."""
    layer, at_input = layer_of(known.place, similarity.model, tower, state)
    place = {"layer": layer, "attribute_to_layer_input": at_input}
    kind = known.explaining(layer)
    offered = {**offered, **place, **known.taken(return_convergence_delta=True)}
    return Attributed(*call_attribute(kind, similarity, inputs, offered=offered, options=options))
