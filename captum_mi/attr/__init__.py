"""Attribution methods, each a Captum ``Attribution``."""

from captum_mi.attr.methods import METHODS
from captum_mi.attr.narrowing_ib import NarrowingIB

__all__ = ["METHODS", "NarrowingIB"]
