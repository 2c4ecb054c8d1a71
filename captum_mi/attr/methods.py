"""Every method by its short name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from captum.attr import Attribution
from torch import nn

from captum_mi.attr.multimodal_ib import MultimodalIB
from captum_mi.attr.narrowing_ib import NarrowingIB

METHODS: dict[str, Callable[[Callable[..., Any], nn.Module], Attribution]] = {
    "nib": NarrowingIB,
    "m2ib": MultimodalIB,
}
"""Short name -> factory that takes the model and the layer."""
