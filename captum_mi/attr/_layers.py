"""Explaining one layer, or each of a list of layers, from its suffix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from captum._utils.common import _format_outputs

from captum_mi._intervention.suffix import LayerSuffix, record
from captum_mi.attr._degenerate import check_finite, warn_if_degenerate
from captum_mi.attr._scores import target_scores

if TYPE_CHECKING:
    from collections.abc import Callable

    from captum._utils.typing import TargetType
    from captum.attr._utils.attribution import LayerAttribution
    from torch import Tensor


def explain_layers(
    method: LayerAttribution,
    explain: Callable[[LayerSuffix], tuple[Tensor, ...]],
    inputs: Tensor | tuple[Tensor, ...],
    target: TargetType,
    additional_forward_args: Any = None,  # noqa: ANN401
    *,
    at_input: bool = False,
) -> Any:  # noqa: ANN401
    """Records the method's layers and returns what ``explain`` makes of each, as Captum formats it.

    Raises:
        ValueError: if a layer cannot be recorded (see :func:`record`), or a result is not finite.
        AssertionError: if ``target`` does not fit the output.
    """
    several = isinstance(method.layer, list)
    layers = method.layer if several else [method.layer]
    suffixes = record(
        method.forward_func, layers, inputs, additional_forward_args, at_input=at_input
    )
    target_scores(suffixes[0].output, target)
    results = []
    for suffix in suffixes:
        with torch.inference_mode(mode=False), torch.no_grad():
            found = tuple(part.detach() for part in explain(suffix))
        check_finite(found, suffix.name)
        warn_if_degenerate(found, suffix.name)
        results.append(found)
    return _format_outputs(several, results)
