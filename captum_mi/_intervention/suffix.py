"""A layer splits a model into a prefix, run once, and a suffix, run as often as asked."""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_mi._intervention import nested
from captum_mi._intervention.gradient import GradientError, check_gradient
from captum_mi._intervention.hooks import (
    edit_every_output,
    edit_input,
    edit_output,
    module_name,
    override_forward,
)
from captum_mi._intervention.trace import AS_WRITTEN, Call, LayerTrace, Recorder, detached_copy

logger = logging.getLogger(__name__)


class LayerSuffix:
    """The part of a model behind a layer, as a function of that layer's output (or input).

    Made by :func:`record`, which runs the model once. A call replays what every module that ended
    before the layer did, instead of computing it, and puts the given latent in the layer's place.
    Calls are matched by their order, so skip connections over the layer and modules that fire again
    behind it stay right. Of several layers at once, the first to run ends the replay.

    Attributes:
        latent: the layers' floating-point tensors for the recorded inputs, each (B, ...), detached.
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
        """Stores what :func:`record` found."""
        self.output = output
        self.name = " and ".join(module_name(forward_func, trace.layer) for trace in traces)
        self._forward_func = forward_func
        self._args = args
        self._traces = traces
        self._batch = len(output)
        self._packed = [
            self._batch == 1 and tensor.shape[:1] != (1,)
            for trace in traces
            for tensor in trace.latent
        ]
        self.latent = self.latent_in(traces)
        moved = traces[0].moved
        self._recorded = self.latent  # what ``output`` belongs to
        if moved is not None:
            self._recorded = (moved[None] if self._packed[0] else moved,)
        self._repeats = False  # whether the recorded output was seen to come back
        self._together = not any(self._packed)  # whether copies may run together, as far as known
        self._verified = 1  # how many copies have been seen to give together what each gives alone

    def __call__(self, *latent: Tensor) -> Tensor:
        """Returns the model's output for a latent in the layer's place.

        The first call checks that the recorded latent brings the recorded output back, and each
        call of more copies than before that the first and the last give together what they give
        alone. Where the recorded latent is none of the copies, or copies hardly differ, three that
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
            RuntimeError: if the model does not repeat its recorded run.
        """
        copies = self._copies(latent)
        if self._together and copies > self._verified:
            output = self._run_and_verify(latent, copies)
            if output is not None:
                return output
            self._together = False
            logger.info("rows depend on each other behind %s: one copy at a time", self.name)
        if not self._repeats:
            if copies == 1 and self._index_of_recorded(latent, 1) == 0:
                return self._run_recorded(latent)
            with torch.no_grad():
                self._run_recorded(self._recorded)
        if copies == 1 or self._together:
            return self._run(latent, copies)
        chunks = zip(*(tensor.chunk(copies) for tensor in latent), strict=True)
        return torch.cat([self._run(chunk, 1) for chunk in chunks])

    def latent_in(self, traces: Sequence[LayerTrace]) -> tuple[Tensor, ...]:
        """Returns what another run left in the place of the latent, in the latent's shape."""
        found = [
            tensor
            for own, other in zip(self._traces, traces, strict=True)
            for tensor in nested.take(other.value, own.positions)
        ]
        return tuple(
            tensor[None] if packed else tensor
            for tensor, packed in zip(found, self._packed, strict=True)
        )

    def split(self, tensors: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """Deals out tensors, one for each of ``latent``, to the layers that these belong to."""
        rest = iter(tensors)
        return [tuple(next(rest) for _ in trace.positions) for trace in self._traces]

    def _copies(self, latent: tuple[Tensor, ...]) -> int:
        shapes = [tuple(tensor.shape) for tensor in latent]
        copies = latent[0].shape[0] // self._batch if latent and latent[0].ndim else 0
        if not copies or shapes != [(copies * self._batch, *own.shape[1:]) for own in self.latent]:
            raise ValueError(
                "`latent` must have the shapes of the layer's tensors, its first axis repeated:"
                f" layer {self.name} has {[tuple(own.shape) for own in self.latent]}, got {shapes}"
            )
        return copies

    def _index_of_recorded(self, latent: tuple[Tensor, ...], copies: int) -> int | None:
        """Returns which copy is the recorded latent; None if none is."""
        for index in range(copies):
            rows = slice(index * self._batch, (index + 1) * self._batch)
            if all(
                torch.equal(tensor[rows].to(own.dtype), own)
                for tensor, own in zip(latent, self._recorded, strict=True)
            ):
                return index
        return None

    def _run_and_verify(self, latent: tuple[Tensor, ...], copies: int) -> Tensor | None:
        """Runs copies together and compares the ends; returns None where they give else alone."""
        index = self._index_of_recorded(latent, copies)
        first_time = self._verified == 1
        if first_time and index is None and not self._stands_company():
            return None
        output = self._run_and_compare(latent, index, {0, copies - 1})
        if output is None:
            return None
        if first_time and index is not None:
            self._repeats = True
            if not self._differ(output.detach(), copies) and not self._stands_company():
                return None
        self._verified = copies
        return output

    @torch.no_grad()
    def _stands_company(self) -> bool:
        """Whether the recorded latent gives in company what was recorded; see there."""
        self._repeats = self._run_and_compare(self._in_company(), 1, {0}) is not None
        return self._repeats

    def _differ(self, output: Tensor, copies: int) -> bool:
        """Whether copies differ by enough for a check among them to tell something."""
        parts = torch.stack(output.nan_to_num(0.0, 0.0, 0.0).chunk(copies))
        return bool(((parts - parts[0]).abs() > 100 * self._tolerance(output)).any())

    def _in_company(self) -> tuple[Tensor, ...]:
        """Puts the recorded latent between one far from it, larger, and one close to it.

        Rows may depend on each other by their largest values, by their order, or only on those
        alike; and a normalization may make multiples of a latent the same.
        """
        copies = []
        for own in self._recorded:
            generator = torch.Generator(own.device).manual_seed(0)
            share = torch.rand((2, *own.shape[1:]), generator=generator, device=own.device)
            far, close = (1 + torch.stack([share[0], share[1] / 50])).to(own.dtype)
            values = own.where(own != 0, 1.0)
            copies.append(torch.cat([values * far, own, values * close]))
        return tuple(copies)

    def _run_recorded(self, latent: tuple[Tensor, ...]) -> Tensor:
        """Runs the recorded latent, which must give the recorded output."""
        output = self._run(latent, 1)
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
            index: which of them is the recorded latent, whose output is known; None: none is.
            alone: which of them run once more, alone.

        Returns:
            the output; None if the model cannot run the copies together, or one of those compared
            gives something else alone.
        """
        copies = len(latent[0]) // self._batch
        try:
            output = self._run(latent, copies)
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
                expected = self._run(tuple(tensor.chunk(copies)[other] for tensor in latent), 1)
            if not self._close(parts[other], expected):
                return None
        return output

    def _close(self, output: Tensor, expected: Tensor) -> bool:
        """Whether two outputs are the same up to rounding, column by column."""
        if output.shape != expected.shape:
            return False
        same = (output - expected).abs() <= self._tolerance(expected)
        same |= (output == expected) | (output.isnan() & expected.isnan())
        return bool(same.all())

    def _tolerance(self, output: Tensor) -> Tensor:
        """Rounding of each column, which may be that of float32 inside double precision.

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
        if random := self._traces[0].random:
            message += f"; call model.eval(), for {', '.join(random)} is in training mode"
        return message

    def _run(self, latent: tuple[Tensor, ...], copies: int) -> Tensor:
        """Runs the model with the prefix replayed and the latent in place."""

        def fresh() -> list[tuple[Tensor, ...]]:
            return self.split(
                [
                    tensor[0].to(own.dtype).clone() if packed else tensor.to(own.dtype).clone()
                    for tensor, own, packed in zip(latent, self.latent, self._packed, strict=True)
                ]
            )

        placed = fresh()
        versions = [[tensor._version for tensor in tensors] for tensors in placed]
        fired = [0] * len(self._traces)
        wants_gradient = torch.is_grad_enabled()

        def tile(value: Any) -> Any:  # noqa: ANN401
            with torch.inference_mode(mode=False):
                return nested.map_tensors(lambda tensor: self._tile(tensor, copies), value)

        def show(index: int, value: Any) -> Any:  # noqa: ANN401
            return nested.put(value, self._traces[index].positions, placed[index])

        def place(index: int, value: Any) -> Any:  # noqa: ANN401
            fired[index] += 1
            if wants_gradient:
                check_gradient(self.name)
            if [tensor._version for tensor in placed[index]] != versions[index]:
                placed[index] = fresh()[index]  # a hook of the model's own has changed it in place
            return show(index, value)

        def replay(calls: deque[Call], module: nn.Module) -> Callable[..., Any]:
            def replayed(own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
                if calls:
                    return calls.popleft().replay(args, tile)
                if any(fired):
                    return own(*args, **kwargs)
                raise RuntimeError(
                    f"{type(module).__name__} ran more often before layer {self.name} than when it"
                    " was recorded; the model must take the same path at every call"
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


def record(
    forward_func: Callable[..., Any],
    layers: Sequence[nn.Module],
    inputs: Tensor | tuple[Tensor, ...],
    additional_forward_args: Any = None,  # noqa: ANN401
    *,
    at_input: bool = False,
    jointly: bool = False,
    move: Callable[[Tensor], Tensor] | None = None,
) -> list[LayerSuffix]:
    """Runs the model once and returns the suffix behind each layer.

    A layer of several floating-point tensors makes it run twice more, once on other inputs, which
    tells what depends on them.

    Args:
        forward_func: the model, or any callable that runs it, with ``inputs`` and then
            ``additional_forward_args``.
        layers: the layers; each must fire exactly once.
        inputs: (B, ...), or a tuple of such tensors.
        additional_forward_args: further arguments; a tensor with B rows is repeated with the batch,
            anything else passed on as it is.
        at_input: split before the layers, at their inputs, instead of behind them.
        jointly: return one suffix, in which all layers' latents are placed at once.
        move: of a single layer: where to move its latent before the model goes on, for a caller
            that will ask for this latent among others, which is then its check and costs nothing.

    Returns:
        one LayerSuffix per layer, or a single one.

    Raises:
        TypeError: if a layer is no module, or the model returns no tensor of floating-point scores.
        ValueError: if a layer does not fire once, has no floating-point tensor, holds NaN or
            infinity or has another first axis than the batch, if the model does not return one row
            per input row, or runs under DataParallel.
    """
    run = {"additional_forward_args": additional_forward_args, "at_input": at_input}
    args, output, traces = watch(forward_func, layers, inputs, move=move, **run)
    if any(len(trace.positions) > 1 for trace in traces):
        others = watch_elsewhere(forward_func, layers, inputs, **run)
        # Again, for what the model keeps of its last run.
        args, output, traces = watch(forward_func, layers, inputs, move=move, **run)
        for trace, other in zip(traces, others or (), strict=others is not None):
            trace.drop_constants(other, len(output))
    for trace in traces:
        _check_latent(trace.latent, module_name(forward_func, trace.layer), batch=len(output))
    groups = [traces] if jointly else [[trace] for trace in traces]
    return [LayerSuffix(forward_func, args, output, group) for group in groups]


def watch(
    forward_func: Callable[..., Any],
    layers: Sequence[nn.Module],
    inputs: Tensor | tuple[Tensor, ...],
    additional_forward_args: Any = None,  # noqa: ANN401
    *,
    at_input: bool = False,
    move: Callable[[Tensor], Tensor] | None = None,
) -> tuple[tuple[Any, ...], Tensor, list[LayerTrace]]:
    """Runs the model once, see :func:`record`; returns its arguments, its output and the traces."""
    for layer in layers:
        if not isinstance(layer, nn.Module):
            raise TypeError(
                f"`layer` must be a module or a list of modules, got {type(layer).__name__}; "
                "take a module by its name with model.get_submodule(name)"
            )
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    if additional_forward_args is not None and not isinstance(additional_forward_args, tuple):
        additional_forward_args = (additional_forward_args,)
    with torch.inference_mode(mode=False), torch.no_grad(), advise_on_scores(forward_func):
        args = detached_copy((*inputs, *(additional_forward_args or ())))
        move = move if len(layers) == 1 else None
        watching = partial(Recorder, forward_func, layers, at_input=at_input, move=move)
        recorder = watching()
        output = recorder.run(detached_copy(args))
        if not all(trace.complete for trace in recorder.traces):
            # A module calls the layer without owning it: which outputs to keep was not clear.
            recorder = watching(keep_all=True)
            output = recorder.run(detached_copy(args))
    check_output(output, inputs)
    return args, output, recorder.traces


def watch_elsewhere(
    forward_func: Callable[..., Any],
    layers: Sequence[nn.Module],
    inputs: Tensor | tuple[Tensor, ...],
    **run: Any,
) -> list[LayerTrace] | None:
    """Watches the model on other inputs, to tell what in a layer depends on them.

    Every number is brought nearer to zero, by another share, and so is the embedding of every id,
    which itself stays what the model takes for one. Masks stay.

    Returns:
        the traces; None if an input could not be changed, or the model does not run on others.
    """
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    changed = tuple(_shrink(each) if each.is_floating_point() else each for each in inputs)
    for own, other in zip(inputs, changed, strict=True):
        same = (own == other).reshape(own.shape[0] if own.ndim else 1, -1).all(1)
        if own.is_floating_point() and same.any():
            return None
    ids = [each for each in inputs if not each.is_floating_point()]
    embedded: set[int] = set()

    def shrink_embedding(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:  # noqa: ANN401
        if not isinstance(module, nn.Embedding) or not args:
            return None
        for i, each in enumerate(ids):
            if torch.equal(args[0].flatten(), each.flatten()):
                embedded.add(i)
                return _shrink(output)
        return None

    try:
        with edit_every_output(shrink_embedding):
            traces = watch(forward_func, layers, changed, **run)[2]
    except Exception:  # what was changed may be no input of this model
        return None
    masks = {i for i, each in enumerate(ids) if each.bool().to(each.dtype).equal(each)}
    return traces if embedded | masks == set(range(len(ids))) else None


def _shrink(values: Tensor) -> Tensor:
    """Brings numbers nearer to zero, each by another share."""
    share = torch.arange(1, values.numel() + 1, device=values.device) / (2 * values.numel())
    return values * (1 - share.reshape(values.shape)).to(values.dtype)


@contextmanager
def advise_on_scores(forward_func: Callable[..., Any]) -> Iterator[None]:
    """Says of an image-text model as it is, which does not run on images alone, what to do."""
    try:
        yield
    except (AttributeError, TypeError) as error:
        if not hasattr(forward_func, "get_image_features"):
            raise
        raise TypeError(
            f"`forward_func` is a {type(forward_func).__name__} and does not run on these inputs"
            f" ({error}); wrap it in captum_mi.models.ImageTextSimilarity"
        ) from error


def check_output(output: object, inputs: tuple[Tensor, ...]) -> None:
    """Raises where the model does not return one row of scores per input row."""
    if not isinstance(output, Tensor):
        raise TypeError(
            f"`forward_func` must return a tensor (B,) or (B, C), got {type(output).__name__}; wrap"
            " the model in a function that returns the tensor to explain, or an image-text model in"
            " captum_mi.models.ImageTextSimilarity"
        )
    if not output.is_floating_point():
        raise TypeError(
            f"`forward_func` must return floating-point scores (B,) or (B, C), got {output.dtype};"
            " return the logits or similarities instead of the decision"
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
        if tensor.shape[:1] != (batch,) and batch > 1:
            raise ValueError(
                f"layer {name} has a tensor of shape {tuple(tensor.shape)}, but its first axis must"
                f" be the batch of {batch}; build a sequence-first model with batch_first=True,"
                " explain a layer that packs its rows together one row at a time (and give its map"
                " `grid`), or choose another layer"
            )
        if not tensor.isfinite().all():
            raise ValueError(
                f"layer {name} holds NaN or infinity for these inputs; check the inputs and the"
                " model's precision"
            )
