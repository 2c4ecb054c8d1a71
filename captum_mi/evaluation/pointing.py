"""Does one map point at the named object of two?"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import max_pool2d

SEED = 2_000_003
"""Of the two-object scenes that methods are judged on."""
TIE = 1e-5
"""Values this near to the maximum, as a share of the map's largest magnitude, share it: a patch
map's border is constant over half a patch but for rounding."""


@dataclass(frozen=True)
class Pointing:
    """How one map of a two-object scene relates to the named and to the other object.

    Attributes:
        hit: 1 if the map's maximum lies on the named object, or no further from it than the
            tolerance. Where several pixels share the maximum, the share of them that do, here and
            below.
        wrong: 1 if it does not, but lies on or near the other object.
        exact: 1 if it lies on a pixel of the named object.
        mass_inside: share of the positive relevance on the named object; chance is its share of
            the pixels.
        other_negative: 1 if the mean relevance on the other object is negative.
    """

    hit: float
    wrong: float
    exact: float
    mass_inside: float
    other_negative: float


def judge(heat: Tensor, named: Tensor, other: Tensor, *, tolerance: float = 0.0) -> Pointing:
    """Compares a signed map with the masks of the named and the other object.

    Args:
        heat: (H, W), signed.
        named: (H, W), bool.
        other: (H, W), bool.
        tolerance: pixels, along either axis, by which the maximum may miss, as in the pointing game
            of Zhang et al. 2016. With half a patch: the patch of the maximum touches the object.

    Example:
        >>> named = torch.eye(3, dtype=torch.bool)
        >>> judge(named.float() - 0.5, named, ~named)
        Pointing(hit=1.0, wrong=0.0, exact=1.0, mass_inside=1.0, other_negative=1.0)
    """
    top = heat >= heat.max() - TIE * heat.abs().max()

    def share(mask: Tensor) -> float:
        """Returns the share of the maxima that lie in the mask."""
        return float(mask[top].double().mean())

    hit = _widened(named, tolerance)
    positive = heat.clamp(min=0)
    mass = positive.sum()
    return Pointing(
        hit=share(hit),
        wrong=share(_widened(other, tolerance) & ~hit),
        exact=share(named),
        mass_inside=float(positive[named].sum() / mass) if mass > 0 else 0.0,
        other_negative=float(heat[other].mean() < 0),
    )


def _widened(mask: Tensor, tolerance: float) -> Tensor:
    """Returns the pixels within the tolerance of the mask, along either axis, (H, W)."""
    reach = int(tolerance)
    wide = max_pool2d(mask[None].float(), 2 * reach + 1, stride=1, padding=reach)
    return wide[0].bool()
