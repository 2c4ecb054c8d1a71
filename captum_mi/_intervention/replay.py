"""Running a model again with what ended before a layer replayed, and a latent in its place."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from captum_mi._intervention import nested
from captum_mi._intervention.gradient import check_gradient
from captum_mi._intervention.hooks import (
    edit_input,
    edit_output,
    module_name,
    override_forward,
)
from captum_mi._intervention.trace import AS_WRITTEN, Call, LayerTrace

T = TypeVar("T")


class Replay:
    """A traced run of a model that can be repeated from some layers on.

    What every module that ended before the layers did is replayed instead of computed, and latents
    are put in the layers' places. Calls are matched by their order, so skip connections over a
    layer and modules that fire again behind it stay right. Of several layers, the first to run ends
    the replay.

    Args:
        forward_func: the model, or any callable that runs it.
        args: its arguments in the traced run.
        traces: what the run left of each layer.
        batch: rows of the run.

    Attributes:
        name: the layers' dotted names, for messages.
        packed: for each tensor of ``latent``, whether it came without an axis for its single row.
        latent: the layers' tensors, each (B, ...).
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        args: tuple[Any, ...],
        traces: Sequence[LayerTrace],
        batch: int,
    ) -> None:
        """Stores the run."""
        self.name = " and ".join(module_name(forward_func, trace.layer) for trace in traces)
        self._forward_func = forward_func
        self._args = args
        self._traces = traces
        self._batch = batch
        self.packed = [
            batch == 1 and tensor.shape[:1] != (1,) for trace in traces for tensor in trace.latent
        ]
        self.latent = self.latent_in(traces)

    def latent_in(self, traces: Sequence[LayerTrace]) -> tuple[Tensor, ...]:
        """Returns what another run left in the place of the latent, in the latent's shape."""
        found = [
            tensor
            for own, other in zip(self._traces, traces, strict=True)
            for tensor in nested.take(other.value, own.positions)
        ]
        return tuple(
            tensor[None] if packed else tensor
            for tensor, packed in zip(found, self.packed, strict=True)
        )

    def split(self, tensors: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """Groups tensors, one for each of ``latent``, by the layers that these belong to."""
        rest = iter(tensors)
        return [tuple(next(rest) for _ in trace.positions) for trace in self._traces]

    def run(self, latent: tuple[Tensor, ...], copies: int) -> Tensor:
        """Runs the model with the prefix replayed and the latent in place.

        Args:
            latent: one tensor for each of ``self.latent``, with (copies * B) rows.
            copies: how often the batch is repeated.

        Returns:
            what the model returns.
        """

        def fresh() -> list[tuple[Tensor, ...]]:
            return self.split(
                [
                    tensor[0].to(own.dtype).clone() if packed else tensor.to(own.dtype).clone()
                    for tensor, own, packed in zip(latent, self.latent, self.packed, strict=True)
                ]
            )

        placed = fresh()
        versions = [[tensor._version for tensor in tensors] for tensors in placed]
        fired = [0] * len(self._traces)
        wants_gradient = torch.is_grad_enabled()

        def tile(value: T) -> T:
            with torch.inference_mode(mode=False):
                return nested.map_tensors(lambda tensor: self._tile(tensor, copies), value)

        def show(index: int, value: object) -> object:
            return nested.put(value, self._traces[index].positions, placed[index])

        def place(index: int, value: object) -> object:
            fired[index] += 1
            if wants_gradient:
                check_gradient(self.name)
            if [tensor._version for tensor in placed[index]] != versions[index]:
                placed[index] = fresh()[index]  # a hook of the model's own has changed it in place
            return show(index, value)

        def replay(calls: deque[Call], module: nn.Module) -> Callable[..., Any]:
            def replayed(own: Callable[..., object], *args: Any, **kwargs: Any) -> object:
                if calls:
                    return calls.popleft().replay(args, tile)
                if any(fired):
                    return own(*args, **kwargs)
                raise RuntimeError(
                    f"{type(module).__name__} ran more often before layer {self.name} than when it"
                    " was traced; the model must take the same path at every call"
                )

            return replayed

        first = min(self._traces, key=lambda trace: len(trace.before))
        queues: dict[nn.Module, deque[Call]] = defaultdict(deque)
        for call in first.before:
            queues[call.module].append(call)
        if len(self._traces) == 1 and not first.at_input and first.own is not None:
            queues[first.layer].append(first.own)
        with ExitStack() as stack:
            stack.enter_context(AS_WRITTEN)
            for module, calls in queues.items():
                stack.enter_context(override_forward(module, replay(calls, module)))
            for index, trace in enumerate(self._traces):
                edit = edit_input if trace.at_input else edit_output
                stack.enter_context(edit(trace.layer, partial(place, index)))
                # For hooks of the model's own that collect what its layers take or return.
                stack.enter_context(edit(trace.layer, partial(show, index), first=True))
            result: Tensor = self._forward_func(*tile(self._args))
        if any(times != 1 for times in fired):
            raise RuntimeError(
                f"layer {self.name} fired {' and '.join(map(str, fired))} times when the model ran"
                " again; it must fire once"
            )
        return result

    def _tile(self, tensor: Tensor, copies: int) -> Tensor:
        """Repeats a batched tensor; copies every tensor, for the model may change it in place."""
        batched = tensor.ndim > 0 and tensor.shape[0] == self._batch
        if copies == 1 or not batched or (self._batch == 1 and tensor.ndim == 1):
            return tensor.clone()
        return tensor.repeat(copies, *[1] * (tensor.ndim - 1))
