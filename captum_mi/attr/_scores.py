"""The score to explain, for each row, and its gradient at a latent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_mi._intervention.precision import at_least_single
from captum_mi.attr._captum import select_targets

if TYPE_CHECKING:
    from captum_mi._intervention.suffix import LayerSuffix
    from captum_mi.attr._captum import TargetType


def target_scores(output: Tensor, target: TargetType) -> Tensor:
    """Returns the selected output of each row, (B,), at least float32.

    Raises:
        AssertionError: if ``target`` does not select one output per row (as Captum raises).
        IndexError: if there is no such output (RuntimeError of a tensor of targets, as PyTorch).
    """
    try:
        selected = select_targets(output, target)
    except (IndexError, RuntimeError) as error:
        raise type(error)(
            f"`target` must be an index into the model's outputs {tuple(output.shape)}, that is"
            f" 0 to {output.shape[-1] - 1}, got {target!r}"
        ) from error
    if selected[0].numel() != 1:
        raise AssertionError(
            f"`target` must select one output per row; the model returns {tuple(output.shape)}, got"
            f" target {target!r}"
        )
    return at_least_single(selected).flatten()


def scores_and_gradients(
    suffix: LayerSuffix,
    latent: tuple[Tensor, ...],
    target: TargetType,
    grad_kwargs: dict[str, Any] | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Returns the score of each row at a latent, (B,), and its gradient, in the latent's shape.

    What does not reach the output has a gradient of zero.
    """
    options: dict[str, Any] = {"materialize_grads": True} | (grad_kwargs or {})
    with torch.inference_mode(mode=False), torch.enable_grad():
        leaves = tuple(at_least_single(part).detach().requires_grad_() for part in latent)
        scores = target_scores(suffix(*leaves), target)
        if not scores.requires_grad:
            return scores, tuple(torch.zeros_like(leaf) for leaf in leaves)
        gradients = torch.autograd.grad(scores.sum(), leaves, **options)
    return scores.detach(), tuple(gradients)
