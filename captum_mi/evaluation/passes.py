"""Counting how many samples pass through the encoders, forward and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from captum_mi._intervention import nested
from captum_mi._intervention.hooks import edit_output
from captum_mi.models import blocks


@dataclass
class Passes:
    """Samples that passed through an encoder; a batch of n counts n.

    Attributes:
        forward: forward passes.
        backward: backward passes.
    """

    forward: int = 0
    backward: int = 0


@contextmanager
def count_passes(model: nn.Module) -> Iterator[Passes]:
    """Counts what passes through the last block of either encoder of an image-text model.

    A pass through the model behind a layer counts as one, as in Table 8 of the NIB paper.

    Example:
        >>> with count_passes(clip) as passes:
        ...     _ = ImageTextSimilarity(clip, processor, ["a heart"])(pixels)
        >>> passes
        Passes(forward=2, backward=0)
    """
    passes = Passes()

    def count_back(gradient: Tensor) -> None:
        passes.backward += len(gradient)

    def count(output: object) -> None:
        first = next(nested.tensors(output))
        passes.forward += len(first)
        if first.requires_grad:
            first.register_hook(count_back)  # type: ignore[no-untyped-call]

    with ExitStack() as stack:
        for tower in ("image", "text"):
            stack.enter_context(edit_output(blocks(model, tower)[-1], count))
        yield passes
