"""Which methods stand in the table of an evaluation, with which settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from captum_mi._checks import check_choice
from captum_mi.attr.methods import METHODS, Place, ready_method, ready_methods
from captum_mi.evaluation.control_rows import CONTROL_ROWS
from captum_mi.evaluation.controls import CONTROLS
from captum_mi.evaluation.method_row import Fitted, MethodRow
from captum_mi.models.towers import blocks

if TYPE_CHECKING:
    from torch import nn

    from captum_mi.evaluation.samples import Sample, Scored

BETAS = (*(i / 100 for i in range(1, 10)), *(i / 10 for i in range(1, 10)))
SWEEPS: dict[str, tuple[str, tuple[float, ...]]] = {
    "n_steps": ("nib", (3, 5, 8, 10, 13, 15, 18, 20)),
    "hidden_state": ("nib", ()),
    "beta": ("m2ib", BETAS),
}
"""The NIB paper's ablations, Tables 3 to 7: setting -> method and values; none means all."""


class Row(Protocol):
    """A row of the table: what explains each pair."""

    @property
    def name(self) -> str:
        """What the row is called."""
        ...

    def image_map(self, sample: Sample) -> Scored:
        """Returns the map of the image."""
        ...

    def token_scores(self, sample: Sample) -> Scored:
        """Returns the scores of the tokens."""
        ...


def check_methods(methods: Sequence[str]) -> None:
    """Raises ValueError if a name is no method without ``fit`` or control, or comes twice."""
    for method in methods:
        if method in METHODS:
            ready_method(method, "methods")
        else:
            check_choice("methods", method, (*ready_methods(), *CONTROLS))
        if methods.count(method) > 1:
            raise ValueError(f"`methods` names {method!r} twice")


def table_rows(
    methods: Sequence[str],
    hidden_states: tuple[int | None, int | None] = (None, None),
    fitted: Fitted | None = None,
    **options: Any,
) -> list[Row]:
    """Returns one row for each method.

    Args:
        methods: names in ``METHODS`` or in ``CONTROLS``.
        hidden_states: hidden states to explain, in the image and in the text tower; None is each
            method's default.
        fitted: gives the statistics of hidden states, for methods that start at them.
        **options: arguments of the methods' ``attribute``, for those that take them.

    Raises:
        TypeError: if no method takes one of the options.
        ValueError: if a method is unknown, comes twice or cannot do with so few steps.

    Example:
        >>> [row.name for row in table_rows(["nib", "random"], n_steps=5)]
        ['nib', 'random']
    """
    check_methods(methods)
    _check_options(options)
    return [
        CONTROL_ROWS[name](partial(MethodRow.among, name, "nib", hidden_states, fitted, options))
        if name in CONTROLS
        else MethodRow.among(name, name, hidden_states, fitted, options)
        for name in methods
    ]


def sweep_rows(
    name: str,
    values: Sequence[float],
    methods: Sequence[str],
    model: nn.Module,
    hidden_states: tuple[int | None, int | None] = (None, None),
    fitted: Fitted | None = None,
    **options: Any,
) -> tuple[list[Row], list[float]]:
    """Returns one row for each method and value of a setting, and the values.

    Args:
        name: a setting in ``SWEEPS``.
        values: its values; none are those of the NIB paper, for "hidden_state" every one
            that a tower has; the other tower stays at its last.
        methods: methods that take the setting; none is the paper's.
        model: the image-text model.
        hidden_states: hidden states to explain, in the image and in the text tower.
        fitted: gives the statistics of hidden states, for methods that start at them.
        **options: further arguments of the methods' ``attribute``, for those that take them.

    Raises:
        TypeError: if no method takes one of the options.
        ValueError: if a method does not take the setting, or a value is out of range.
    """
    check_choice("sweep", name, SWEEPS)
    check_methods(methods)
    _check_options(options)
    default_method, default_values = SWEEPS[name]
    depths = len(blocks(model, "image")), len(blocks(model, "text"))
    if name == "hidden_state":
        default_values = tuple(range(max(depths) + 1))
    chosen = list(values or default_values)
    for value in chosen:
        if not math.isfinite(value) or chosen.count(value) > 1:
            raise ValueError(f"`sweep` {name} takes finite values, each once, got {value:g}")
        _check_value(name, value, max(depths))
    rows: list[Row] = []
    for method in methods or [default_method]:
        known = METHODS.get(method)
        takes = known is not None and (
            known.place is Place.HIDDEN_STATES if name == "hidden_state" else known.takes(name)
        )
        if known is None or not takes:
            raise ValueError(f"`methods`: {method} has no {name} to sweep")
        for value in chosen:
            at: tuple[int | None, int | None] = hidden_states
            settings = options
            if name == "hidden_state":
                at = min(int(value), depths[0]), min(int(value), depths[1])
            else:
                settings = options | {name: value if name == "beta" else int(value)}
            if "n_steps" in settings:
                argument = "`sweep` n_steps" if name == "n_steps" else "`n_steps`"
                known.check_steps(settings["n_steps"], argument)
            rows.append(MethodRow.among(f"{method} {name}={value:g}", method, at, fitted, settings))
    return rows, chosen


def _check_value(name: str, value: float, depth: int) -> None:
    """Raises ValueError if a setting cannot have the value."""
    if name != "beta" and value != int(value):
        raise ValueError(f"`sweep` {name} takes whole numbers, got {value:g}")
    if name == "hidden_state":
        if not 0 <= value <= depth:
            raise ValueError(
                f"`sweep` hidden_state takes 0 to {depth}, the blocks of the deeper tower, got"
                f" {value:g}"
            )
    elif not value > 0:
        raise ValueError(f"`sweep` {name} takes positive values, got {value:g}")


def _check_options(options: Mapping[str, object]) -> None:
    """Raises TypeError if there is an option that no method takes."""
    for name in options:
        if not any(method.takes(name) for method in METHODS.values()):
            raise TypeError(f"no method of {', '.join(METHODS)} takes an argument {name!r}")
