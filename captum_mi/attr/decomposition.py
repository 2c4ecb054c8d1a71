"""What a decomposition of a representation's information consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from captum_mi.estimators.estimate import Estimate

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Decomposition:
    """What each place of images shares with the representation, pointwise, in nats.

    A pointwise value is one image's term of an expectation, and signed: negative where the place
    looks as if it belonged to another image. The mean over images and places bounds the mean over
    places of the mutual information from below; that at one place comes near it.

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
    """What places share with the representation, over images: bounds from below, in nats.

    Standard errors are those of the images drawn; the negatives, and the critics, are the same for
    all of them.

    Attributes:
        maps: pointwise, of all images.
        prefix: how many tokens of token layers are no places.

    Example:
        >>> maps = torch.tensor([[1.0, 3.0], [2.0, 4.0]]).reshape(2, 1, 1, 2)
        >>> found = Information(Decomposition(maps, decision=maps / 2, mask=0 * maps, cap=6.9))
        >>> found.total.value, found.places.total.flatten().tolist()
        (2.5, [1.5, 3.5])
    """

    maps: Decomposition
    prefix: int = 0

    @property
    def total(self) -> Estimate:
        """The mean over the places of I(Z; X_k), with its standard error over images."""
        return Estimate.of(self._of_images(self.maps.total))

    @property
    def decision(self) -> Estimate:
        """The same of I(Z; X'_k), of what passes the mask."""
        return Estimate.of(self._of_images(self.maps.decision))

    @property
    def redundant(self) -> Estimate:
        """Their difference, paired image by image."""
        return Estimate.of(self._of_images(self.maps.redundant))

    @property
    def mask(self) -> float:
        """The mean of the mask over images and places, in [0, 1]."""
        return float(self._of_images(self.maps.mask).mean())

    @property
    def cap(self) -> float:
        """The largest value that can be measured, nats."""
        return self.maps.cap

    @property
    def places(self) -> Decomposition:
        """The means at each place, maps of one row."""
        return Decomposition(
            total=self.maps.total.mean(0, keepdim=True),
            decision=self.maps.decision.mean(0, keepdim=True),
            mask=self.maps.mask.mean(0, keepdim=True),
            cap=self.cap,
        )

    def _of_images(self, maps: Tensor) -> Tensor:
        return maps.flatten(1)[:, self.prefix :].mean(1)
