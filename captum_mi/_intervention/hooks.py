"""Watching, replacing and skipping module calls; context managers that leave nothing behind.

Everything here acts on the calls of the thread that opened it: other threads see the plain model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

Values = tuple[tuple[Any, ...], dict[str, Any]]


def module_name(forward_func: Callable[..., object], layer: nn.Module) -> str:
    """Returns the layer's dotted name behind ``forward_func``, and its class, for messages."""
    owner = getattr(forward_func, "__self__", forward_func)
    if isinstance(owner, nn.Module):
        for name, module in owner.named_modules():
            if module is layer and name:
                return f"{name!r} ({type(layer).__name__})"
    return type(layer).__name__


def in_this_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function, doing nothing (and returning None) when another thread calls it."""
    thread = threading.get_ident()

    def guarded(*args: Any, **kwargs: Any) -> object:
        return function(*args, **kwargs) if threading.get_ident() == thread else None

    return guarded


@contextmanager
def watch_calls(
    start: Callable[[nn.Module, tuple[Any, ...]], None],
    finish: Callable[[nn.Module, Any], None],
) -> Iterator[None]:
    """Reports this thread's module calls: ``start(module, args)``, ``finish(module, output)``.

    ``output`` is what the module's ``forward`` returned, before any hook of its own changed it.
    """
    on_finish = in_this_thread(lambda module, _args, output: finish(module, output))
    with ExitStack() as stack:
        stack.callback(register_module_forward_pre_hook(in_this_thread(start)).remove)
        stack.callback(register_module_forward_hook(on_finish).remove)
        yield


@contextmanager
def edit_every_output(edit: Callable[[nn.Module, tuple[Any, ...], Any], Any]) -> Iterator[None]:
    """Passes what every module returns through ``edit(module, args, output)``; None keeps it."""
    handle = register_module_forward_hook(in_this_thread(edit))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def edit_output(
    layer: nn.Module, edit: Callable[[Any], Any], *, first: bool = False
) -> Iterator[None]:
    """Passes the layer's output through ``edit``, after its own hooks, or before; None keeps it."""
    hook = in_this_thread(lambda _module, _args, output: edit(output))
    handle = layer.register_forward_hook(hook, prepend=first)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def edit_input(
    layer: nn.Module, edit: Callable[[Values], object], *, first: bool = False
) -> Iterator[None]:
    """Passes the layer's ``(args, kwargs)`` through ``edit``, as :func:`edit_output` does."""
    hook = in_this_thread(lambda _module, args, kwargs: edit((args, kwargs)))
    handle = layer.register_forward_pre_hook(hook, prepend=first, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def override_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replaces the module's ``forward``; the module's hooks still run around the replacement.

    Args:
        module: the module.
        forward: what runs instead, called with the module's own forward and then its arguments.
    """
    thread = threading.get_ident()
    with _PATCHING:
        patch = vars(module).get("forward")
        if not isinstance(patch, _ForwardByThread):
            patch = module.forward = _ForwardByThread(module)
        outer = patch.replacements.get(thread)
        patch.replacements[thread] = forward
    try:
        yield
    finally:
        with _PATCHING:
            del patch.replacements[thread]
            if outer is not None:
                patch.replacements[thread] = outer
            if not patch.replacements:
                patch.remove(module)


_PATCHING = threading.Lock()


class _ForwardByThread:
    """Stands for a module's ``forward``, and runs the replacement of the thread that calls."""

    def __init__(self, module: nn.Module) -> None:
        self.own = module.forward
        self.of_the_instance = "forward" in vars(module)
        self.replacements: dict[int, Callable[..., Any]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> object:
        replacement = self.replacements.get(threading.get_ident())
        if replacement is None:
            return self.own(*args, **kwargs)
        return replacement(self.own, *args, **kwargs)

    def remove(self, module: nn.Module) -> None:
        if self.of_the_instance:
            module.forward = self.own
        else:
            del module.forward


class _LayerReachedError(Exception):
    """Ends a forward pass that is not needed any further."""


def layer_value(run: Callable[[], object], layer: nn.Module, *, at_input: bool = False) -> object:
    """Returns the layer's first output, or its ``(args, kwargs)``, in a pass that ends there.

    Raises:
        ValueError: if the layer does not fire.
    """
    values: list[object] = []

    def stop(value: object) -> None:
        values.append(value)
        raise _LayerReachedError

    edit = edit_input if at_input else edit_output
    with edit(layer, stop), suppress(_LayerReachedError):
        run()
    if not values:
        raise ValueError(f"layer {type(layer).__name__} did not fire; is it part of this model?")
    return values[0]
