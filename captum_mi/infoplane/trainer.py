"""The information plane of a model that the Hugging Face Trainer trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from captum_mi.infoplane.training import check_trained

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from captum_mi.infoplane.recorder import InformationPlane


class InformationPlaneCallback(TrainerCallback):
    """Records a plane before training, as epoch 0, and behind each epoch, as 1, 2, ...

    The loss is the one that the trainer logs at the end of the epoch, which it is asked to do: the
    mean since the log before, hence of the epoch if it logs once in an epoch. Process zero alone
    records, of samples of its own, in distributed training.

    Args:
        plane: of the model that is trained, or of a part of it.
        x: as in :meth:`InformationPlane.record`; such as a loader of mappings with ``labels``.
        y: likewise.

    Raises:
        ValueError: when training starts, if the plane's model is no part of the trainer's.

    Example:
        >>> from captum_mi.infoplane import InformationPlane
        >>> model = nn.Sequential(nn.Linear(8, 6), nn.Tanh())  # usually a PreTrainedModel
        >>> x, y = torch.randn(200, 8), torch.randint(2, (200,))
        >>> callback = InformationPlaneCallback(InformationPlane(model, ["0", "1"]), x, y)
        >>> # Trainer(model, arguments, ..., callbacks=[callback]).train()
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

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        **_: object,
    ) -> None:
        """Records the model as it is before training."""
        check_trained(self.plane, model)
        if state.is_world_process_zero and _is_whole(state.epoch or 0):
            self.plane.record(*self.data, epoch=round(state.epoch or 0))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Asks for a log at the end of an epoch."""
        control.should_log = control.should_log or _is_whole(state.epoch)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float],
        **_: object,
    ) -> None:
        """Records the epoch that ends with this log."""
        if "loss" in logs and state.is_world_process_zero and _is_whole(state.epoch):
            self.plane.record(*self.data, epoch=round(state.epoch), loss=logs["loss"])


def _is_whole(epoch: float) -> bool:
    return abs(epoch - round(epoch)) < 1e-9
