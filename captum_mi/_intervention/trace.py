"""One watched run of a model: which module calls ended before a layer, and what they did."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from captum_mi._intervention import nested
from captum_mi._intervention.hooks import edit_input, edit_output, module_name, watch_calls


@dataclass(frozen=True)
class Call:
    """What a module call did.

    Attributes:
        module: the module.
        output: what its ``forward`` returned, copied; before the module's own hooks.
        aliases: positions of output tensors that are argument tensors themselves -> whose.
        changed: positions of argument tensors that the call changed in place -> their new value.
    """

    module: nn.Module
    output: object
    aliases: dict[int, int] = field(default_factory=dict)
    changed: dict[int, Tensor] = field(default_factory=dict)

    def replay(self, args: tuple[Any, ...], tile: Callable[[Any], Any]) -> object:
        """Does to ``args`` what the call did, and returns its output, both fit by ``tile``."""
        given = tuple(nested.tensors(args))
        for position, value in self.changed.items():
            given[position].copy_(tile(value))
        own = tuple(given[position] for position in self.aliases.values())
        return nested.put(tile(self.output), tuple(self.aliases), own)


class LayerTrace:
    """What one layer's only firing left.

    Attributes:
        layer: the layer.
        at_input: whether its input is explained instead of its output.
        firings: how often it fired.
        before: the calls that ended before it began, without those inside other such calls.
        own: its own call.
        value: its output, or its (args, kwargs), after its own hooks.
        positions: which tensors of ``value`` are the latent.
        moved: what the model went on with in the latent's place; None: with the latent.
        random: names of the modules in the run whose training mode makes it random.
    """

    def __init__(
        self,
        layer: nn.Module,
        *,
        at_input: bool,
        move: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Starts with nothing seen."""
        self.layer = layer
        self.at_input = at_input
        self._move = move
        self.firings = 0
        self.before: list[Call] = []
        self.own: Call | None = None
        self.value: object = None
        self.positions: tuple[int, ...] = ()
        self.moved: Tensor | None = None
        self.random: tuple[str, ...] = ()

    @property
    def latent(self) -> tuple[Tensor, ...]:
        """The layer's tensors to explain."""
        return nested.take(self.value, self.positions)

    @property
    def complete(self) -> bool:
        """Whether the output of every call before the layer was kept."""
        return all(call.output is not _DROPPED for call in self.before)

    def capture_output(self, output: object) -> object:
        """Keeps the layer's output; its floating-point tensors are latent.

        Of a recurrent layer only the sequence is: its last states have other axes.
        """
        self.value = nested.detached_copy(output)
        self.positions = _with_axes(nested.floating(output), output)
        if isinstance(self.layer, nn.RNNBase):
            self.positions = self.positions[:1]
        return self._moved(output)

    def capture_input(self, values: tuple[tuple[Any, ...], dict[str, Any]]) -> object:
        """Keeps the layer's input; keyword arguments are latent only without positional ones."""
        self.value = nested.detached_copy(values)
        args, _ = values
        tensors = tuple(nested.tensors(values))
        self.positions = tuple(
            i
            for i in nested.floating(args) or nested.floating(values)
            if not _is_additive_mask(tensors[i])
        )
        return self._moved(values)

    def _moved(self, value: object) -> object:
        """Moves the latent in ``value``; None to keep it.

        It is kept where it is not clear yet which tensor it is, and where hooks of the layer's own
        have seen it.
        """
        hooks = self.layer._forward_pre_hooks if self.at_input else self.layer._forward_hooks
        if self._move is None or len(self.positions) != 1 or len(hooks) > 1:
            return None
        (latent,) = self.latent
        moved = self._move(latent).to(latent.dtype)
        if moved.shape != latent.shape:
            return None
        self.moved = moved
        return nested.put(value, self.positions, (moved.clone(),))

    def drop_constants(self, other: LayerTrace, batch: int) -> None:
        """Takes for latent only what another run, on other inputs, has changed.

        A position bias, a rotary table or an open mask that a layer passes on is the same for all
        inputs, and so for all rows. If nothing has changed, all stays latent.
        """
        others = nested.take(other.value, self.positions)
        changed = tuple(
            i
            for i, own, new in zip(self.positions, self.latent, others, strict=True)
            if own.shape != new.shape
            or not torch.equal(own, new)
            or (own.shape[:1] == (batch,) and not own.eq(own[:1]).all())
        )
        self.positions = changed or self.positions


class Tracer:
    """Watches one run of the model for the calls that end before each layer.

    A call made inside another that also ends before the layer need not be kept: replaying the outer
    one is enough. Which calls end before the layer is known only afterwards; an open module that
    owns no layer is taken to end before it, unless ``keep_all``.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layers: Sequence[nn.Module],
        *,
        at_input: bool,
        move: Callable[[Tensor], Tensor] | None = None,
        keep_all: bool = False,
    ) -> None:
        """Prepares a trace for each layer."""
        self.traces = [LayerTrace(layer, at_input=at_input, move=move) for layer in layers]
        self._forward_func = forward_func
        self._keep_all = keep_all
        self._owners: dict[nn.Module, bool] = {}
        self._random: dict[str, None] = {}
        self._open: list[_OpenCall] = []
        self._ended: list[list[Call]] = [[]]  # calls that ended, for each open call around them

    def run(self, args: tuple[Any, ...]) -> object:
        """Runs the model on ``args`` and returns its output.

        Raises:
            ValueError: if a layer does not fire once, or the model runs under DataParallel.
        """
        owner = getattr(self._forward_func, "__self__", self._forward_func)
        if isinstance(owner, nn.DataParallel):
            _refuse_data_parallel(owner)
        with ExitStack() as stack:
            stack.enter_context(AS_WRITTEN)
            stack.enter_context(watch_calls(self._start, self._finish))
            for trace in self.traces:
                if trace.at_input:
                    stack.enter_context(edit_input(trace.layer, trace.capture_input))
                else:
                    stack.enter_context(edit_output(trace.layer, trace.capture_output))
            output = self._forward_func(*args)
        for trace in self.traces:
            trace.random = tuple(self._random)
            if trace.firings != 1:
                name = module_name(self._forward_func, trace.layer)
                raise ValueError(
                    f"layer {name} fired {trace.firings} times in one pass, it must fire once; "
                    + (
                        "choose a layer that runs once, such as the block around it"
                        if trace.firings
                        else "it may belong to a copy of the model, or the input may not reach it"
                    )
                )
        return output

    def _start(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, nn.DataParallel):
            _refuse_data_parallel(module)
        if warn_if_training(module, self._forward_func):
            self._random[module_name(self._forward_func, module)] = None
        for trace in self.traces:
            if trace.layer is module:
                trace.firings += 1
                trace.before = [call for calls in self._ended for call in calls]
        self._open.append(_OpenCall(module, tuple(nested.tensors(args))))
        self._ended.append([])

    def _finish(self, module: nn.Module, output: object) -> None:
        call = self._open.pop()
        self._ended.pop()
        if isinstance(module, torch.jit.ScriptModule):
            return  # its forward cannot be replaced: it runs again
        for trace in self.traces:
            if trace.layer is module:
                trace.own = call.end(output)
        if any(not trace.firings for trace in self.traces):
            keep = self._keep_all or all(self._owns_a_layer(outer.module) for outer in self._open)
            self._ended[-1].append(call.end(output) if keep else Call(module, _DROPPED))

    def _owns_a_layer(self, module: nn.Module) -> bool:
        if module not in self._owners:
            layers = {id(trace.layer) for trace in self.traces}
            self._owners[module] = any(id(inner) in layers for inner in module.modules())
        return self._owners[module]


_DROPPED = object()


def _with_axes(positions: tuple[int, ...], value: object) -> tuple[int, ...]:
    """Leaves out single numbers, such as a loss, beside tensors that have rows."""
    tensors = tuple(nested.tensors(value))
    return tuple(i for i in positions if tensors[i].ndim) or positions


def _is_additive_mask(tensor: Tensor) -> bool:
    """Returns whether a tensor is an attention mask: it holds -inf, or the least number."""
    return bool(tensor.amin() <= torch.finfo(tensor.dtype).min / 2)


class _OpenCall:
    """A call that has begun; remembers its arguments to see what becomes of them."""

    def __init__(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        self.module = module
        self._given = given
        self._states = [_state(tensor) for tensor in given]

    def end(self, output: object) -> Call:
        positions = {id(tensor): i for i, tensor in enumerate(self._given)}
        return Call(
            module=self.module,
            output=nested.detached_copy(output),
            aliases={
                i: positions[id(tensor)]
                for i, tensor in enumerate(nested.tensors(output))
                if id(tensor) in positions
            },
            changed={
                i: tensor.detach().clone()
                for i, (tensor, state) in enumerate(zip(self._given, self._states, strict=True))
                if _is_changed(tensor, state)
            },
        )


def _state(tensor: Tensor) -> int | Tensor:
    """Returns what shows a later change in place: the version, or a copy in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor._version


def _is_changed(tensor: Tensor, state: int | Tensor) -> bool:
    if isinstance(state, Tensor):
        return not torch.equal(tensor, state)
    return tensor._version != state


def _refuse_data_parallel(module: nn.DataParallel[nn.Module]) -> None:
    if len(module.device_ids) > 1:
        raise ValueError(
            f"`forward_func` runs under DataParallel on devices {module.device_ids}, whose replicas"
            " cannot be split at a layer; pass the model itself, `parallel.module`"
        )


def is_random(module: nn.Module) -> bool:
    """Returns whether a module is in a training mode that makes the model's output random."""
    random = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
    return module.training and (random or isinstance(module, nn.modules.batchnorm._BatchNorm))


def warn_if_training(module: nn.Module, forward_func: Callable[..., Any]) -> bool:
    """Warns of a module whose training mode makes the model's output random, and tells of it."""
    found = is_random(module)
    if found:
        warnings.warn(
            f"{module_name(forward_func, module)} is in training mode, so the model does not repeat"
            " its output; call model.eval() first",
            stacklevel=2,
        )
    return found


class _AsWritten:
    """Process-wide switches, set while any thread needs them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._undo = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            mha = torch.backends.mha
            self._undo.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
            mha.set_fastpath_enabled(False)
            if "torch._dynamo" in sys.modules:
                self._undo.enter_context(torch.compiler.set_stance("force_eager"))
                self._undo.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", message="Using `torch.compile")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._undo.close()


AS_WRITTEN = _AsWritten()
"""Context that runs modules as their Python code says, each through its own call.

Compiled code and PyTorch's fused inference path of transformer layers skip the calls of the modules
inside.
"""
