"""The information plane of a network while it trains."""

from captum_mi.infoplane.noise import NoisyLayers, stochastic
from captum_mi.infoplane.phases import Phase, phases
from captum_mi.infoplane.recorder import InformationPlane
from captum_mi.infoplane.rows import Row, read_rows

__all__ = [
    "InformationPlane",
    "NoisyLayers",
    "Phase",
    "Row",
    "phases",
    "read_rows",
    "stochastic",
]
