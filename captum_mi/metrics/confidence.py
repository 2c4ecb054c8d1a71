"""Confidence drop and increase of maps, as functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

ScoreFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Confidence:
    """The score of inputs as they are, and of what maps leave of them.

    Attributes:
        before: (B,) score of the inputs.
        after: (B,) score of the inputs times their maps.
    """

    before: Tensor
    after: Tensor

    def drop(self, *, relative: bool = False) -> Tensor:
        """Returns hundred times what the score loses, (B,) >= 0; see :func:`confidence_drop`."""
        lost = (self.before - self.after).clamp(min=0)
        if not relative:
            return 100 * lost
        if not (self.before > 0).all():
            row = int((~(self.before > 0)).nonzero()[0])
            raise ValueError(
                "`relative` drop needs positive scores, row"
                f" {row} has {float(self.before[row]):.4g}; use probabilities, or the absolute drop"
            )
        return 100 * lost / self.before

    def increase(self) -> Tensor:
        """Returns 100 where the score rises, else 0, (B,)."""
        return 100.0 * (self.after > self.before)


@torch.no_grad()
def confidence(score: ScoreFunction, inputs: Tensor, maps: Tensor) -> Confidence:
    """Scores inputs before and after multiplying them by their maps.

    Args:
        score: gives the score (B,) of inputs, such as ``lambda x: model(x)[:, 0]``.
        inputs: (B, C, H, W) normalized images, where zero is the mean color, (B, D, T) token
            embeddings, or (B, F) features.
        maps: (B, 1, H, W), (B, 1, T) or (B, F) in [0, 1], see ``maps.min_max`` and
            ``EmbeddedText.masks``.

    Raises:
        ValueError: if the maps do not fit the inputs or leave [0, 1], or a score is not finite.

    Example:
        >>> x = torch.rand(2, 3, 4, 4)
        >>> confidence(lambda x: x.mean((1, 2, 3)), x, torch.zeros(2, 1, 4, 4)).after
        tensor([0., 0.])
    """
    shape = tuple(inputs.shape) if inputs.ndim == 2 else (len(inputs), 1, *inputs.shape[2:])
    if maps.shape != shape:
        raise ValueError(
            f"`maps` must have shape {shape} for `inputs` of shape {tuple(inputs.shape)}, got"
            f" {tuple(maps.shape)}"
        )
    low, high = float(maps.min()), float(maps.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"`maps` must lie in [0, 1], got values from {low:.4g} to {high:.4g}; scale them with"
            " maps.min_max"
        )
    found = Confidence(score(inputs), score(inputs * maps.to(inputs.dtype)))
    if not (found.before.isfinite().all() and found.after.isfinite().all()):
        raise ValueError("`score` gave NaN or infinity; check the model and the inputs")
    return found


def confidence_drop(
    score: ScoreFunction, inputs: Tensor, maps: Tensor, *, relative: bool = False
) -> Tensor:
    r"""Returns how much of the score is lost where only what a map shows remains. Lower is better.

    .. math:: 100 \max(0, Y - O), \qquad \text{relative: } 100 \max(0, Y - O) / Y

    with Y the score of the input and O that of the input times its map.

    Args:
        score: gives the score (B,) of inputs.
        inputs: (B, C, H, W), (B, D, T) or (B, F).
        maps: (B, 1, H, W), (B, 1, T) or (B, F) in [0, 1].
        relative: in percent of the score, which must be positive.

    Returns:
        (B,) hundred times the score's units, or percent.

    Raises:
        ValueError: if the maps do not fit, or a score is not positive with ``relative``.

    Source: absolute as in Zhu et al., ICLR 2025, and Wang et al., NeurIPS 2023; relative as in
    Chattopadhay et al., "Grad-CAM++", WACV 2018, section 4.1.

    Example:
        >>> x = torch.full((1, 1, 2, 2), 0.5)
        >>> confidence_drop(lambda x: x.mean((1, 2, 3)), x, torch.full((1, 1, 2, 2), 0.5))
        tensor([25.])
    """
    return confidence(score, inputs, maps).drop(relative=relative)


def confidence_increase(score: ScoreFunction, inputs: Tensor, maps: Tensor) -> Tensor:
    """Returns 100 for each row whose score rises where only what its map shows remains, else 0.

    Args:
        score: gives the score (B,) of inputs.
        inputs: (B, C, H, W), (B, D, T) or (B, F).
        maps: (B, 1, H, W), (B, 1, T) or (B, F) in [0, 1].

    Returns:
        (B,), whose mean is the share of rows in percent. Higher is better.

    Raises:
        ValueError: if the maps do not fit.

    Source: Chattopadhay et al., "Grad-CAM++", WACV 2018, section 4.1.

    Example:
        >>> x = torch.tensor([[[[1.0, -2.0]]]])
        >>> confidence_increase(lambda x: x.sum((1, 2, 3)), x, torch.tensor([[[[1.0, 0.0]]]]))
        tensor([100.])
    """
    return confidence(score, inputs, maps).increase()
