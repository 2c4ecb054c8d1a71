"""How numbers become colors: their unit decides; what is to be compared shares a scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from captum_mi._checks import check_choice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

Unit: TypeAlias = Literal["cosine", "score", "pointwise nats", "nats", "bits"] | None
"""What numbers are: signed parts of a cosine, or of a classifier's score; pointwise nats, signed
too, whose mean is information; nats or bits, which are never negative; None, relevance without a
unit. ``METHODS[name].unit`` is one."""


@dataclass(frozen=True)
class Look:
    """How the numbers of a unit are drawn and spoken of.

    Attributes:
        signed: whether zero lies in the middle of the colors; else at their beginning.
        label: what the color bar says.
        name: what one number is called.
        meaning: what the colors say.
    """

    signed: bool
    label: str
    name: str
    meaning: str

    @property
    def colors(self) -> str:
        """Matplotlib's name of the colors: blue, white, red; or white to purple."""
        return "RdBu_r" if self.signed else "Purples"


LOOKS: dict[Unit, Look] = {
    "cosine": Look(
        True,
        "against  ←  parts of the cosine  →  for",
        "evidence",
        "red raises the cosine, blue lowers it",
    ),
    "score": Look(
        True,
        "against  ←  parts of the score  →  for",
        "evidence",
        "red raises the score, blue lowers it",
    ),
    "pointwise nats": Look(
        True,
        "pointwise nats",
        "nats",
        "red informs of the representation, blue misleads",
    ),
    "nats": Look(False, "nats", "nats", "the darker, the more nats are needed"),
    "bits": Look(False, "bits", "bits", "the darker, the more bits are needed"),
    None: Look(False, "relevance", "relevance", "the darker, the more relevant"),
}


@dataclass(frozen=True)
class Scale:
    """The colors of numbers.

    Attributes:
        unit: what the numbers are.
        extent: where the colors end: the largest magnitude of signed numbers, else the largest
            number.
    """

    unit: Unit
    extent: float

    @classmethod
    def of(cls, unit: Unit, *values: ArrayLike) -> Scale:
        """Returns the scale that all of the values fit; it ends at 1 if they are zeros.

        Raises:
            ValueError: if there is no such unit.
        """
        signed = LOOKS[check_choice("unit", unit, LOOKS)].signed
        known = [np.ravel(np.asarray(value, dtype=float)) for value in values]
        flat = np.concatenate([[0.0], *known])
        return cls(unit, float(np.max(np.abs(flat) if signed else flat)) or 1.0)

    @property
    def look(self) -> Look:
        """How numbers of this unit are drawn."""
        return LOOKS[self.unit]

    @property
    def start(self) -> float:
        """Where the colors begin."""
        return -self.extent if self.look.signed else 0.0

    @property
    def norm(self) -> Normalize:
        """Matplotlib's scale."""
        return Normalize(self.start, self.extent)

    def colors(self, values: ArrayLike) -> NDArray[np.float64]:
        """Returns the values' colors (..., 3); beyond the scale, those of its ends."""
        found = colormaps[self.look.colors](self.norm(np.asarray(values, dtype=float)))
        return np.asarray(found, dtype=float)[..., :3]

    def strength(self, values: ArrayLike) -> NDArray[np.float64]:
        """Returns how far from the color of zero the values' colors are, in [0, 1]."""
        far = np.asarray(values, dtype=float) / self.extent
        return np.clip(np.abs(far) if self.look.signed else far, 0, 1)

    def number(self, value: float) -> str:
        """Writes a value with the digits that tell values on this scale apart.

        Example:
            >>> Scale("cosine", 0.25).number(0.1), Scale("nats", 15.0).number(3.14159)
            ('+0.100', '3.1')
        """
        digits = max(math.ceil(math.log10(50 / self.extent)), 0)
        sign = "+" if self.look.signed else ""
        if digits > 5:
            return f"{value:{sign}.1e}"
        return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # never -0.0

    def draw_bar(self, figure: Figure, *, ax: Axes | None = None, cax: Axes | None = None) -> None:
        """Draws the color bar: upright beside the axes ``ax``, or lying in the axes ``cax``."""
        bar: Colorbar = figure.colorbar(
            ScalarMappable(self.norm, self.look.colors),
            ax=ax,
            cax=cax,
            **({"shrink": 0.85} if cax is None else {"orientation": "horizontal"}),
        )
        bar.set_label(self.look.label, fontsize="small")
        bar.ax.tick_params(labelsize="small")
        ticks = [self.start, (self.start + self.extent) / 2, self.extent]
        bar.set_ticks(ticks, labels=[self.number(tick) if tick else "0" for tick in ticks])
        bar.outline.set_visible(False)
