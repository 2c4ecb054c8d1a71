"""What ``captum-mi explain`` found, with its table, and the scene it explains without an image."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure

    from captum_mi.datasets import Scene
    from captum_mi.explanation import WordEvidence

SHIPPED = "shipped scene"
_NUMBER = 8
_EXTREMES = {
    "cosine": ("most for it", "most against it"),
    "nats": ("most nats", "fewest nats"),
    None: ("most relevant", "least relevant"),
}
_NONE = [(0.0, "-")]


@dataclass(frozen=True)
class Findings:
    """What was explained, for the picture, the numbers and the table.

    Attributes:
        settings: what was explained, and how.
        draw: makes the picture, given a ``caption``.
        explanations: the numbers.
        table: what is printed.
    """

    settings: dict[str, object]
    draw: Callable[..., Figure]
    explanations: list[dict[str, object]]
    table: str


def shipped_scene(first_colors: Sequence[str] | None = None) -> Scene:
    """Returns the scene of two objects that stands where no image is given.

    Args:
        first_colors: of the first object, and of no other; None: any.
    """
    from captum_mi.datasets import Scenes

    return Scenes(_NUMBER + 1, objects=2, first_colors=first_colors)[_NUMBER]


def table_of_words(lines: Sequence[tuple[str, float, WordEvidence]], unit: str | None) -> str:
    """Returns a line for each text: its cosine, and which words say most, least and lose most.

    Args:
        lines: the texts, their cosines and what their words say.
        unit: what the words' scores are.
    """
    width = max(len("text"), *(len(text) for text, *_ in lines))
    first, last = _EXTREMES[unit]
    rows = [f"{'text':{width}}  cosine  {first:14}  {last:16}  most lost without"]
    for text, cosine, words in lines:
        tokens = words.tokens
        columns = zip(tokens.scores, tokens.tokens, tokens.special, strict=True)
        scores = [(score, token) for score, token, special in columns if not special]
        (high, best), (low, worst) = max(scores or _NONE), min(scores or _NONE)
        strongest, weakest = f"{best} {high:.3f}", f"{worst} {low:.3f}"
        if unit == "cosine":
            strongest = f"{best} {high:+.3f}" if high > 0 else "-"
            weakest = f"{worst} {low:+.3f}" if low < 0 else "-"
        known = zip(words.losses, tokens.tokens, strict=True)
        loss, lost = max([(loss, token) for loss, token in known if not isnan(loss)] or _NONE)
        rows.append(
            f"{text:{width}}  {cosine:6.3f}  {strongest:14}  {weakest:16}  {lost} {loss:+.3f}"
        )
    return "\n".join(rows)
