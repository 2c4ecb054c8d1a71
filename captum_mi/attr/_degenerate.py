"""Attributions that should not be believed: not finite, or all on one token."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NEGLIGIBLE = 1e-4


def check_finite(attributions: tuple[Tensor, ...], layer_name: str) -> None:
    """Raises ValueError if a gradient on the way was not finite."""
    if not all(tensor.isfinite().all() for tensor in attributions):
        raise ValueError(
            f"the gradient behind layer {layer_name} is not finite; if the model is not smooth at"
            " the start of the path, use a `method` that does not evaluate it ('riemann_right',"
            " 'gausslegendre') or other `layer_baselines`, and a half-precision model may need"
            " float32"
        )


def warn_if_degenerate(attributions: tuple[Tensor, ...], layer_name: str) -> None:
    """Warns where a layer has no influence, or only one of its tokens has.

    The second is the last block under CLS or EOS pooling: no other token reaches the output. One
    block earlier they reach it only through a scale-free LayerNorm.
    """
    if not any(tensor.any() for tensor in attributions):
        warnings.warn(
            f"every attribution of layer {layer_name} is zero: the output does not depend on it",
            stacklevel=3,
        )
        return
    for tensor in attributions:
        if tensor.ndim != 3 or tensor.shape[1] == 1:
            continue
        mass = tensor.abs().sum(-1)
        others = mass.sum(1) - mass.amax(1)
        if (others < NEGLIGIBLE * mass.sum(1)).all():
            warnings.warn(
                f"only one token of layer {layer_name} carries attribution; the others do not reach"
                " the pooled token behind this layer (the last blocks of a tower that pools one"
                " token). Choose an earlier layer",
                stacklevel=3,
            )
