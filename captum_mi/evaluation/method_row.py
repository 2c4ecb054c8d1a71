"""A row of the table that explains with a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from captum_mi.attr.methods import METHODS
from captum_mi.evaluation.samples import Sample, Scored
from captum_mi.explanation import TowerStatistics, attribute_image, attribute_text
from captum_mi.maps import image_map

Fitted: TypeAlias = Callable[[tuple[int | None, int | None]], TowerStatistics]


@dataclass(frozen=True)
class MethodRow:
    """A method with its settings.

    Attributes:
        name: what the row is called.
        method: a name in ``METHODS``.
        hidden_states: hidden states to explain, in the image and in the text tower; None is the
            method's default.
        start: where its path starts, or its noise lies; None is the method's own.
        options: arguments of the method's constructor or of its ``attribute``.
    """

    name: str
    method: str
    hidden_states: tuple[int | None, int | None] = (None, None)
    start: TowerStatistics | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def among(
        cls,
        name: str,
        method: str,
        hidden_states: tuple[int | None, int | None],
        fitted: Fitted | None,
        options: Mapping[str, Any],
    ) -> MethodRow:
        """Returns the row with those of a whole table's settings that the method takes.

        Args:
            name: what the row is called.
            method: a name in ``METHODS``.
            hidden_states: hidden states to explain.
            fitted: gives the statistics of hidden states, for a method that starts at them.
            options: arguments of the methods of the table.

        Raises:
            ValueError: if the method cannot do with so few steps, or starts at statistics and none
                are given.
        """
        known = METHODS[method]
        taken = known.taken(**options)
        if "n_steps" in taken:
            known.check_steps(taken["n_steps"], caller=name)
        if known.start != "fitted":
            return cls(name, method, hidden_states, None, taken)
        if fitted is None:
            raise ValueError(f"`fitted` must give the statistics that {name} starts at, got None")
        return cls(name, method, hidden_states, fitted(hidden_states), taken)

    def image_map(self, sample: Sample) -> Scored:
        """Returns the map of the image."""
        found = attribute_image(
            self.method,
            sample.to_text,
            sample.processor,
            sample.pixels,
            0,
            hidden_state=self.hidden_states[0],
            start=self.start,
            **self.options,
        )
        return Scored(image_map(found.values, sample.size, model=sample.model), found.gap_of(0))

    def token_scores(self, sample: Sample) -> Scored:
        """Returns the scores of the tokens."""
        found = attribute_text(
            self.method,
            sample.to_image,
            sample.processor,
            sample.encoded,
            0,
            hidden_state=self.hidden_states[1],
            start=self.start,
            **self.options,
        )
        return Scored(found.values.sum(-1)[:, None], found.gap_of(0))
