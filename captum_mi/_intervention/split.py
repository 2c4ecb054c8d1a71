"""Splitting a model at layers: one traced run, and the suffix behind each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_mi._intervention import nested
from captum_mi._intervention.arguments import as_tuple, check_layer, model_arguments
from captum_mi._intervention.hooks import edit_every_output, module_name
from captum_mi._intervention.suffix import LayerSuffix
from captum_mi._intervention.trace import LayerTrace, Tracer


def split_at(
    forward_func: Callable[..., Any],
    layers: Sequence[nn.Module],
    inputs: Tensor | tuple[Tensor, ...],
    additional_forward_args: object = None,
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
    run: dict[str, Any] = {"additional_forward_args": additional_forward_args, "at_input": at_input}
    args, output, traces = trace_layers(forward_func, layers, inputs, move=move, **run)
    if any(len(trace.positions) > 1 for trace in traces):
        others = trace_elsewhere(forward_func, layers, inputs, **run)
        # Again, for what the model keeps of its last run.
        args, output, traces = trace_layers(forward_func, layers, inputs, move=move, **run)
        for trace, other in zip(traces, others or (), strict=others is not None):
            trace.drop_constants(other, len(output))
    for trace in traces:
        _check_latent(trace.latent, module_name(forward_func, trace.layer), batch=len(output))
    groups = [traces] if jointly else [[trace] for trace in traces]
    return [LayerSuffix(forward_func, args, output, group) for group in groups]


def trace_layers(
    forward_func: Callable[..., Any],
    layers: Sequence[nn.Module],
    inputs: Tensor | tuple[Tensor, ...],
    *,
    additional_forward_args: object = None,
    at_input: bool = False,
    move: Callable[[Tensor], Tensor] | None = None,
) -> tuple[tuple[Any, ...], Tensor, list[LayerTrace]]:
    """Runs the model once, see :func:`split_at`, and returns its arguments, output and traces."""
    for layer in layers:
        check_layer(layer)
    with torch.inference_mode(mode=False), torch.no_grad(), advise_on_scores(forward_func):
        args = nested.detached_copy(model_arguments(inputs, additional_forward_args))
        move = move if len(layers) == 1 else None
        tracing = partial(Tracer, forward_func, layers, at_input=at_input, move=move)
        tracer = tracing()
        output = tracer.run(nested.detached_copy(args))
        if not all(trace.complete for trace in tracer.traces):
            # A module calls the layer without owning it: which outputs to keep was not clear.
            tracer = tracing(keep_all=True)
            output = tracer.run(nested.detached_copy(args))
    return args, check_output(output, as_tuple(inputs)), tracer.traces


def trace_elsewhere(
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
    inputs = as_tuple(inputs)
    changed = tuple(_shrink(each) if each.is_floating_point() else each for each in inputs)
    for own, other in zip(inputs, changed, strict=True):
        same = (own == other).reshape(own.shape[0] if own.ndim else 1, -1).all(1)
        if own.is_floating_point() and same.any():
            return None
    ids = [each for each in inputs if not each.is_floating_point()]
    embedded: set[int] = set()

    def shrink_embedding(module: nn.Module, args: tuple[Any, ...], output: object) -> object:
        if not isinstance(module, nn.Embedding) or not args:
            return None
        for i, each in enumerate(ids):
            if torch.equal(args[0].flatten(), each.flatten()):
                embedded.add(i)
                return nested.map_tensors(_shrink, output)
        return None

    try:
        with edit_every_output(shrink_embedding):
            traces = trace_layers(forward_func, layers, changed, **run)[2]
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
    """Adds advice to the error of an image-text model as it is, which wants images and texts."""
    try:
        yield
    except (AttributeError, TypeError) as error:
        if not hasattr(forward_func, "get_image_features"):
            raise
        raise TypeError(
            f"`forward_func` is a {type(forward_func).__name__} and does not run on these inputs"
            f" ({error}); wrap it in captum_mi.models.ImageTextSimilarity"
        ) from error


def check_output(output: object, inputs: tuple[Tensor, ...]) -> Tensor:
    """Returns the model's output if it is one row of scores per input row."""
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
    return output


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
