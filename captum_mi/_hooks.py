"""Watching, replacing and skipping module calls; context managers that leave nothing behind."""

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


@contextmanager
def watch_calls(
    start: Callable[[nn.Module, tuple[Any, ...]], None],
    finish: Callable[[nn.Module, Any], None],
) -> Iterator[None]:
    """Reports this thread's module calls: ``start(module, args)``, ``finish(module, output)``.

    ``output`` is what the module's ``forward`` returned, before any hook of its own changed it.
    """
    thread = threading.get_ident()

    def on_start(module: nn.Module, args: tuple[Any, ...]) -> None:
        if threading.get_ident() == thread:
            start(module, args)

    def on_finish(module: nn.Module, _args: object, output: object) -> None:
        if threading.get_ident() == thread:
            finish(module, output)

    with ExitStack() as stack:
        stack.callback(register_module_forward_pre_hook(on_start).remove)
        stack.callback(register_module_forward_hook(on_finish).remove)
        yield


@contextmanager
def edit_output(layer: nn.Module, edit: Callable[[Any], Any]) -> Iterator[None]:
    """Passes the layer's output, as its own hooks left it, through ``edit``; None keeps it."""
    handle = layer.register_forward_hook(lambda _module, _args, output: edit(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def edit_input(layer: nn.Module, edit: Callable[[Values], Values | None]) -> Iterator[None]:
    """Passes the layer's ``(args, kwargs)``, after its own hooks, through ``edit``; None keeps."""
    handle = layer.register_forward_pre_hook(
        lambda _module, args, kwargs: edit((args, kwargs)), with_kwargs=True
    )
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def override_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replaces the module's ``forward``; the module's hooks still run around the replacement."""
    patched = "forward" in vars(module)
    previous = module.forward
    module.forward = forward
    try:
        yield
    finally:
        if patched:
            module.forward = previous
        else:
            del module.forward


class _LayerReached(Exception):  # noqa: N818
    """Ends a forward pass that is not needed any further."""


def layer_value(run: Callable[[], object], layer: nn.Module) -> Any:  # noqa: ANN401
    """Returns the layer's first output in a forward pass, which ends there.

    Raises:
        ValueError: if the layer does not fire.
    """
    values: list[Any] = []

    def stop(output: Any) -> None:  # noqa: ANN401
        values.append(output)
        raise _LayerReached

    with edit_output(layer, stop), suppress(_LayerReached):
        run()
    if not values:
        raise ValueError(f"layer {type(layer).__name__} did not fire; is it part of this model?")
    return values[0]
