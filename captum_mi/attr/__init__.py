"""Attribution methods, each a Captum ``Attribution``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captum_mi._lazy import load_from
from captum_mi.attr.methods import METHODS

if TYPE_CHECKING:
    from captum_mi.attr.attention_saliency import AttentionSaliency
    from captum_mi.attr.decomposition import Decomposition, Information
    from captum_mi.attr.fast_ig import FastIG
    from captum_mi.attr.generic_attention import GenericAttention
    from captum_mi.attr.infonce import InfoNCEDecomposition
    from captum_mi.attr.layer_statistics import LayerStatistics
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
    "Decomposition",
    "FastIG",
    "GenericAttention",
    "InfoNCEDecomposition",
    "Information",
    "LayerRISE",
    "LayerStatistics",
    "MultimodalIB",
    "NarrowingIB",
    "TokenGradCam",
]

__getattr__ = load_from(
    __name__,
    {
        "MFABA": "mfaba",
        "RISE": "rise",
        "AttentionSaliency": "attention_saliency",
        "Decomposition": "decomposition",
        "FastIG": "fast_ig",
        "GenericAttention": "generic_attention",
        "InfoNCEDecomposition": "infonce",
        "Information": "decomposition",
        "LayerRISE": "rise",
        "LayerStatistics": "layer_statistics",
        "MultimodalIB": "multimodal_ib",
        "NarrowingIB": "narrowing_ib",
        "TokenGradCam": "token_grad_cam",
    },
)


def __dir__() -> list[str]:
    """Lists the public names, also those that are not loaded yet."""
    return sorted({*globals(), *__all__})
