"""Attribution methods, each a Captum ``Attribution``."""

from captum_mi.attr.attention_saliency import AttentionSaliency
from captum_mi.attr.fast_ig import FastIG
from captum_mi.attr.generic_attention import GenericAttention
from captum_mi.attr.layer_statistics import LayerStatistics
from captum_mi.attr.methods import METHODS
from captum_mi.attr.mfaba import MFABA
from captum_mi.attr.multimodal_ib import MultimodalIB
from captum_mi.attr.narrowing_ib import NarrowingIB
from captum_mi.attr.rise import RISE, LayerRISE
from captum_mi.attr.token_grad_cam import TokenGradCam

__all__ = [
    "METHODS",
    "MFABA",
    "RISE",
    "AttentionSaliency",
    "FastIG",
    "GenericAttention",
    "LayerRISE",
    "LayerStatistics",
    "MultimodalIB",
    "NarrowingIB",
    "TokenGradCam",
]
