"""From a layer's attribution to a map of the image, or to scores of the tokens of a text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate, pad

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

PREFIXES = (0, 1)  # tokens in front of the patches: none, or CLS
MAX_PREFIX_TOKENS = 16


class TokenGrid(NamedTuple):
    """How tokens lie on the image: prefix tokens (CLS, registers), then rows of patches."""

    prefix: int
    height: int
    width: int
    patch: int


def token_grid(
    tokens: int,
    size: Sequence[int],
    patch_size: int | None = None,
    prefixes: Collection[int] | None = None,
) -> TokenGrid:
    """Finds the patch grid of a token layer from the size of the image.

    Args:
        tokens: number of tokens of the layer, prefix included.
        size: (H, W) of the pixels that the model saw.
        patch_size: side of a patch, from :func:`patch_size`; None finds the one that tiles the
            image exactly behind the shortest prefix. That is a guess, which goes wrong where
            ``size`` is not what the model saw: 577 tokens fit a photograph of 1080x1920 as 18x32
            patches, though the model saw 24x24 of a square.
        prefixes: how many tokens may stand in front of the patches, such as
            :func:`prefix_tokens`; by default at most 16, and 1 where the grid is a guess.

    Returns:
        the grid.

    Raises:
        ValueError: if no grid of the image's shape fits the tokens.

    Example:
        >>> token_grid(50, (224, 224), patch_size=32)
        TokenGrid(prefix=1, height=7, width=7, patch=32)
    """
    height, width = size
    if prefixes is None:
        prefixes = range(MAX_PREFIX_TOKENS + 1) if patch_size else PREFIXES
    sides = [patch_size] if patch_size else range(1, min(height, width) + 1)
    grids = [
        TokenGrid(tokens - (height // side) * (width // side), height // side, width // side, side)
        for side in sides
        if patch_size or height % side == width % side == 0
    ]
    fitting = [grid for grid in grids if grid.prefix in prefixes]
    if not fitting:
        patches = (
            f"{grids[0].height}x{grids[0].width} patches (of size {patch_size})"
            if patch_size
            else "whole square patches"
        )
        raise ValueError(
            f"{tokens} tokens are not the {patches} of an image of {height}x{width} with"
            f" {_listed(prefixes)} tokens in front; `size` must be that of the pixels that the"
            " model saw (`pixel_values`, not the photograph), and the layer one of its image"
            " encoder; give image_map `grid` where the rows and columns of patches are known"
            " otherwise"
        )
    return fitting[0]  # the smaller the patches, the shorter the prefix


def patch_size(model: nn.Module) -> int:
    """Returns the side of the patches of an image encoder: the stride of its patch embedding.

    Raises:
        ValueError: if the model has no convolution that cuts the image into patches.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == module.stride != (1, 1):
            return module.stride[0]
    raise ValueError(f"{type(model).__name__} has no patch embedding")


def prefix_tokens(model: nn.Module) -> frozenset[int]:
    """Returns how many tokens may stand in front of the patches of an image encoder.

    None, one (CLS), or what the model says: ``num_prefix_tokens`` as in timm, a distillation token
    as in DeiT or register tokens as in DINOv2 of Hugging Face.
    """
    found = set(PREFIXES)
    for module in model.modules():
        found.add(getattr(module, "num_prefix_tokens", 0))
        registers = getattr(getattr(module, "config", None), "num_register_tokens", None) or 0
        found.add(1 + registers + hasattr(module, "distillation_token"))
    return frozenset(found)


def image_map(
    attribution: Tensor,
    size: Sequence[int] | Tensor,
    *,
    model: nn.Module | None = None,
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Turns a layer's attribution into a map of the image.

    Channels are summed, so the sign stays; a grid of patches loses its prefix tokens; the map is
    interpolated linearly. Nothing is normalised, see :func:`min_max`. The map lies on the pixels
    that the model saw, resized and cropped: see :func:`image_seen` and :func:`on_original`.

    Args:
        attribution: (B, C, h, w) of a convolution layer or (B, T, D) of a token layer.
        size: the pixels that the model saw, (B, 3, H, W), or their (H, W).
        model: the model, for a token layer: its patch size decides the grid.
        grid: rows and columns of patches, for a token layer of a model whose patches are known from
            elsewhere, such as ``image_grid_thw`` of Qwen2-VL; T - rows * columns tokens stand in
            front of them.

    Returns:
        (B, 1, H, W).

    Raises:
        TypeError: if the attribution is no tensor, or ``size`` is no size.
        ValueError: if the attribution is of another shape, no patch grid fits it, or a token layer
            comes with neither ``model`` nor ``grid``, or with both.

    Example:
        >>> image_map(torch.randn(2, 65, 128), pixels, model=clip).shape
        torch.Size([2, 1, 64, 64])
        >>> image_map(torch.randn(1, 24, 128), (56, 84), grid=(4, 6)).shape
        torch.Size([1, 1, 56, 84])
    """
    height, width = _size(size)
    if _checked(attribution).ndim == 4:
        rows, columns = attribution.shape[2:]
        if abs(rows * width - columns * height) > 2 * max(height, width):
            raise ValueError(
                f"`attribution` of shape {tuple(attribution.shape)} is no (B, C, h, w) map of an"
                f" image of {height}x{width}; `size` must be that of the pixels that the model saw;"
                " if the channels are last, as in a Swin transformer, give"
                " attribution.permute(0, 3, 1, 2)"
            )
        return _resize(attribution.sum(1, keepdim=True), (height, width))
    found = _grid(attribution, (height, width), model, grid)
    covered = (height, width)
    if grid is None:
        covered = (found.height * found.patch, found.width * found.patch)
    upsampled = _resize(_patches(attribution, found), covered)
    return pad(upsampled, (0, width - covered[1], 0, height - covered[0]))


def bits_per_pixel(
    capacity: Tensor,
    size: Sequence[int] | Tensor,
    *,
    model: nn.Module | None = None,
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Spreads the information that passes a bottleneck over the pixels of the image.

    Args:
        capacity: (B, C, h, w) or (B, T, D), nats per element, from ``MultimodalIB``.
        size: the pixels that the model saw, or their (H, W), see :func:`image_map`.
        model: the model, for a token layer.
        grid: rows and columns of patches, instead of the model.

    Returns:
        (B, 1, H, W) bits per pixel; the sum is the total of the map's elements, but for the
        interpolation at the border.

    Source: Schulz et al. 2020, section 4.

    Example:
        >>> bits_per_pixel(torch.rand(1, 64, 7, 7), (224, 224)).shape
        torch.Size([1, 1, 224, 224])
    """
    height, width = _size(size)
    nats = image_map(capacity, (height, width), model=model, grid=grid)
    if capacity.ndim == 4 or grid is not None:
        rows, columns = grid or capacity.shape[2:]
        area = height * width / (rows * columns)
    else:
        area = _grid(capacity, (height, width), model, grid).patch ** 2
    return nats / (math.log(2) * area)


def patch_map(
    attribution: Tensor,
    size: Sequence[int] | Tensor | None = None,
    *,
    model: nn.Module | None = None,
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Returns the map of a token layer at the resolution of its patches, (B, 1, h, w).

    Args:
        attribution: (B, T, D) of a token layer.
        size: the pixels that the model saw, or their (H, W); not needed with ``grid``.
        model: the model: its patch size decides the grid.
        grid: rows and columns of patches, instead of the model.

    Raises:
        ValueError: if no patch grid fits the tokens.

    Example:
        >>> patch_map(torch.randn(2, 65, 128), pixels, model=clip).shape
        torch.Size([2, 1, 8, 8])
    """
    if _checked(attribution).ndim != 3:
        raise ValueError(f"`attribution` must have shape (B, T, D), got {tuple(attribution.shape)}")
    if size is None and grid is None:
        raise ValueError(
            "`size` or `grid` must be given; give the pixels that the model saw, or (rows, columns)"
        )
    return _patches(
        attribution, _grid(attribution, (0, 0) if size is None else _size(size), model, grid)
    )


def image_seen(pixels: Tensor, processor: Any) -> Tensor:  # noqa: ANN401
    """Returns the image as the model saw it, resized and cropped: what a map is drawn over.

    Args:
        pixels: (1, 3, H, W) or (3, H, W), of the processor.
        processor: the processor, or the image processor, that made them.

    Returns:
        (H, W, 3) in [0, 1].

    Raises:
        TypeError: if these are no pixels, or no image processor.
        ValueError: if there is not one image.

    Example:
        >>> image_seen(pixels, processor).shape
        torch.Size([64, 64, 3])
    """
    image_processor = getattr(processor, "image_processor", processor)
    if not isinstance(pixels, Tensor) or not hasattr(image_processor, "do_normalize"):
        raise TypeError(
            "`pixels` must be the tensor that the image processor `processor` made, its"
            f" 'pixel_values', got {type(pixels).__name__} and {type(processor).__name__}"
        )
    image = pixels[0] if pixels.ndim == 4 and len(pixels) == 1 else pixels
    if image.ndim != 3 or len(image) != 3:
        raise ValueError(
            "`pixels` must be one image (1, 3, H, W) or (3, H, W), got shape"
            f" {tuple(pixels.shape)}; give pixels[i]"
        )
    image = image.detach().float().cpu()
    if image_processor.do_normalize:
        mean = torch.tensor(image_processor.image_mean)[:, None, None]
        std = torch.tensor(image_processor.image_std)[:, None, None]
        image = image * std + mean
    return image.clamp(0, 1).permute(1, 2, 0)


def on_original(heat: Tensor, image: Any, processor: Any) -> Tensor:  # noqa: ANN401
    """Puts a map back on the image that the processor resized and cropped.

    Where the processor took the pixels from is found by giving it an image of two ramps, so every
    processor that resizes along the axes and crops is understood.

    Args:
        heat: (B, 1, H, W), from :func:`image_map`.
        image: the image that the processor was given: a PIL image, or an array (H0, W0, 3).
        processor: the processor, or the image processor, that made the pixels.

    Returns:
        (B, 1, H0, W0), interpolated linearly; zero where the model saw nothing.

    Raises:
        ValueError: if the map is none of the processor's images, or the processor does more than
            resize and crop (padding, for one).

    Example:
        >>> photograph = np.zeros((90, 120, 3), np.uint8)
        >>> on_original(torch.ones(1, 1, 64, 64), photograph, processor).shape
        torch.Size([1, 1, 90, 120])
    """
    shape = np.shape(np.asarray(image))
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise ValueError(
            f"`image` must be a PIL image or an array (H, W, 3), got shape {tuple(shape)}"
        )
    height, width = shape[:2]
    ramps = np.zeros((height, width, 3), np.uint8)
    ramps[..., 0] = np.linspace(0, 255, width).round()
    ramps[..., 1] = np.linspace(0, 255, height).round()[:, None]
    image_processor = getattr(processor, "image_processor", processor)
    pixels = image_processor(images=[ramps], return_tensors="pt")["pixel_values"]
    if heat.ndim != 4 or heat.shape[1] != 1 or heat.shape[2:] != pixels.shape[2:]:
        raise ValueError(
            f"`heat` must have shape (B, 1, {pixels.shape[2]}, {pixels.shape[3]}), that of the"
            f" processor's images, got {tuple(heat.shape)}"
        )
    seen = image_seen(pixels, image_processor)
    columns = _places(seen[..., 0], width)
    rows = _places(seen[..., 1].T, height)
    where = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1)
    return grid_sample(
        heat,
        where.to(heat).expand(len(heat), -1, -1, -1),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )


def _places(ramp: Tensor, length: int) -> Tensor:
    """Where the pixels of one axis of the original lie in the map, in grid_sample's [-1, 1].

    ``ramp`` (n, m) rises along its last axis from 0 to 1 over the original's length.
    """
    count = ramp.shape[1]
    middle = slice(count // 8, count - count // 8)  # borders are overshot by the resampling
    index = torch.arange(count, dtype=torch.float64)[middle]
    found = ramp.double()[:, middle] * (length - 1)
    line = found.mean(0)
    centred = index - index.mean()
    slope = (centred * line).sum() / (centred**2).sum()
    fitted = line.mean() + slope * centred
    # One grey level, and half a pixel of either image, are what rounding makes of a ramp.
    tolerance = length / 255 + max(1.0, abs(float(slope)))
    if (found - fitted).abs().amax() > tolerance:
        raise ValueError(
            "`processor` does more than resize and crop; the map cannot be put back on the image"
        )
    places = index.mean() + (torch.arange(length, dtype=torch.float64) - line.mean()) / slope
    return (2 * places + 1) / count - 1


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


def _checked(attribution: Tensor) -> Tensor:
    if isinstance(attribution, (tuple, list)):
        raise TypeError(
            f"`attribution` must be a tensor, got a {type(attribution).__name__} of"
            f" {len(attribution)}; give its item of the layer to map, such as attribution[0]"
        )
    if attribution.ndim not in (3, 4):
        raise ValueError(
            "`attribution` must have shape (B, T, D) or (B, C, h, w), got"
            f" {tuple(attribution.shape)}"
        )
    return attribution


def _size(size: Sequence[int] | Tensor) -> tuple[int, int]:
    found = size.shape[2:] if isinstance(size, Tensor) and size.ndim == 4 else size
    if not isinstance(found, (tuple, list)) or [type(side) for side in found] != [int, int]:
        raise TypeError(
            "`size` must be the pixels that the model saw, (B, 3, H, W), or their (H, W), got"
            f" {_brief(size)}"
        )
    height, width = found
    return height, width


def _brief(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return repr(value) if isinstance(value, (int, float, tuple, list)) else type(value).__name__


def _grid(
    attribution: Tensor,
    size: tuple[int, int],
    model: nn.Module | None,
    grid: tuple[int, int] | None,
) -> TokenGrid:
    tokens = attribution.shape[1]
    if grid is not None and model is None:
        rows, columns = grid
        prefix = tokens - rows * columns
        if min(rows, columns) < 1 or not 0 <= prefix <= MAX_PREFIX_TOKENS:
            raise ValueError(
                f"`grid` must be the rows and columns of {tokens} tokens, at most"
                f" {MAX_PREFIX_TOKENS} of them in front, got {grid}"
            )
        return TokenGrid(prefix, rows, columns, 0)
    if model is None or grid is not None:
        raise ValueError(
            f"`attribution` of {tokens} tokens needs `model`, whose patch size decides where they"
            " lie on the image, or `grid`, the rows and columns of its patches; one of the two, got"
            f" {'none' if grid is None else 'both'}"
        )
    return token_grid(tokens, size, patch_size(model), prefix_tokens(model))


def _patches(attribution: Tensor, grid: TokenGrid) -> Tensor:
    patches = attribution.sum(-1)[:, grid.prefix :]
    return patches.reshape(-1, 1, grid.height, grid.width)


def _listed(numbers: Collection[int]) -> str:
    *others, last = (str(number) for number in sorted(numbers))
    return f"{', '.join(others)} or {last}" if len(others) < 5 else f"at most {last}"


def _resize(values: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(values, size=size, mode="bilinear", align_corners=False)
