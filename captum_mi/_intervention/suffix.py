"""A layer splits a model into a prefix, run once, and a suffix, run as often as asked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_mi._intervention.gradient import GradientError
from captum_mi._intervention.replay import Replay
from captum_mi._intervention.trace import LayerTrace

logger = logging.getLogger(__name__)


class LayerSuffix:
    """The part of a model behind a layer, as a function of that layer's output (or input).

    Made by :func:`split_at`, which runs the model once. A call replays what every module that ended
    before the layer did, and puts the given latent in the layer's place; see :class:`Replay`.

    Attributes:
        latent: the layers' floating-point tensors for the traced inputs, each (B, ...), detached.
            A single row's tensor without an axis for the batch, such as the packed patches (L, D)
            of an image, gets one: (1, L, D).
        output: what the model returned for them (or for a ``move`` of the latent), (B,) or (B, C).
        name: the layers' dotted names, for messages.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        args: tuple[Any, ...],
        output: Tensor,
        traces: Sequence[LayerTrace],
    ) -> None:
        """Stores what :func:`split_at` found."""
        self._replay = Replay(forward_func, args, traces, batch=len(output))
        self.latent = self._replay.latent
        self.name = self._replay.name
        self.output = output
        self._batch = len(output)
        self._random = traces[0].random
        moved = traces[0].moved
        self._traced = self.latent  # what ``output`` belongs to
        if moved is not None:
            self._traced = (moved[None] if self._replay.packed[0] else moved,)
        self._repeats = False  # whether the traced output was seen to come back
        self._together = not any(self._replay.packed)  # whether copies may run together, so far
        self._verified = 1  # how many copies have been seen to give together what each gives alone

    def __call__(self, *latent: Tensor) -> Tensor:
        """Returns the model's output for a latent in the layer's place.

        The first call checks that the traced latent brings the traced output back, and each
        call of more copies than before that the first and the last give together what they give
        alone. Where the traced latent is none of the copies, or copies hardly differ, three that
        do differ are compared as well.

        Args:
            *latent: one tensor for each of ``self.latent``, its shape but with (copies * B) rows:
                the batch repeated ``copies`` times, copy by copy, as Captum expands it. Any
                floating dtype.

        Returns:
            (copies * B,) or (copies * B, C). Copies are evaluated together where that gives what
            each gives alone, otherwise one by one.

        Raises:
            ValueError: if the latent has another shape, or its gradient cannot be taken, for the
                layer runs without gradients or inside activation checkpointing.
            RuntimeError: if the model does not repeat its traced run.
        """
        copies = self._copies(latent)
        if self._together and copies > self._verified:
            output = self._run_and_verify(latent, copies)
            if output is not None:
                return output
            self._together = False
            logger.info("rows depend on each other behind %s: one copy at a time", self.name)
        if not self._repeats:
            if copies == 1 and self._index_of_traced(latent, 1) == 0:
                return self._run_traced(latent)
            with torch.no_grad():
                self._run_traced(self._traced)
        if copies == 1 or self._together:
            return self._replay.run(latent, copies)
        chunks = zip(*(tensor.chunk(copies) for tensor in latent), strict=True)
        return torch.cat([self._replay.run(chunk, 1) for chunk in chunks])

    def trust(self) -> None:
        """Leaves out the check of the first call, for a model that has passed it in other runs."""
        self._repeats = True

    def latent_in(self, traces: Sequence[LayerTrace]) -> tuple[Tensor, ...]:
        """Returns what another run left in the place of the latent, in the latent's shape."""
        return self._replay.latent_in(traces)

    def split(self, tensors: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """Groups tensors, one for each of ``latent``, by the layers that these belong to."""
        return self._replay.split(tensors)

    def _copies(self, latent: tuple[Tensor, ...]) -> int:
        shapes = [tuple(tensor.shape) for tensor in latent]
        copies = latent[0].shape[0] // self._batch if latent and latent[0].ndim else 0
        if not copies or shapes != [(copies * self._batch, *own.shape[1:]) for own in self.latent]:
            raise ValueError(
                "`latent` must have the shapes of the layer's tensors, its first axis repeated:"
                f" layer {self.name} has {[tuple(own.shape) for own in self.latent]}, got {shapes}"
            )
        return copies

    def _index_of_traced(self, latent: tuple[Tensor, ...], copies: int) -> int | None:
        """Returns which copy is the traced latent; None if none is."""
        for index in range(copies):
            rows = slice(index * self._batch, (index + 1) * self._batch)
            if all(
                torch.equal(tensor[rows].to(own.dtype), own)
                for tensor, own in zip(latent, self._traced, strict=True)
            ):
                return index
        return None

    def _run_and_verify(self, latent: tuple[Tensor, ...], copies: int) -> Tensor | None:
        """Runs copies together and compares the ends; returns None where they give else alone."""
        index = self._index_of_traced(latent, copies)
        first_time = self._verified == 1
        if first_time and index is None and not self._repeats_among_others():
            return None
        output = self._run_and_compare(latent, index, {0, copies - 1})
        if output is None:
            return None
        if first_time and index is not None:
            self._repeats = True
            if not self._differ(output.detach(), copies) and not self._repeats_among_others():
                return None
        self._verified = copies
        return output

    @torch.no_grad()
    def _repeats_among_others(self) -> bool:
        """Returns whether the traced latent gives among other latents what was traced."""
        self._repeats = self._run_and_compare(self._among_others(), 1, {0}) is not None
        return self._repeats

    def _differ(self, output: Tensor, copies: int) -> bool:
        """Returns whether copies differ by enough for a check among them to tell something."""
        parts = torch.stack(output.nan_to_num(0.0, 0.0, 0.0).chunk(copies))
        return bool(((parts - parts[0]).abs() > 100 * self._tolerance(output)).any())

    def _among_others(self) -> tuple[Tensor, ...]:
        """Puts the traced latent between one far from it, larger, and one close to it.

        Rows may depend on each other by their largest values, by their order, or only on those
        alike; and a normalization may make multiples of a latent the same.
        """
        copies = []
        for own in self._traced:
            generator = torch.Generator(own.device).manual_seed(0)
            share = torch.rand((2, *own.shape[1:]), generator=generator, device=own.device)
            far, close = (1 + torch.stack([share[0], share[1] / 50])).to(own.dtype)
            values = own.where(own != 0, 1.0)
            copies.append(torch.cat([values * far, own, values * close]))
        return tuple(copies)

    def _run_traced(self, latent: tuple[Tensor, ...]) -> Tensor:
        """Runs the traced latent, which must give the traced output."""
        output = self._replay.run(latent, 1)
        if not self._close(output.detach(), self.output):
            raise RuntimeError(self._why_it_does_not_repeat())
        self._repeats = True
        return output

    def _run_and_compare(
        self, latent: tuple[Tensor, ...], index: int | None, alone: set[int]
    ) -> Tensor | None:
        """Runs copies together, and compares some of them with what they give alone.

        Args:
            latent: the copies.
            index: which of them is the traced latent, whose output is known; None: none is.
            alone: which of them run once more, alone.

        Returns:
            the output; None if the model cannot run the copies together, or one of those compared
            gives something else alone.
        """
        copies = len(latent[0]) // self._batch
        try:
            output = self._replay.run(latent, copies)
        except (torch.OutOfMemoryError, GradientError):
            raise
        except Exception:  # whatever a model makes of tensors that do not fit each other
            return None
        if len(output) != copies * self._batch:
            return None
        parts = output.detach().chunk(copies)
        if index is not None and not self._close(parts[index], self.output):
            return None
        for other in alone - {index}:
            with torch.no_grad():
                part = tuple(tensor.chunk(copies)[other] for tensor in latent)
                expected = self._replay.run(part, 1)
            if not self._close(parts[other], expected):
                return None
        return output

    def _close(self, output: Tensor, expected: Tensor) -> bool:
        """Returns whether two outputs are the same up to rounding, column by column."""
        if output.shape != expected.shape:
            return False
        same = (output - expected).abs() <= self._tolerance(expected)
        same |= (output == expected) | (output.isnan() & expected.isnan())
        return bool(same.all())

    def _tolerance(self, output: Tensor) -> Tensor:
        """Returns each column's rounding, which may be that of float32 inside double precision.

        A column of small numbers has at least the rounding of the middle one.
        """
        share = max(torch.finfo(output.dtype).eps ** 0.5, 1e-5)
        largest = output.nan_to_num(0.0, 0.0, 0.0).abs().amax(0, keepdim=True)
        tolerance: Tensor = share * largest.clamp(min=largest.median().item())
        return tolerance

    def _why_it_does_not_repeat(self) -> str:
        message = (
            f"the model does not repeat its output when it runs again from layer {self.name}: it is"
            " random, keeps something between calls, or changes in place a tensor that a module"
            " before the layer took as a keyword argument, returned in a dataclass or as a view"
        )
        if random := self._random:
            message += f"; call model.eval(), for {', '.join(random)} is in training mode"
        return message
