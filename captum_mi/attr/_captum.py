"""What this package needs of Captum beyond its public names, and the only file that takes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from captum._utils.common import _expand_target, _format_output, _format_outputs, _select_targets
from captum._utils.typing import BaselineType, TargetType
from captum.attr import Attribution
from captum.attr._utils.approximation_methods import SUPPORTED_METHODS, approximation_parameters

QUADRATURES: tuple[str, ...] = tuple(SUPPORTED_METHODS)
expand_target = _expand_target
format_output = _format_output
format_outputs = _format_outputs
select_targets = _select_targets

__all__ = [
    "QUADRATURES",
    "BaselineType",
    "TargetType",
    "expand_target",
    "first_point",
    "format_output",
    "format_outputs",
    "select_targets",
    "unlogged_attribute",
]


def first_point(quadrature: str, n_steps: int) -> float:
    """Returns where on the path from 0 to 1 a quadrature has its first point."""
    _, points = approximation_parameters(quadrature)
    found: float = points(n_steps)[0]
    return found


def unlogged_attribute(method: Attribution) -> Callable[..., Any]:
    """Returns the method's ``attribute`` without Captum's log of its use, for calls inside ours."""
    return partial(type(method).attribute.__wrapped__, method)
