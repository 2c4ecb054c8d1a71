"""Places in a model where the gradient by a layer's value cannot be taken."""

from __future__ import annotations

import torch


class GradientError(ValueError):
    """The gradient by a layer's value cannot be taken where the layer runs."""


def check_gradient(layer_name: str) -> None:
    """Raises GradientError where what runs now is not differentiated as it is.

    Under ``torch.no_grad()`` it is not differentiated at all; under activation checkpointing it is
    computed again when the gradient is taken, when nothing stands in the layer's place any more.
    """
    if not torch.is_grad_enabled():
        raise GradientError(
            f"layer {layer_name} runs without gradients, under torch.no_grad() or reentrant"
            " activation checkpointing; switch that off, such as by"
            " model.gradient_checkpointing_disable(), or choose a layer behind it"
        )
    if _saved_tensors_are_hooked():
        raise GradientError(
            f"layer {layer_name} runs inside activation checkpointing (or other hooks of saved"
            " tensors), which computes it anew when the gradient is taken; switch that off, such as"
            " by model.gradient_checkpointing_disable() or model.set_grad_checkpointing(False)"
        )


def _saved_tensors_are_hooked() -> bool:
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks("refused where any are at work"):
            return False
    except RuntimeError:
        return True
