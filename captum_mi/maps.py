"""From a layer's attribution to a map of the image, or to scores of the tokens of a text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PREFIX_TOKENS = 16


class TokenGrid(NamedTuple):
    """How tokens lie on the image: prefix tokens (CLS, registers), then rows of patches."""

    prefix: int
    height: int
    width: int
    patch: int


def token_grid(tokens: int, size: Sequence[int], patch_size: int | None = None) -> TokenGrid:
    """Finds the patch grid of a token layer from the size of the image.

    Args:
        tokens: number of tokens of the layer, prefix included.
        size: (H, W) of the pixels that the model saw.
        patch_size: side of a patch, from :func:`patch_size`; None finds the one that covers the
            image with the fewest prefix tokens.

    Returns:
        the grid.

    Raises:
        ValueError: if no grid of the image's shape fits the tokens.

    Example:
        >>> token_grid(50, (224, 224))
        TokenGrid(prefix=1, height=7, width=7, patch=32)
    """
    height, width = size
    candidates = [patch_size] if patch_size else range(1, min(height, width) + 1)
    grids = [
        TokenGrid(tokens - (height // p) * (width // p), height // p, width // p, p)
        for p in candidates
    ]
    fitting = [grid for grid in grids if 0 <= grid.prefix <= MAX_PREFIX_TOKENS]
    if not fitting:
        raise ValueError(
            f"no grid of patches{f' of size {patch_size}' if patch_size else ''} on an image of"
            f" {height}x{width} has {tokens} tokens; `size` must be that of the pixels the model"
            " saw, and the layer one of an image encoder"
        )
    return min(fitting, key=lambda grid: (grid.prefix, -grid.patch))


def patch_size(model: nn.Module) -> int:
    """Returns the side of the patches of an image encoder: the stride of its patch embedding.

    Raises:
        ValueError: if the model has no convolution that cuts the image into patches.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == module.stride != (1, 1):
            return module.stride[0]
    raise ValueError(f"{type(model).__name__} has no patch embedding")


def image_map(
    attribution: Tensor, size: Sequence[int], *, model: nn.Module | None = None
) -> Tensor:
    """Turns a layer's attribution into a map of the image.

    Channels are summed, so the sign stays; a grid of patches loses its prefix tokens; the map is
    interpolated linearly. Nothing is normalised, see :func:`min_max`.

    Args:
        attribution: (B, C, h, w) of a convolution layer or (B, T, D) of a token layer.
        size: (H, W) of the pixels that the model saw.
        model: the model; its patch size then decides the grid. None derives the grid from ``size``.

    Returns:
        (B, 1, H, W).

    Raises:
        ValueError: if the attribution is of another shape, or no patch grid fits it.

    Example:
        >>> image_map(torch.randn(2, 50, 768), size=(224, 224)).shape
        torch.Size([2, 1, 224, 224])
    """
    height, width = size
    if attribution.ndim == 4:
        rows, columns = attribution.shape[2:]
        if abs(rows * width - columns * height) > 2 * max(height, width):
            raise ValueError(
                f"`attribution` of shape {tuple(attribution.shape)} is no (B, C, h, w) map of an"
                f" image of {height}x{width}; if its channels are last, as in a Swin transformer,"
                " give attribution.permute(0, 3, 1, 2)"
            )
        return _resize(attribution.sum(1, keepdim=True), (height, width))
    grid = _grid(attribution, size, model)
    covered = (grid.height * grid.patch, grid.width * grid.patch)
    upsampled = _resize(patch_map(attribution, size, model=model), covered)
    return pad(upsampled, (0, width - covered[1], 0, height - covered[0]))


def bits_per_pixel(
    capacity: Tensor, size: Sequence[int], *, model: nn.Module | None = None
) -> Tensor:
    """Spreads the information that passes a bottleneck over the pixels of the image.

    Args:
        capacity: (B, C, h, w) or (B, T, D), nats per element, from ``MultimodalIB``.
        size: (H, W) of the pixels that the model saw.
        model: the model; its patch size then decides the grid.

    Returns:
        (B, 1, H, W) bits per pixel; the sum is the total of the map's elements, but for the
        interpolation at the border.

    Source: Schulz et al. 2020, section 4.

    Example:
        >>> bits_per_pixel(torch.rand(1, 64, 7, 7), (224, 224)).shape
        torch.Size([1, 1, 224, 224])
    """
    nats = image_map(capacity, size, model=model)
    if capacity.ndim == 4:
        area = size[0] * size[1] / (capacity.shape[2] * capacity.shape[3])
    else:
        area = _grid(capacity, size, model).patch ** 2
    return nats / (math.log(2) * area)


def patch_map(
    attribution: Tensor, size: Sequence[int], *, model: nn.Module | None = None
) -> Tensor:
    """Returns the map of a token layer at the resolution of its patches, (B, 1, h, w)."""
    grid = _grid(attribution, size, model)
    patches = attribution.sum(-1)[:, grid.prefix :]
    return patches.reshape(-1, 1, grid.height, grid.width)


def min_max(values: Tensor) -> Tensor:
    """Scales each sample to [0, 1]; a constant sample becomes zeros.

    Args:
        values: (B, ...).

    Returns:
        the same shape.
    """
    flat = values.flatten(1)
    low = flat.amin(1, keepdim=True)
    span = flat.amax(1, keepdim=True) - low
    scaled = (flat - low) / span.where(span > 0, span.new_ones(()))
    return scaled.reshape(values.shape)


@dataclass(frozen=True)
class TokenScores:
    """Scores of the tokens of one text.

    Attributes:
        tokens: the tokens as words, without the marks of their tokenizer. Padding is left out;
            where it has a score (SigLIP pools it), all of it is one last token, "<padding>".
        scores: one for each token, signed.
        special: whether the token is one that the tokenizer added (BOS, EOS, CLS, padding): apart
            from the words.
    """

    tokens: tuple[str, ...]
    scores: tuple[float, ...]
    special: tuple[bool, ...]


def token_scores(attribution: Tensor, input_ids: Tensor, processor: Any) -> list[TokenScores]:  # noqa: ANN401
    """Turns a text layer's attribution into one score per token: the sum over the channels.

    Args:
        attribution: (B, T, D), signed.
        input_ids: (B, T).
        processor: the processor, or the tokenizer, that made the ids.

    Returns:
        B token scores.

    Raises:
        ValueError: if the shapes do not match.
    """
    if attribution.ndim != 3 or attribution.shape[:2] != input_ids.shape:
        raise ValueError(
            "`attribution` must have shape (B, T, D) for `input_ids` of shape"
            f" {tuple(input_ids.shape)}, got {tuple(attribution.shape)}"
        )
    tokenizer = getattr(processor, "tokenizer", processor)
    return [
        _scores_of_one(*one, tokenizer)
        for one in zip(
            input_ids.tolist(),
            attribution.sum(-1).tolist(),
            special_tokens(tokenizer, input_ids).tolist(),
            strict=True,
        )
    ]


def special_tokens(processor: Any, input_ids: Tensor) -> Tensor:  # noqa: ANN401
    """Tells the tokens that the tokenizer added (BOS, EOS, CLS, padding) from the words.

    Args:
        processor: the processor, or the tokenizer, that made the ids.
        input_ids: (B, T).

    Returns:
        (B, T) bool. What follows the first end token is padding, for that may be the same token.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    special |= {tokenizer.bos_token_id, tokenizer.eos_token_id} - {None}
    found: Tensor = torch.isin(input_ids, torch.tensor(sorted(special), device=input_ids.device))
    if tokenizer.eos_token_id is None:
        return found
    found |= (input_ids == tokenizer.eos_token_id).cumsum(dim=1).gt(0)
    return found


def _scores_of_one(
    ids: list[int],
    scores: list[float],
    special: list[bool],
    tokenizer: Any,  # noqa: ANN401
) -> TokenScores:
    # The end token may double as padding: what follows the first one is padding.
    last = ids.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in ids else len(ids)
    padding = {tokenizer.pad_token_id} - {tokenizer.eos_token_id}
    kept = [i for i, token in enumerate(ids) if i <= last and token not in padding]
    rest = sum(score for i, score in enumerate(scores) if i not in kept)
    result = TokenScores(
        tokens=tuple(_word(ids[i], tokenizer) for i in kept),
        scores=tuple(scores[i] for i in kept),
        special=tuple(special[i] for i in kept),
    )
    if rest == 0:
        return result
    return TokenScores(
        (*result.tokens, "<padding>"), (*result.scores, rest), (*result.special, True)
    )


def _word(token: int, tokenizer: Any) -> str:  # noqa: ANN401
    """Decodes one token; strips what wordpiece marks a continuation with."""
    word: str = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    return word.strip().removeprefix("##")


def _grid(attribution: Tensor, size: Sequence[int], model: nn.Module | None) -> TokenGrid:
    if attribution.ndim != 3:
        raise ValueError(
            "`attribution` must have shape (B, T, D) or (B, C, h, w), got"
            f" {tuple(attribution.shape)}"
        )
    return token_grid(attribution.shape[1], size, None if model is None else patch_size(model))


def _resize(values: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(values, size=size, mode="bilinear", align_corners=False)
