"""Reading the attention probabilities of transformer layers, with their gradients."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from captum_mi._intervention.gradient import check_gradient
from captum_mi._intervention.hooks import in_this_thread
from captum_mi._intervention.precision import at_least_single
from captum_mi._intervention.trace import AS_WRITTEN

SDPA = "sdpa"
FUSED = "scaled_dot_product_attention"
_SETTING = threading.RLock()


@contextmanager
def attention_probabilities(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the attention probabilities inside a layer, in the order in which they are used.

    While the context is open, this thread's calls of PyTorch's ``scaled_dot_product_attention``
    inside the layer are computed step by step; other threads do not see it. Hugging Face modules
    of the layer that are set to another implementation use that one meanwhile, and other threads
    that want the same wait.

    Args:
        layer: a module with attention inside, or a list of blocks (``nn.ModuleList``, a part of an
            ``nn.Sequential``), which need not run as such if its blocks do.

    Yields:
        a list that fills with tensors (B, heads, T, T), float32 for half-precision models, each
        part of the graph that leads to the model's output.

    Raises:
        ValueError: while the model runs, if the attention's gradient is wanted and it runs without
            gradients or inside activation checkpointing.
    """
    reader = _Reader(type(layer).__name__)
    enter = in_this_thread(lambda *_: reader.move(1))
    leave = in_this_thread(lambda *_: reader.move(-1))
    with _SETTING, ExitStack() as stack:
        stack.enter_context(AS_WRITTEN)
        for block in layer if isinstance(layer, (nn.ModuleList, nn.Sequential)) else [layer]:
            stack.callback(block.register_forward_pre_hook(enter).remove)
            stack.callback(block.register_forward_hook(leave, always_call=True).remove)
            stack.enter_context(_implementation(block, SDPA))
        stack.enter_context(reader)
        yield reader.found


class _Reader(TorchFunctionMode):
    """Opens the calls of attention inside a layer, in the thread that enters it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.found: list[Tensor] = []
        self._name = name
        self._depth = 0
        self._wants_gradient = torch.is_grad_enabled()

    def move(self, by: int) -> None:
        """Counts that the layer is entered (1) or left (-1)."""
        self._depth += by

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        if self._depth and func is getattr(functional, FUSED):
            func = self._read
        elif self._depth and func is functional.multi_head_attention_forward:
            # It calls the fused attention out of this mode's sight: let it call the reader.
            opened = {**func.__globals__, FUSED: self._read}
            func = FunctionType(func.__code__, opened, argdefs=func.__defaults__)
        return func(*args, **(kwargs or {}))

    def _read(self, *args: Any, **kwargs: Any) -> Tensor:
        if self._wants_gradient:
            check_gradient(self._name)
        mixed, probabilities = _attend(*args, **kwargs)
        self.found.append(probabilities)
        return mixed


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:
    """Returns what ``scaled_dot_product_attention`` does, and its probabilities."""
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (part.repeat_interleave(repeats, dim=-3) for part in (key, value))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = at_least_single(query) @ at_least_single(key).transpose(-2, -1) * scale
    if is_causal:
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~visible, -torch.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    blind = scores.isneginf().all(dim=-1, keepdim=True)
    probabilities = scores.masked_fill(blind, 0.0).softmax(dim=-1).masked_fill(blind, 0.0)
    if not probabilities.requires_grad and torch.is_grad_enabled():
        probabilities.requires_grad_()
    used = functional.dropout(probabilities, dropout_p) if dropout_p else probabilities
    return used.to(value.dtype) @ value, probabilities


@contextmanager
def _implementation(module: nn.Module, name: str) -> Iterator[None]:
    """Sets the attention implementation of a Hugging Face module, where it has one."""
    previous = {
        id(config): (config, config._attn_implementation)
        for inner in module.modules()
        if (config := getattr(inner, "config", None)) is not None
        and hasattr(config, "_attn_implementation")
    }
    with ExitStack() as stack:
        # A model's setting changes its towers': theirs come back after it.
        for config, own in reversed(previous.values()):
            stack.callback(setattr, config, "_attn_implementation", own)
        for config, own in previous.values():
            if own != name:
                config._attn_implementation = name
        yield
