"""Pages that explain: an image with its texts, or texts alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captum_mi.visualization.heat import blend, image_of, plane_of
from captum_mi.visualization.page import BAR, FONT, GAP, GRAY, MARGIN, Page, size_of
from captum_mi.visualization.scale import Scale, Unit
from captum_mi.visualization.words import LABELS, how_to_read, place_words, scale_of, words_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike
    from torch import Tensor

    from captum_mi.maps import TokenScores

WIDTH, HEIGHT = 3.2, 2.2
"""Inches: the most that an image takes."""

WORDS, TEXT = 6.0, 7.0
"""Inches: the width of the words beside a map, and of those without one."""


def explanation(
    image: ArrayLike,
    heats: Sequence[Tensor | ArrayLike],
    tokens: Sequence[TokenScores],
    titles: Sequence[str],
    *,
    unit: Unit = "cosine",
    losses: Sequence[Sequence[float]] | None = None,
    caption: str = "",
) -> Figure:
    """Draws an image and a row per text: where in it the evidence lies, and which words carry it.

    All maps share one scale, and all words another; the tokens that are no words come last, summed,
    as "rest".

    Args:
        image: (H, W, 3) uint8, or floats in [0, 1].
        heats: one map per text, of the image's H and W.
        tokens: one text's scores per text.
        titles: one title per text.
        unit: what the numbers are, see :func:`heat_map`.
        losses: for each text what the cosine loses without each of its tokens, NaN where that is
            not known.
        caption: a line below the picture.

    Returns:
        the figure.

    Raises:
        ValueError: if the sizes or the numbers of texts differ, or there is no such unit.

    Example:
        >>> from captum_mi.maps import TokenScores
        >>> scores = TokenScores(("a", "heart"), (-0.1, 0.9), special=(False, False))
        >>> figure = explanation(torch.zeros(8, 8, 3), [torch.eye(8)], [scores], ["a heart"])
    """
    picture, planes = image_of(image), [plane_of(heat) for heat in heats]
    texts = words_of(tokens, losses)
    in_image, in_words = Scale.of(unit, *planes), scale_of(unit, texts)
    width, height = size_of(picture, WIDTH, HEIGHT)
    column = max(width, BAR)
    at_map = MARGIN + column + GAP
    at_words = at_map + column + GAP
    page = Page(at_words + WORDS + MARGIN)

    top = page.bar(in_image, "where in the image", at_map, MARGIN)
    page.bar(in_words, "which words", at_words + LABELS, MARGIN)
    below = page.write("the image", MARGIN, MARGIN, column, FONT, weight="bold")
    below = page.show(picture, MARGIN, below, width, height)
    end = page.write(how_to_read(in_words, texts), MARGIN, below + 0.1, column) + GAP
    for plane, words, title in zip(planes, texts, titles, strict=True):
        at = page.write(title, at_map, top, page.width - MARGIN - at_map, FONT, weight="bold")
        below = page.show(blend(plane, picture, in_image), at_map, at, width, height)
        top = max(below, place_words(page, words, at_words, at, WORDS, in_words)) + GAP
    end = page.write(caption, MARGIN, max(top, end), page.width - 2 * MARGIN, color=GRAY)
    return page.finished(end)


def sentences(
    tokens: Sequence[TokenScores],
    titles: Sequence[str],
    *,
    unit: Unit = "cosine",
    losses: Sequence[Sequence[float]] | None = None,
    caption: str = "",
) -> Figure:
    """Draws texts as running text of colored words that share one scale.

    Args:
        tokens: one text's scores per row; the tokens that are no words come last, summed, as
            "rest".
        titles: one title per row, such as the other text and the cosine.
        unit: what the numbers are, see :func:`heat_map`.
        losses: for each row what the cosine loses without each of its tokens, NaN where that is
            not known.
        caption: a line below the picture.

    Returns:
        the figure.

    Raises:
        ValueError: if the numbers of rows differ, or there is no such unit.

    Example:
        >>> from captum_mi.maps import TokenScores
        >>> scores = TokenScores(("a", "heart"), (-0.1, 0.9), special=(False, False))
        >>> figure = sentences([scores], ["with: love, cosine 0.512"])
    """
    texts = words_of(tokens, losses)
    scale = scale_of(unit, texts)
    page = Page(TEXT + 2 * MARGIN)
    beside = page.bar(scale, "", TEXT - BAR, MARGIN)
    below = page.write(how_to_read(scale, texts), MARGIN, MARGIN, TEXT - BAR - GAP)
    top = max(beside, below)
    for words, title in zip(texts, titles, strict=True):
        top = page.write(title, MARGIN, top, TEXT, FONT, weight="bold")
        top = place_words(page, words, MARGIN, top, TEXT, scale) + GAP / 2
    return page.finished(page.write(caption, MARGIN, top, TEXT, color=GRAY) + MARGIN)


def colored_tokens(scores: TokenScores, *, unit: Unit = "cosine", title: str = "") -> Figure:
    """Draws one text as running text of colored words.

    Args:
        scores: the tokens and their scores.
        unit: what the numbers are, see :func:`heat_map`.
        title: title of the picture.

    Returns:
        the figure.

    Raises:
        ValueError: if there is no such unit.

    Example:
        >>> from captum_mi.maps import TokenScores
        >>> scores = TokenScores(("a", "heart"), (-0.1, 0.9), special=(False, False))
        >>> figure = colored_tokens(scores, title="a heart")
    """
    return sentences([scores], [title], unit=unit)
