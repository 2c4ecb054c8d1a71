"""The grid that the tokens of an image encoder form on the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

PREFIXES = (0, 1)  # tokens in front of the patches: none, or CLS
MAX_PREFIX_TOKENS = 16


class TokenGrid(NamedTuple):
    """Places of the tokens: prefix tokens (CLS, registers), then rows of square patches.

    Attributes:
        prefix: number of tokens in front of the patches.
        height: rows of patches.
        width: columns of patches.
        patch: side of a patch in pixels, 0 where it is not known.
    """

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

    Example:
        >>> patch_size(clip)
        8
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == module.stride != (1, 1):
            return module.stride[0]
    raise ValueError(f"{type(model).__name__} has no patch embedding")


def prefix_tokens(model: nn.Module) -> frozenset[int]:
    """Returns how many tokens may stand in front of the patches of an image encoder.

    None, one (CLS), or what the model says: ``num_prefix_tokens`` as in timm, a distillation token
    as in DeiT or register tokens as in DINOv2 of Hugging Face.

    Example:
        >>> sorted(prefix_tokens(clip))
        [0, 1]
    """
    found = set(PREFIXES)
    for module in model.modules():
        found.add(getattr(module, "num_prefix_tokens", 0))
        registers = getattr(getattr(module, "config", None), "num_register_tokens", None) or 0
        found.add(1 + registers + hasattr(module, "distillation_token"))
    return frozenset(found)


def grid_of(
    tokens: int,
    size: tuple[int, int],
    model: nn.Module | None,
    grid: tuple[int, int] | None,
) -> TokenGrid:
    """Returns the grid of a token layer that ``grid`` gives, or the model's patch size."""
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


def _listed(numbers: Collection[int]) -> str:
    *others, last = (str(number) for number in sorted(numbers))
    return f"{', '.join(others)} or {last}" if len(others) < 5 else f"at most {last}"
