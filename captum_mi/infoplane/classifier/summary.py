"""A plane in words and in numbers: where each layer began and ended, and its phases."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from captum_mi.infoplane.phases import phases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from captum_mi.infoplane.phases import Phase
    from captum_mi.infoplane.rows import Row

LEVEL = 0.95


def summarize(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Returns for each layer its first and last record and its phases, ready for JSON.

    Example:
        >>> from captum_mi.infoplane import Row
        >>> path = [0.0, 1.0, 2.0, 1.0]
        >>> rows = [Row(i, 0.5, "a", x, 0.1, 0.0, 0.0, 1.0, 9) for i, x in enumerate(path)]
        >>> summary = summarize(rows)["a"]
        >>> summary["first"]["of_input"], summary["last"]["epoch"], len(summary["phases"])
        (0.0, 3, 2)
    """
    found = phases(rows, LEVEL)
    return {
        layer: {
            "first": _record(first),
            "last": _record(last),
            "phases": [phase._asdict() for phase in found if phase.layer == layer],
        }
        for layer, (first, last) in _ends(rows).items()
    }


def describe(rows: Sequence[Row]) -> list[str]:
    r"""Says the same in lines, one for each layer.

    Example:
        >>> from captum_mi.infoplane import Row
        >>> path = [0.0, 1.0, 2.0, 1.0]
        >>> rows = [Row(i, 0.5, "a", x, 0.1, 1.0, 0.05, 0.9, 9) for i, x in enumerate(path)]
        >>> print(*describe(rows), sep="\n")
        a: I(X;L) 0.00 to 1.00 ± 0.20, I(L;Y) 1.00 to 1.00 ± 0.10 nats; code keeps 90 % of variance
           fitting in epochs 0 to 2 (+2.00 nats), compression in 2 to 3 (-1.00)
    """
    found = phases(rows, LEVEL)
    lines = []
    for layer, (first, last) in _ends(rows).items():
        quantile = NormalDist().inv_cdf((1 + LEVEL) / 2)
        lines.append(
            f"{layer}: I(X;L) {first.of_input:.2f} to {last.of_input:.2f} ±"
            f" {quantile * last.of_input_error:.2f}, I(L;Y) {first.of_target:.2f} to"
            f" {last.of_target:.2f} ± {quantile * last.of_target_error:.2f} nats"
            + _of_the_code(last)
        )
        lines.append(" " * (len(layer) + 2) + _in_words([p for p in found if p.layer == layer]))
    return lines


def _of_the_code(row: Row) -> str:
    """Says what is known of the code of a layer."""
    kept = "" if math.isnan(row.kept) else f"; code keeps {100 * row.kept:.0f} % of variance"
    return kept if math.isnan(row.hidden) else f"{kept}, hides at most {row.hidden:.2f} nats"


def _in_words(found: Sequence[Phase]) -> str:
    if not found:
        return f"no phase: I(X;L) moves less than its {100 * LEVEL:.0f} % interval"
    words = [
        f"{phase.kind} in {phase.first} to {phase.last} ({phase.change:+.2f})" for phase in found
    ]
    first = words[0].replace(" in ", " in epochs ", 1).removesuffix(")") + " nats)"
    return ", ".join([first, *words[1:]])


def _ends(rows: Sequence[Row]) -> dict[str, tuple[Row, Row]]:
    ordered = sorted(rows, key=lambda row: row.epoch)
    last = {row.layer: row for row in ordered}
    first = {row.layer: row for row in reversed(ordered)}
    return {layer: (first[layer], last[layer]) for layer in dict.fromkeys(r.layer for r in ordered)}


def _record(row: Row) -> dict[str, Any]:
    """Returns the numbers of a row; None for NaN, which JSON has not."""
    numbers = {name: value for name, value in row._asdict().items() if name != "layer"}
    return {name: None if math.isnan(value) else value for name, value in numbers.items()}
