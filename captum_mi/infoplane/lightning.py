"""The information plane of a module that PyTorch Lightning trains; needs ``lightning``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Callback  # of either package, `lightning` or `pytorch-lightning`

from captum_mi.infoplane.training import check_trained

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer
    from torch import Tensor

    from captum_mi.infoplane.recorder import InformationPlane


class InformationPlaneCallback(Callback):
    """Records a plane before training, as epoch 0, and behind each epoch, as 1, 2, ...

    The loss is the mean of what ``training_step`` returned in the epoch. Process zero alone
    records, of samples of its own, in distributed training.

    Args:
        plane: of the module that is trained, or of a part of it.
        x: as in :meth:`InformationPlane.record`.
        y: likewise.

    Raises:
        ValueError: when training starts, if the plane's model is no part of the module.

    Example:
        >>> from captum_mi.infoplane import InformationPlane
        >>> model = nn.Sequential(nn.Linear(8, 6), nn.Tanh())  # usually a LightningModule
        >>> x, y = torch.randn(200, 8), torch.randint(2, (200,))
        >>> callback = InformationPlaneCallback(InformationPlane(model, ["0", "1"]), x, y)
        >>> # Trainer(max_epochs=9, callbacks=[callback]).fit(...), then callback.plane.frame()
    """

    def __init__(
        self,
        plane: InformationPlane,
        x: Tensor | Iterable[Any],
        y: Tensor | Sequence[Any] | None = None,
    ) -> None:
        """Stores the arguments."""
        self.plane = plane
        self.data = x, y
        self._losses: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records the module as it is before training."""
        check_trained(self.plane, pl_module)
        self._record(trainer, trainer.current_epoch)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        *_: object,
    ) -> None:
        """Notes the loss."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:
            self._losses.append(loss.detach() * trainer.accumulate_grad_batches)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records the epoch."""
        self._record(trainer, trainer.current_epoch + 1)

    def _record(self, trainer: Trainer, epoch: int) -> None:
        loss = fmean(map(float, self._losses)) if self._losses else math.nan
        self._losses.clear()
        if trainer.is_global_zero:
            self.plane.record(*self.data, epoch=epoch, loss=loss)
