"""One watched run of a model: which module calls ended before a layer, and what they did."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from captum_mi import _nested
from captum_mi._hooks import edit_input, edit_output, module_name, watch_calls


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
    output: Any
    aliases: dict[int, int] = field(default_factory=dict)
    changed: dict[int, Tensor] = field(default_factory=dict)

    def replay(self, args: tuple[Any, ...], tile: Callable[[Any], Any]) -> Any:  # noqa: ANN401
        """Does to ``args`` what the call did, and returns its output, both fit by ``tile``."""
        given = tuple(_nested.tensors(args))
        for position, value in self.changed.items():
            given[position].copy_(tile(value))
        own = tuple(given[position] for position in self.aliases.values())
        return _nested.put(tile(self.output), tuple(self.aliases), own)


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
    """

    def __init__(self, layer: nn.Module, *, at_input: bool) -> None:
        """Starts with nothing seen."""
        self.layer = layer
        self.at_input = at_input
        self.firings = 0
        self.before: list[Call] = []
        self.own: Call | None = None
        self.value: Any = None
        self.positions: tuple[int, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the output of every call before the layer was kept."""
        return all(call.output is not _DROPPED for call in self.before)

    def capture_output(self, output: Any) -> None:  # noqa: ANN401
        """Keeps the layer's output; every floating-point tensor of it is latent."""
        self.value = detached_copy(output)
        self.positions = _nested.floating(output)

    def capture_input(self, values: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        """Keeps the layer's input; keyword arguments are latent only without positional ones."""
        self.value = detached_copy(values)
        args, _ = values
        found = _nested.floating(args) or _nested.floating(values)
        tensors = tuple(_nested.tensors(values))
        latent = [i for i in found if not _nested.is_additive_mask(tensors[i])]
        self.positions = tuple(
            i for i in latent if not _nested.is_open_mask(tensors[i], tensors[latent[0]])
        )


class Recorder:
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
        keep_all: bool = False,
    ) -> None:
        """Prepares a trace for each layer."""
        self.traces = [LayerTrace(layer, at_input=at_input) for layer in layers]
        self._forward_func = forward_func
        self._keep_all = keep_all
        self._owners: dict[nn.Module, bool] = {}
        self._open: list[_OpenCall] = []
        self._ended: list[list[Call]] = [[]]  # calls that ended, for each open call around them

    def run(self, args: tuple[Any, ...]) -> Any:  # noqa: ANN401
        """Runs the model on ``args`` and returns its output.

        Raises:
            ValueError: if a layer does not fire once, or the model runs under DataParallel.
        """
        owner = getattr(self._forward_func, "__self__", self._forward_func)
        if isinstance(owner, nn.DataParallel):
            _refuse_data_parallel(owner)
        with ExitStack() as stack:
            stack.enter_context(as_written())
            stack.enter_context(watch_calls(self._start, self._finish))
            for trace in self.traces:
                if trace.at_input:
                    stack.enter_context(edit_input(trace.layer, trace.capture_input))
                else:
                    stack.enter_context(edit_output(trace.layer, trace.capture_output))
            output = self._forward_func(*args)
        for trace in self.traces:
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
        warn_if_training(module)
        for trace in self.traces:
            if trace.layer is module:
                trace.firings += 1
                trace.before = [call for calls in self._ended for call in calls]
        self._open.append(_OpenCall(module, tuple(_nested.tensors(args))))
        self._ended.append([])

    def _finish(self, module: nn.Module, output: Any) -> None:  # noqa: ANN401
        call = self._open.pop()
        self._ended.pop()
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


class _OpenCall:
    """A call that has begun; remembers its arguments to see what becomes of them."""

    def __init__(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        self.module = module
        self._given = given
        self._versions = [tensor._version for tensor in given]

    def end(self, output: Any) -> Call:  # noqa: ANN401
        positions = {id(tensor): i for i, tensor in enumerate(self._given)}
        return Call(
            module=self.module,
            output=detached_copy(output),
            aliases={
                i: positions[id(tensor)]
                for i, tensor in enumerate(_nested.tensors(output))
                if id(tensor) in positions
            },
            changed={
                i: tensor.detach().clone()
                for i, (tensor, version) in enumerate(zip(self._given, self._versions, strict=True))
                if tensor._version != version
            },
        )


def detached_copy(value: Any) -> Any:  # noqa: ANN401
    """Detaches and copies every tensor, so that later in-place operations do not reach it."""
    return _nested.map_tensors(lambda tensor: tensor.detach().clone(), value)


def _refuse_data_parallel(module: nn.DataParallel[nn.Module]) -> None:
    if len(module.device_ids) > 1:
        raise ValueError(
            f"`forward_func` runs under DataParallel on devices {module.device_ids}, whose replicas"
            " cannot be split at a layer; pass the model itself, `parallel.module`"
        )


def warn_if_training(module: nn.Module) -> None:
    """Warns of a module whose training mode makes the model's output random."""
    random = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
    if module.training and (random or isinstance(module, nn.modules.batchnorm._BatchNorm)):
        warnings.warn(
            f"{type(module).__name__} is in training mode, so the model does not repeat its output;"
            " call model.eval() first",
            stacklevel=2,
        )


@contextmanager
def as_written() -> Iterator[None]:
    """Runs modules as their Python code says, each through its own call.

    Compiled code and PyTorch's fused inference path of transformer layers skip the calls of the
    modules inside.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fused)
        torch.backends.mha.set_fastpath_enabled(False)
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message="Using `torch.compile")
        yield
