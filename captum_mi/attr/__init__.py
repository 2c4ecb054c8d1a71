"""Attribution methods, each a Captum ``Attribution``."""

from captum_mi.attr.layer_statistics import LayerStatistics
from captum_mi.attr.methods import METHODS
from captum_mi.attr.multimodal_ib import MultimodalIB
from captum_mi.attr.narrowing_ib import NarrowingIB

__all__ = ["METHODS", "LayerStatistics", "MultimodalIB", "NarrowingIB"]
