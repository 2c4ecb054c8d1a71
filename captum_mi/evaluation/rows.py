"""Which methods stand in the table of an evaluation, with which settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from captum_mi._checks import check_choice
from captum_mi.attr.methods import METHODS, Place
from captum_mi.models.towers import blocks

CONTROLS = ("ig", "random", "patches", "inverted")
"""To compare with: Captum's IntegratedGradients; uniform noise on each pixel; the same on each
patch, interpolated as a token layer's map; NarrowingIB with its sign turned."""

BETAS = (*(i / 100 for i in range(1, 10)), *(i / 10 for i in range(1, 10)))
SWEEPS: dict[str, tuple[str, tuple[float, ...]]] = {
    "n_steps": ("nib", (3, 5, 8, 10, 13, 15, 18, 20)),
    "layer": ("nib", ()),
    "beta": ("m2ib", BETAS),
}
"""The NIB paper's ablations, Tables 3 to 7: setting -> method and values (none: every layer)."""


def check_steps(named: str, n_steps: int, method: str) -> None:
    """Raises a ValueError if a method cannot do with so few steps.

    Args:
        named: what to call the argument.
        n_steps: the number of steps.
        method: a name in ``METHODS`` or in ``CONTROLS``.
    """
    known = METHODS.get("nib" if method == "inverted" else method)
    if known is not None:
        replace(known, name=method).check_steps(n_steps, named)


@dataclass(frozen=True)
class Row:
    """One row of the table: a method with its settings.

    Attributes:
        name: what the row is called.
        method: a name in ``METHODS`` or in ``CONTROLS``.
        states: hidden states to explain, in the image and in the text tower.
        options: arguments of the method's constructor or of its ``attribute``.
    """

    name: str
    method: str
    states: tuple[int, int]
    options: Mapping[str, Any] = field(default_factory=dict)


def table_rows(
    methods: Sequence[str],
    states: tuple[int, int],
    **options: Any,
) -> list[Row]:
    """Returns one row per method.

    Args:
        methods: names in ``METHODS`` or in ``CONTROLS``.
        states: hidden states to explain, in the image and in the text tower.
        **options: arguments of the methods' ``attribute``, for those that take them.

    Raises:
        ValueError: if a method is unknown, comes twice or cannot do with so few steps.
    """
    for method in methods:
        check_choice("methods", method, (*METHODS, *CONTROLS))
        if methods.count(method) > 1:
            raise ValueError(f"`methods` names {method!r} twice")
        if "n_steps" in options:
            check_steps("`n_steps`", options["n_steps"], method)
    return [Row(method, method, states, _taken(method, options)) for method in methods]


def sweep_rows(
    name: str,
    values: Sequence[float],
    methods: Sequence[str],
    model: nn.Module,
    states: tuple[int, int],
    **options: Any,
) -> tuple[list[Row], list[float]]:
    """Returns one row for each method and value of a setting, and the values.

    Args:
        name: a setting in ``SWEEPS``.
        values: its values; none are those of the NIB paper, for "layer" every hidden state that
            both towers have.
        methods: methods that take the setting; none is the paper's.
        model: the image-text model.
        states: hidden states to explain, in the image and in the text tower.
        **options: further arguments of the methods' ``attribute``.

    Raises:
        ValueError: if a method does not take the setting, or a value is out of range.
    """
    check_choice("sweep", name, SWEEPS)
    default_method, default_values = SWEEPS[name]
    methods = methods or [default_method]
    depth = min(len(blocks(model, "image")), len(blocks(model, "text")))
    if name == "layer":
        default_values = tuple(range(depth + 1))
    chosen = list(values or default_values)
    for value in chosen:
        if not math.isfinite(value) or chosen.count(value) > 1:
            raise ValueError(f"`sweep` {name} takes finite values, each once, got {value:g}")
    rows = []
    for method in methods:
        check_choice("methods", method, METHODS)
        known = METHODS[method]
        if not (known.place is Place.HIDDEN_STATES if name == "layer" else known.takes(name)):
            raise ValueError(f"`methods`: {method} has no {name} to sweep")
        for value in chosen:
            if name != "beta" and value != int(value):
                raise ValueError(f"`sweep` {name} takes whole numbers, got {value:g}")
            settings, at = _taken(method, options), states
            if name == "layer":
                if not 0 <= value <= depth:
                    raise ValueError(
                        f"`sweep` layer takes 0 to {depth}, the hidden states that both towers"
                        f" have, got {value:g}"
                    )
                at = int(value), int(value)
            elif not value > 0:
                raise ValueError(f"`sweep` {name} takes positive values, got {value:g}")
            else:
                settings[name] = value if name == "beta" else int(value)
            if "n_steps" in settings:
                named = "`sweep` n_steps" if name == "n_steps" else "`n_steps`"
                check_steps(named, settings["n_steps"], method)
            rows.append(Row(f"{method} {name}={value:g}", method, at, settings))
    return rows, chosen


def _taken(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that a method takes, or that the one behind a control takes."""
    known = METHODS.get("nib" if method == "inverted" else method)
    return {} if known is None else known.taken(**options)
