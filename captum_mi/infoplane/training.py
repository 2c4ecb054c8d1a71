"""What callbacks of training libraries share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from captum_mi.infoplane.recorder import InformationPlane


def check_trained(plane: InformationPlane, trained: nn.Module) -> None:
    """Raises ValueError if the plane is of a model that is no part of the one that is trained."""
    if not any(module is plane.model for module in trained.modules()):
        raise ValueError(
            f"`plane` must be of the {type(trained).__name__} that is trained, or of a part of it,"
            f" got one of another {type(plane.model).__name__}"
        )
