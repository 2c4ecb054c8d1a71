"""A text as running text of colored words, with their scores below them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.patches import Rectangle

from captum_mi.visualization.page import FONT, GRAY, SMALL, width_of
from captum_mi.visualization.scale import Scale, Unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from captum_mi.maps import TokenScores
    from captum_mi.visualization.page import Page

LABELS = 0.85
"""Inches: what stands left of the words, and says what the numbers below them are."""

BOX, NUMBER, SPACE = 0.25, 0.16, 0.06
"""Inches: the heights of a word and of a number, and what lies between words."""

EDGE = "#dddddd"

MEANING_OF_REST = "rest: the tokens that begin and end the text"
MEANING_OF_LOSSES = "lost without: what the cosine loses if that word is blanked"


@dataclass(frozen=True)
class Word:
    """A word, a piece of one, or the rest of a text.

    Attributes:
        text: how it is written.
        score: its score.
        loss: what the cosine loses without it; NaN if that is not known.
        joined: whether it goes on the word before.
        rest: whether it stands for all tokens that are no words.
    """

    text: str
    score: float
    loss: float = math.nan
    joined: bool = False
    rest: bool = False

    def numbers(self, scale: Scale) -> list[str]:
        """Returns what is written below it: its score, and its loss if that is known."""
        if math.isnan(self.loss):
            return [scale.number(self.score)]
        in_cosine = scale if scale.unit == "cosine" else Scale("cosine", 0.5)
        return [scale.number(self.score), in_cosine.number(self.loss)]

    def width(self, scale: Scale) -> float:
        """Returns the width in inches in which it and its numbers find room."""
        numbers = [width_of(number, SMALL) + 0.08 for number in self.numbers(scale)]
        return max(width_of(self.text, FONT) + 0.12, *numbers)


def words_of(
    tokens: Sequence[TokenScores], losses: Sequence[Sequence[float]] | None
) -> list[list[Word]]:
    """Returns the words of each text; last, as "rest", the sum of the tokens that are no words."""
    texts = []
    if losses is None:
        losses = [[math.nan] * len(scores.tokens) for scores in tokens]
    for scores, known in zip(tokens, losses, strict=True):
        joined = scores.joined or (False,) * len(scores.tokens)
        facts = zip(scores.tokens, scores.scores, known, joined, strict=True)
        words = [Word(*fact) for fact in facts]
        apart = [word.score for word, no in zip(words, scores.special, strict=True) if no]
        words = [word for word, no in zip(words, scores.special, strict=True) if not no]
        texts.append([*words, *([Word("rest", sum(apart), rest=True)] if apart else [])])
    return texts


def scale_of(unit: Unit, texts: Sequence[Sequence[Word]]) -> Scale:
    """Returns the scale that the words of all texts share."""
    return Scale.of(unit, [word.score for text in texts for word in text])


def how_to_read(scale: Scale, texts: Sequence[Sequence[Word]]) -> str:
    """Returns what the colors, the rest and the losses mean, as far as they are there."""
    words = [word for text in texts for word in text]
    lines = [scale.look.meaning]
    if _have_losses(words):
        lines.append(MEANING_OF_LOSSES)
    if any(word.rest for word in words):
        lines.append(MEANING_OF_REST)
    return "\n".join(lines)


def break_lines(words: Sequence[Word], width: float, scale: Scale) -> list[list[Word]]:
    """Breaks words into lines of at most a width; the pieces of a word stay together if they can.

    Args:
        words: the words.
        width: in inches.
        scale: their scale, which decides how their numbers are written.
    """
    wholes: list[list[Word]] = []
    for word in words:
        if word.joined and wholes:
            wholes[-1].append(word)
        else:
            wholes.append([word])
    lines: list[list[Word]] = [[]]
    left = 0.0
    for whole in wholes:
        fits = sum(word.width(scale) for word in whole) + SPACE <= width
        for part in [whole] if fits else [[piece] for piece in whole]:
            own = sum(word.width(scale) + (0 if word.joined else SPACE) for word in part)
            if lines[-1] and left + own > width:
                lines.append([])
                left = 0.0
            lines[-1] += part
            left += own
    return lines


def place_words(
    page: Page, words: Sequence[Word], left: float, top: float, width: float, scale: Scale
) -> float:
    """Places words as running text, below each its numbers; returns where they end."""
    names = [scale.look.name, *(["lost without"] if _have_losses(words) else [])]
    for row, name in enumerate(names):
        place = (left + LABELS - 0.06, top + BOX + (row + 0.6) * NUMBER)
        page.sheet.text(*place, name, ha="right", va="center", fontsize=SMALL, color=GRAY)
    for line in break_lines(words, width - LABELS, scale):
        at = left + LABELS
        for i, word in enumerate(line):
            at += SPACE if i and not word.joined else 0
            _place(page, word, at, top, scale)
            at += word.width(scale)
        top += BOX + len(names) * NUMBER + 0.1
    return top


def _have_losses(words: Sequence[Word]) -> bool:
    return not all(math.isnan(word.loss) for word in words)


def _place(page: Page, word: Word, left: float, top: float, scale: Scale) -> None:
    """Places one word: its colored box, and below it its numbers."""
    width = word.width(scale)
    middle = left + width / 2
    options: dict[str, Any] = {"ha": "center", "va": "center", "parse_math": False}
    color = scale.colors(word.score)
    page.sheet.add_patch(
        Rectangle((left, top), width, BOX, facecolor=color, edgecolor=EDGE, linewidth=0.6)
    )
    page.sheet.text(
        middle,
        top + BOX / 2,
        word.text,
        fontsize=FONT,
        style="italic" if word.rest else "normal",
        color="white" if scale.strength(word.score) > 0.6 else "black",
        **options,
    )
    for row, number in enumerate(word.numbers(scale)):
        y = top + BOX + (row + 0.6) * NUMBER
        page.sheet.text(
            middle, y, number, fontsize=SMALL, color=GRAY if row else "black", **options
        )
