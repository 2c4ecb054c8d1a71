"""Colored places: some reach the representation, one decides the label."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from captum_mi._checks import check_choice
from captum_mi.datasets.known_local import (
    SHARPNESS,
    SIDE,
    KnownPlaces,
    check_rows,
    convolution,
    enlarged,
    linear,
)
from captum_mi.datasets.known_mi import Floats, rotation

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLORS = 8
HALF = COLORS // 2
CONTRAST, GRAIN = 0.3, 0.1  # a color's channels stand at 0.5 -+ 0.3, its pixels vary by +- 0.1
CORNERS = np.where(np.arange(COLORS)[:, None] >> np.arange(3) & 1, 1.0, -1.0)
"""(8, 3), the colors: a channel is bright where its bit of the color's number is set."""

KINDS = {
    "label": math.log(COLORS),
    "redundant": math.log(COLORS),
    "copy": math.log(COLORS),
    "partial": math.log(HALF),
    "unread": 0.0,
    "noise": 0.0,
}
"""What a place of each kind shares with Z, nats."""


@dataclass(frozen=True)
class ColoredPlaces(KnownPlaces):
    r"""Colored places, some of which reach the representation, one of which decides the label.

    A place is 8 x 8 pixels. Its color is drawn uniformly out of 8, independently of the others',
    and grain on its pixels never hides which one it is. What the place shares with Z, its pixels or
    its value in ``local``, in nats:

    ============= ======= ======== ========= ========================================
    kind          total   decision redundant
    ============= ======= ======== ========= ========================================
    ``label``     log 8   log 8    0         its color is in Z and is the label
    ``redundant`` log 8   0        log 8     its color is in Z
    ``copy``      log 8   0        log 8     all of this kind show one color, in Z
    ``partial``   log 4   0        log 4     its color's number modulo 4 is in Z
    ``unread``    0       0        0         its color is not in Z
    ``noise``     0       0        0         pixels of noise, without a color
    ============= ======= ======== ========= ========================================

    Copies share log 8 each and no more together; otherwise places are independent and add up.

    In the encoder, ``local``, (B, 3, h, w), is a place's mean pixel: -1 or 1 in each channel but
    for the grain, which noise of the layer's mean and deviation replaces by a color at random.
    Behind it the nearest color is read exactly, so that Z, (B, D), is a function of the colors
    alone; backward, gradients are those of a softmax over the colors. Z holds one-hot codes (of
    copies, their mean) under a fixed rotation, so that no coordinate is a color by itself.

    Args:
        length: number of images.
        seed: seed of the whole set.
        layout: h rows of w kinds; exactly one is ``label``, and copies are at least two.

    Raises:
        ValueError: if ``length`` is below 1 or the layout is not as said.

    Example:
        >>> places = ColoredPlaces(100, layout=(("label", "noise"), ("partial", "redundant")))
        >>> image, label = places[7]
        >>> image.shape, label
        (torch.Size([3, 16, 16]), 6)
        >>> places.encoder()(image[None]).argmax().item()
        6
        >>> places.total.round(3)
        array([[2.079, 0.   ],
               [1.386, 2.079]])
        >>> places.decision.round(3)
        array([[2.079, 0.   ],
               [0.   , 0.   ]])
    """

    _: KW_ONLY
    layout: tuple[tuple[str, ...], ...] = (
        ("noise", "copy", "unread", "partial"),
        ("redundant", "noise", "noise", "unread"),
        ("unread", "noise", "label", "noise"),
        ("noise", "partial", "copy", "redundant"),
    )

    def __post_init__(self) -> None:
        """Checks the arguments."""
        super().__post_init__()
        check_rows("layout", self.layout)
        for kind in self.kinds.flat:
            check_choice("layout", str(kind), KINDS)
        labels, copies = ((self.kinds == kind).sum() for kind in ("label", "copy"))
        if labels != 1:
            raise ValueError(f"`layout` must have exactly one 'label', got {labels}")
        if copies == 1:
            raise ValueError("`layout` must have two 'copy' or more, got 1: call it 'redundant'")

    @property
    def kinds(self) -> NDArray[np.str_]:
        """(h, w), the layout as an array."""
        return np.array(self.layout)

    @property
    def total(self) -> Floats:
        """(h, w), I(Z; X_k) between the global representation and each place, nats."""
        return np.array([[KINDS[kind] for kind in row] for row in self.layout])

    @property
    def decision(self) -> Floats:
        """(h, w), the part of ``total`` that decides the label, nats."""
        return np.where(self.kinds == "label", self.total, 0.0)

    @property
    def redundant(self) -> Floats:
        """(h, w), the rest of ``total``, nats."""
        return self.total - self.decision

    def draw(self, rng: np.random.Generator) -> tuple[Floats, int]:
        """Draws one image, (3, 8 h, 8 w), in [0, 1], and its label, 0 to 7."""
        kinds = self.kinds
        colors = rng.integers(COLORS, size=kinds.shape)
        colors[kinds == "copy"] = rng.integers(COLORS)
        noise = kinds == "noise"
        shown = np.where(noise, 0.0, CONTRAST * CORNERS[colors].transpose(2, 0, 1))
        shown, grain = enlarged(shown), enlarged(np.where(noise, 0.5, GRAIN))
        image: Floats = 0.5 + shown + grain * rng.uniform(-1, 1, size=shown.shape)
        return image, int(colors[kinds == "label"].item())

    def encoder(self) -> nn.Sequential:
        """Returns the encoder: ``local``, ``compare``, ``read``, ``flatten``, ``pool``, ``head``.

        Returns:
            images, (B, 3, 8 h, 8 w), to logits, (B, 8), in evaluation mode; its weights depend on
            the layout alone.
        """
        mean = np.eye(3)[:, :, None, None] / (CONTRAST * SIDE**2)  # to -1 or 1
        codes = self._codes()
        turn = rotation(len(codes), np.random.default_rng(0))
        layers = OrderedDict[str, nn.Module](
            local=convolution(mean.repeat(SIDE, 2).repeat(SIDE, 3), bias=-0.5 / CONTRAST),
            compare=convolution(CORNERS[:, :, None, None]),
            read=_Nearest(),
            flatten=nn.Flatten(),
            pool=linear(turn @ codes),
            head=linear(SHARPNESS * turn[:, :COLORS].T),
        )
        return nn.Sequential(layers).eval()

    def _codes(self) -> Floats:
        """Returns what Z holds of the one-hot colors, (D, 8 h w), the label first."""
        whole, half = np.eye(COLORS), np.tile(np.eye(HALF), 2)
        codes = {"label": whole, "redundant": whole, "copy": whole, "partial": half}
        blocks = []
        for kind, code in codes.items():
            chosen = (self.kinds == kind).ravel()
            places = np.eye(chosen.size)[chosen]  # a row of h w weights each
            if kind == "copy" and len(places):
                places = places.mean(axis=0, keepdims=True)
            blocks += [np.kron(code, place[None]) for place in places]
        return np.vstack(blocks)


class _Nearest(nn.Module):
    """One-hot codes of the best color, exactly; backward, those of the softmax of the scores."""

    def forward(self, scores: Tensor) -> Tensor:
        """Turns scores, (B, 8, h, w), to codes of the same shape."""
        soft = scores.softmax(dim=1)
        hard = nn.functional.one_hot(scores.argmax(dim=1), COLORS).movedim(-1, 1).to(soft)
        return hard + (soft - soft.detach())
