"""A layer splits a model into a prefix, run once, and a suffix, run as often as asked."""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from captum_mi import _nested
from captum_mi._hooks import edit_input, edit_output, module_name, override_forward
from captum_mi._recorder import Call, LayerTrace, Recorder, as_written, detached_copy

logger = logging.getLogger(__name__)


class LayerSuffix:
    """The part of a model behind one layer, as a function of that layer's output (or input).

    Made by :func:`record`, which runs the model once. A call replays what every module that ended
    before the layer did, instead of computing it, and puts the given latent in the layer's place.
    Calls are matched by their order, so skip connections over the layer and modules that fire again
    behind it stay right.

    Attributes:
        latent: the layer's floating-point tensors for the recorded inputs, each (B, ...), detached.
        output: what the model returned for them, (B,) or (B, C).
        name: the layer's dotted name, for messages.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        args: tuple[Any, ...],
        output: Tensor,
        trace: LayerTrace,
    ) -> None:
        """Stores what :func:`record` found."""
        self.latent = _nested.take(trace.value, trace.positions)
        self.output = output
        self.name = module_name(forward_func, trace.layer)
        self._forward_func = forward_func
        self._args = args
        self._trace = trace
        self._batch = len(output)
        self._expandable = all(
            tensor.ndim == 0 or tensor.shape[0] in (1, self._batch)
            for tensor in _nested.tensors([args, [call.output for call in trace.before]])
        )
        self._checked = 0  # how many copies have been seen to repeat the recorded output

    def __call__(self, *latent: Tensor) -> Tensor:
        """Returns the model's output for a latent in the layer's place.

        The first calls check that the recorded latent brings the recorded output back; a call whose
        last copy is the recorded latent checks itself, any other runs it once more.

        Args:
            *latent: one tensor for each of ``self.latent``, its shape but with (copies * B) rows:
                the batch repeated ``copies`` times, copy by copy, as Captum expands it. Any
                floating dtype.

        Returns:
            (copies * B,) or (copies * B, C). Copies are evaluated together where that gives what
            each gives alone, otherwise one by one.

        Raises:
            ValueError: if the latent has another shape.
            RuntimeError: if the model does not repeat its recorded run.
        """
        copies = self._copies(latent)
        together = copies == 1 or self._expandable
        if together and self._checked < min(copies, 2) and self._ends_as_recorded(latent):
            output = self._try(latent, copies)
            if output is not None and self._matches(output[-self._batch :].detach(), 1):
                self._checked = copies
                return output
        self._check(min(copies, 2))
        if copies == 1 or self._expandable:
            return self._run(latent, copies)
        chunks = zip(*(tensor.chunk(copies) for tensor in latent), strict=True)
        return torch.cat([self._run(chunk, 1) for chunk in chunks])

    def _copies(self, latent: tuple[Tensor, ...]) -> int:
        shapes = [tuple(tensor.shape) for tensor in latent]
        copies = latent[0].shape[0] // self._batch if latent and latent[0].ndim else 0
        if not copies or shapes != [(copies * self._batch, *own.shape[1:]) for own in self.latent]:
            raise ValueError(
                "`latent` must have the shapes of the layer's tensors, its first axis repeated:"
                f" layer {self.name} has {[tuple(own.shape) for own in self.latent]}, got {shapes}"
            )
        return copies

    def _check(self, copies: int) -> None:
        """Sees to it that what follows can be believed, together for copies if it can be."""
        if self._checked >= copies:
            return
        if copies > 1 and self._expandable:
            self._expandable = self._repeats(copies)
            if not self._expandable:
                logger.info("rows depend on each other behind %s: one copy at a time", self.name)
        if not (copies > 1 and self._expandable) and not self._repeats(1):
            raise RuntimeError(
                f"the model does not repeat its output when it runs again from layer {self.name}:"
                " it is random (call model.eval()) or keeps something between calls"
            )
        self._checked = copies

    @torch.no_grad()
    def _repeats(self, copies: int) -> bool:
        """Whether copies of the recorded latent give copies of the recorded output."""
        latent = tuple(own.repeat(copies, *[1] * (own.ndim - 1)) for own in self.latent)
        output = self._try(latent, copies)
        return output is not None and self._matches(output, copies)

    def _ends_as_recorded(self, latent: tuple[Tensor, ...]) -> bool:
        """Whether the last copy is the recorded latent, so that the call checks itself."""
        return all(
            torch.equal(tensor[-self._batch :].to(own.dtype), own)
            for tensor, own in zip(latent, self.latent, strict=True)
        )

    def _try(self, latent: tuple[Tensor, ...], copies: int) -> Tensor | None:
        """Runs copies together; None if the model cannot run them so."""
        try:
            return self._run(latent, copies)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            if copies == 1:
                raise
            return None

    def _matches(self, output: Tensor, copies: int) -> bool:
        """Whether an output is copies of the recorded one."""
        expected = self.output.repeat(copies, *[1] * (self.output.ndim - 1))
        if output.shape != expected.shape:
            return False
        tolerance = torch.finfo(expected.dtype).eps ** 0.5 * expected.abs().amax().item()
        return torch.allclose(output, expected, rtol=0.0, atol=tolerance, equal_nan=True)

    def _run(self, latent: tuple[Tensor, ...], copies: int) -> Tensor:
        """Runs the model with the prefix replayed and the latent in place."""
        trace = self._trace
        placed = tuple(
            tensor.to(own.dtype).clone() for tensor, own in zip(latent, self.latent, strict=True)
        )
        fired = 0

        def tile(value: Any) -> Any:  # noqa: ANN401
            return _nested.map_tensors(lambda tensor: self._tile(tensor, copies), value)

        def place(value: Any) -> Any:  # noqa: ANN401
            nonlocal fired
            fired += 1
            return _nested.put(value, trace.positions, placed)

        def replay(
            module: nn.Module, calls: deque[Call], forward: Callable[..., Any]
        ) -> Callable[..., Any]:
            def replayed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
                if calls:
                    return calls.popleft().replay(args, tile)
                if fired:
                    return forward(*args, **kwargs)
                raise RuntimeError(
                    f"{type(module).__name__} ran more often before layer {self.name} than when it"
                    " was recorded; the model must take the same path at every call"
                )

            return replayed

        queues: dict[nn.Module, deque[Call]] = defaultdict(deque)
        for call in trace.before:
            queues[call.module].append(call)
        if not trace.at_input and trace.own is not None:
            queues[trace.layer].append(trace.own)
        with ExitStack() as stack:
            stack.enter_context(as_written())
            for module, calls in queues.items():
                stack.enter_context(override_forward(module, replay(module, calls, module.forward)))
            edit = edit_input if trace.at_input else edit_output
            stack.enter_context(edit(trace.layer, place))
            result: Tensor = self._forward_func(*tile(self._args))
        if fired != 1:
            raise RuntimeError(
                f"layer {self.name} fired {fired} times when the model ran again; it must fire once"
            )
        return result

    def _tile(self, tensor: Tensor, copies: int) -> Tensor:
        """Repeats a batched tensor; copies every tensor, for the model may change it in place."""
        batched = tensor.ndim > 0 and tensor.shape[0] == self._batch
        if copies == 1 or not batched or (self._batch == 1 and tensor.ndim == 1):
            return tensor.clone()
        return tensor.repeat(copies, *[1] * (tensor.ndim - 1))


def record(
    forward_func: Callable[..., Any],
    layers: Sequence[nn.Module],
    inputs: Tensor | tuple[Tensor, ...],
    additional_forward_args: Any = None,  # noqa: ANN401
    *,
    at_input: bool = False,
) -> list[LayerSuffix]:
    """Runs the model once and returns the suffix behind each layer.

    Args:
        forward_func: the model, or any callable that runs it, with ``inputs`` and then
            ``additional_forward_args``.
        layers: the layers; each must fire exactly once.
        inputs: (B, ...), or a tuple of such tensors.
        additional_forward_args: further arguments; a tensor with B rows is repeated with the batch,
            anything else passed on as it is.
        at_input: split before the layers, at their inputs, instead of behind them.

    Returns:
        one LayerSuffix per layer.

    Raises:
        TypeError: if a layer is no module, or the model returns no tensor.
        ValueError: if a layer does not fire once, has no floating-point tensor, holds NaN or
            infinity or has another first axis than the batch, if the model does not return one row
            per input row, or runs under DataParallel.
    """
    for layer in layers:
        if not isinstance(layer, nn.Module):
            raise TypeError(
                f"`layer` must be a module or a list of modules, got {type(layer).__name__}; "
                "take a module by its name with model.get_submodule(name)"
            )
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    if additional_forward_args is not None and not isinstance(additional_forward_args, tuple):
        additional_forward_args = (additional_forward_args,)
    with torch.inference_mode(mode=False), torch.no_grad():
        args = detached_copy((*inputs, *(additional_forward_args or ())))
        recorder = Recorder(forward_func, layers, at_input=at_input)
        output = recorder.run(detached_copy(args))
        if not all(trace.complete for trace in recorder.traces):
            # A module calls the layer without owning it: which outputs to keep was not clear.
            recorder = Recorder(forward_func, layers, at_input=at_input, keep_all=True)
            output = recorder.run(detached_copy(args))
    check_output(output, inputs)
    for trace in recorder.traces:
        _check_latent(
            _nested.take(trace.value, trace.positions),
            module_name(forward_func, trace.layer),
            batch=len(output),
        )
    return [LayerSuffix(forward_func, args, output, trace) for trace in recorder.traces]


def check_output(output: object, inputs: tuple[Tensor, ...]) -> None:
    """Raises where the model does not return one row per input row."""
    if not isinstance(output, Tensor):
        raise TypeError(
            f"`forward_func` must return a tensor (B,) or (B, C), got {type(output).__name__}; wrap"
            " the model in a function that returns the tensor to explain"
        )
    rows = inputs[0].shape[0] if inputs[0].ndim else 0
    if output.ndim == 0 or len(output) != rows:
        raise ValueError(
            "`forward_func` must return a tensor (B,) or (B, C) with one row for each of the"
            f" {rows} input rows, got shape {tuple(output.shape)}"
        )


def _check_latent(latent: tuple[Tensor, ...], name: str, *, batch: int) -> None:
    if not latent:
        raise ValueError(
            f"layer {name} has no floating-point tensor to explain; choose a layer whose output is"
            " one"
        )
    for tensor in latent:
        if tensor.ndim == 0 or tensor.shape[0] != batch:
            raise ValueError(
                f"layer {name} has a tensor of shape {tuple(tensor.shape)}, but its first axis must"
                f" be the batch of {batch}; build a sequence-first model with batch_first=True, or"
                " choose another layer"
            )
        if not tensor.isfinite().all():
            raise ValueError(
                f"layer {name} holds NaN or infinity for these inputs; check the inputs and the"
                " model's precision"
            )
