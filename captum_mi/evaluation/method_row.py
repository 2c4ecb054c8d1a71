"""A row of the table that explains with a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from captum_mi.attr.methods import METHODS
from captum_mi.explanation import attribute_image, attribute_text
from captum_mi.maps import image_map

if TYPE_CHECKING:
    from torch import Tensor

    from captum_mi.evaluation.samples import Sample


@dataclass(frozen=True)
class MethodRow:
    """A method with its settings.

    Attributes:
        name: what the row is called.
        method: a name in ``METHODS``.
        hidden_states: hidden states to explain, in the image and in the text tower.
        options: arguments of the method's constructor or of its ``attribute``.
    """

    name: str
    method: str
    hidden_states: tuple[int, int]
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def among(
        cls, name: str, method: str, hidden_states: tuple[int, int], options: Mapping[str, Any]
    ) -> MethodRow:
        """Returns the row with those of a whole table's options that the method takes.

        Raises:
            ValueError: if the method cannot do with so few steps.
        """
        taken = METHODS[method].taken(**options)
        if "n_steps" in taken:
            METHODS[method].check_steps(taken["n_steps"], caller=name)
        return cls(name, method, hidden_states, taken)

    def image_map(self, sample: Sample) -> Tensor:
        """Returns the signed map of the image, (1, 1, H, W)."""
        attribution = attribute_image(
            self.method,
            sample.to_text,
            sample.pixels,
            0,
            hidden_state=self.hidden_states[0],
            **self.options,
        )
        return image_map(attribution, sample.size, model=sample.model)

    def token_scores(self, sample: Sample) -> Tensor:
        """Returns the signed scores of the tokens, (1, 1, T)."""
        attribution = attribute_text(
            self.method,
            sample.to_image,
            sample.processor,
            sample.encoded,
            0,
            hidden_state=self.hidden_states[1],
            **self.options,
        )
        return attribution.sum(-1)[:, None]
