"""What a decomposition of a representation's information consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from captum_mi.estimators.base import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True)
class Decomposition:
    """What each place of images shares with the representation, pointwise, in nats.

    A pointwise value is one image's term of an expectation, and signed: negative where the place
    looks as if it belonged to another image. The mean over images bounds the mutual information
    from below.

    Attributes:
        total: (B, 1, h, w), or (B, T, 1) on token layers, at most ``cap``.
        decision: likewise, of what passes the mask that keeps the task.
        mask: likewise, in [0, 1], how much passes.
        cap: the largest value that can be measured, nats: log(1 + M) with M negatives.

    Example:
        >>> one = torch.ones(1, 1, 2, 2)
        >>> Decomposition(total=2 * one, decision=0.5 * one, mask=one, cap=6.9).redundant
        tensor([[[[1.5000, 1.5000],
                  [1.5000, 1.5000]]]])
    """

    total: Tensor
    decision: Tensor
    mask: Tensor
    cap: float

    @property
    def redundant(self) -> Tensor:
        """The rest, which the task does not need: total - decision."""
        return self.total - self.decision


@dataclass(frozen=True)
class Information:
    """Means over images: lower bounds of mutual information, in nats.

    Attributes:
        total: the mean over the places of I(Z; X_k), with its standard error over images.
        decision: the same of I(Z; X'_k).
        redundant: their difference, paired image by image.
        mask: the mean of the mask, in [0, 1].
        cap: the largest value that can be measured, nats.
        places: the means at each place, as maps of one row.
    """

    total: Estimate
    decision: Estimate
    redundant: Estimate
    mask: float
    cap: float
    places: Decomposition

    @classmethod
    def of(cls, parts: Sequence[Decomposition], prefix: int = 0) -> Information:
        """Returns the means over the images of several batches; tokens of the prefix are no places.

        Raises:
            ValueError: if there are fewer than two images.
        """
        n_images = sum(len(part.total) for part in parts)
        if n_images < 2:
            raise ValueError(f"`loader` must give at least two images, got {n_images}")
        total, decision, mask = (
            torch.cat([getattr(part, name) for part in parts])
            for name in ("total", "decision", "mask")
        )

        def of_images(maps: Tensor) -> Tensor:
            return maps.flatten(1)[:, prefix:].mean(1)

        return cls(
            total=Estimate.of(of_images(total)),
            decision=Estimate.of(of_images(decision)),
            redundant=Estimate.of(of_images(total - decision)),
            mask=float(of_images(mask).mean()),
            cap=parts[0].cap,
            places=Decomposition(
                total=total.mean(0, keepdim=True),
                decision=decision.mean(0, keepdim=True),
                mask=mask.mean(0, keepdim=True),
                cap=parts[0].cap,
            ),
        )
