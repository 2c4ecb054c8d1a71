"""Argument checks with one way of wording an error: the argument, what it must be, what it is."""

from __future__ import annotations

import math
from numbers import Integral
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

T = TypeVar("T")


def brief(value: object) -> str:
    """Describes a wrong value: its shape, a long text by its beginning, a number as it is."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else f"{value[:57].rstrip()}...")
    if isinstance(value, (int, float, tuple, list)):
        return repr(value)
    kind, shape = type(value).__name__, getattr(value, "shape", None)
    return kind if shape is None else f"a {kind.lower()} of shape {tuple(shape)}"


def enumerated(names: Sequence[str]) -> str:
    """Joins names: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def check_positive(name: str, value: int) -> int:
    """Returns ``value`` if it is an integer of at least one."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"`{name}` must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value}")
    return int(value)


def check_positive_number(name: str, value: float) -> float:
    """Returns ``value`` if it is positive and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"`{name}` must be positive, got {value}")
    return value


def check_choice(name: str, value: T, choices: Iterable[T]) -> T:
    """Returns ``value`` if it is one of ``choices``."""
    choices = tuple(choices)
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` must be one of {known}, got {value!r}")
    return value


def check_jobs(n_jobs: int | None) -> int | None:
    """Returns a number of threads as scikit-learn counts them: positive, -1 for all, None for 1."""
    if n_jobs is not None and n_jobs != -1:
        check_positive("n_jobs", n_jobs)
    return n_jobs
