"""Every method by its short name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from captum.attr import Attribution
from torch import nn

from captum_mi.attr.attention_saliency import AttentionSaliency
from captum_mi.attr.fast_ig import FastIG
from captum_mi.attr.generic_attention import GenericAttention
from captum_mi.attr.mfaba import MFABA
from captum_mi.attr.multimodal_ib import MultimodalIB
from captum_mi.attr.narrowing_ib import NarrowingIB
from captum_mi.attr.rise import LayerRISE
from captum_mi.attr.token_grad_cam import TokenGradCam

METHODS: dict[str, Callable[[Callable[..., Any], nn.Module], Attribution]] = {
    "nib": NarrowingIB,
    "m2ib": MultimodalIB,
    "rise": LayerRISE,
    "gradcam": TokenGradCam,
    "chefer": GenericAttention,
    "attention": AttentionSaliency,
    "mfaba": MFABA,
    "fastig": FastIG,
}
"""Short name -> factory that takes the model and the layer. ``RISE`` masks the inputs instead."""
