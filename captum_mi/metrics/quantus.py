"""The confidence metrics as Quantus metrics; the only place that imports Quantus."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

try:
    from quantus.helpers.enums import (
        DataType,
        EvaluationCategory,
        ModelType,
        ScoreDirection,
    )
    from quantus.helpers.model.model_interface import ModelInterface
    from quantus.metrics.base import Metric
except ImportError as error:
    raise ImportError(
        "the Quantus metrics need quantus (pip install quantus); confidence_drop and"
        f" confidence_increase do not ({error})"
    ) from error

from captum_mi.maps import min_max
from captum_mi.metrics.confidence import Confidence, confidence
from captum_mi.models.embedded_text import EmbeddedText

if TYPE_CHECKING:
    from numpy.typing import NDArray


SETTINGS = {
    "normalise_func_kwargs": None,
    "return_aggregate": False,
    "aggregate_func": np.mean,
    "default_plot_func": None,
    "disable_warnings": True,
    "display_progressbar": False,
}
"""What Quantus' ``Metric`` must be given, unless the user gives it."""
CALL_SETTINGS = {
    "channel_first": True,
    "explain_func": None,
    "explain_func_kwargs": None,
    "model_predict_kwargs": None,
    "softmax": False,
}
"""The same of its call."""


class _ConfidenceMetric(Metric):
    """A metric of the score before and after multiplying the input by its map."""

    data_applicability: ClassVar = {DataType.IMAGE, DataType.TEXT, DataType.TABULAR}
    model_applicability: ClassVar = {ModelType.TORCH}
    evaluation_category = EvaluationCategory.FAITHFULNESS

    def __init__(
        self,
        *,
        abs: bool = False,
        normalise: bool = True,
        normalise_func: Callable[..., NDArray[Any]] | None = None,
        **options: Any,
    ) -> None:
        """Stores how the maps are prepared.

        Args:
            abs: take the magnitude of the attributions, summed over their channels.
            normalise: scale each sample's map to [0, 1], whatever the batch.
            normalise_func: another way to do that to (B, 1, ...); it must give values in [0, 1].
            **options: the other arguments of every Quantus metric; see Quantus' ``Metric``.
        """
        # Quantus would normalize before it takes the magnitude, and every channel by itself.
        super().__init__(
            abs=False,
            normalise=False,
            normalise_func=normalise_func or normalize_by_sample,
            **{**SETTINGS, **options},
        )
        self.magnitude = abs
        self.scaled = normalise

    def __call__(
        self,
        model: nn.Module,
        x_batch: NDArray[Any],
        y_batch: NDArray[Any],
        a_batch: NDArray[Any] | None = None,
        s_batch: NDArray[Any] | None = None,
        **options: Any,
    ) -> list[float]:
        """Scores a batch.

        Args:
            model: the model; an ``EmbeddedText`` for texts.
            x_batch: (B, C, H, W) images, (B, D, T) token embeddings or (B, F) features.
            y_batch: (B,) index of each row's output.
            a_batch: (B, 1, H, W), (B, 1, T) or (B, F) attributions; None explains with
                ``explain_func``, such as ``captum_mi.metrics.explain``.
            s_batch: not used.
            **options: the other arguments of every Quantus metric's call, such as ``softmax`` to
                score probabilities, or ``batch_size``, on which the scores do not depend.

        Returns:
            one score per sample, or their aggregate.

        Raises:
            TypeError: if the batch is made of tensors, which Quantus does not cut in batches.
        """
        for name, batch in {"x_batch": x_batch, "y_batch": y_batch, "a_batch": a_batch}.items():
            if isinstance(batch, Tensor):
                raise TypeError(f"`{name}` must be a numpy array, got a tensor; use .cpu().numpy()")
        scores: list[float] = super().__call__(
            model, x_batch, y_batch, a_batch, s_batch, **{**CALL_SETTINGS, **options}
        )
        return scores

    def evaluate_batch(
        self,
        model: ModelInterface,
        x_batch: NDArray[Any],
        y_batch: NDArray[Any],
        a_batch: NDArray[Any],
        **_: Any,
    ) -> list[float]:
        """Scores the rows of a batch."""
        x = torch.as_tensor(x_batch, dtype=torch.float32)
        maps = torch.as_tensor(a_batch, dtype=torch.float32)
        if x.ndim > 2:
            maps = maps.sum(1, keepdim=True)
        if self.magnitude:
            maps = maps.abs()
        if self.scaled:
            maps = torch.as_tensor(self.normalise_func(maps.numpy()), dtype=torch.float32)
        module = model.get_model()
        if isinstance(module, EmbeddedText):
            embeddings = x.to(module.embeddings.device)
            maps = module.masks(embeddings, maps.to(embeddings), normalize=self.scaled).cpu()
        rows = np.arange(len(x_batch)), np.asarray(y_batch)

        def score(inputs: Tensor) -> Tensor:
            return torch.as_tensor(model.predict(inputs.numpy())[rows])

        return self.value(confidence(score, x, maps)).tolist()

    @abstractmethod
    def value(self, found: Confidence) -> Tensor:
        """Returns the metric of each row, (B,)."""


class ConfidenceDrop(_ConfidenceMetric):
    """Confidence drop: what the score loses where only what the map shows remains.

    Hundred times max(0, Y - O), with Y the score of the input and O that of the input times its
    map, which is scaled to [0, 1] sample by sample. Lower is better; 0 is best. Of texts the words'
    embeddings are multiplied, position by position, the special tokens stay.

    Args:
        relative: percent of Y, as in Grad-CAM++; Y must be positive, so call the metric with
            ``softmax=True`` (in ``quantus.evaluate``:
            ``call_kwargs={"run": {"softmax": True, ...}}``), where the model returns logits.
        **options: the arguments of every Quantus metric; see Quantus' ``Metric``.

    Source: Zhu et al., ICLR 2025; Wang et al., NeurIPS 2023; relative: Chattopadhay et al., WACV
    2018.
    """

    name = "Confidence Drop"
    score_direction = ScoreDirection.LOWER

    # Quantus' ``interpret_scores`` shows the second sentence of the constructor's docstring.
    def __init__(self, *, relative: bool = False, **options: Any) -> None:
        """Measures confidence drop. Lower scores are better, 0 means that nothing was lost.

        Args:
            relative: percent of the score instead of hundred times its units.
            **options: the arguments of every Quantus metric.
        """
        super().__init__(**options)
        self.relative = relative

    def value(self, found: Confidence) -> Tensor:
        """Returns the drop of each row, (B,)."""
        return found.drop(relative=self.relative)


class ConfidenceIncrease(_ConfidenceMetric):
    """Confidence increase: 100 if the score rises where only what the map shows remains.

    100 if O > Y, else 0, with Y the score of the input and O that of the input times its map,
    which is scaled to [0, 1] sample by sample. Higher is better; the mean is a share in percent.

    Args:
        **options: the arguments of every Quantus metric; see Quantus' ``Metric``.

    Source: Chattopadhay et al., "Grad-CAM++", WACV 2018.
    """

    name = "Confidence Increase"
    score_direction = ScoreDirection.HIGHER

    def __init__(self, **options: Any) -> None:
        """Measures confidence increase. Higher scores are better, the mean is a share in percent.

        Args:
            **options: the arguments of every Quantus metric.
        """
        super().__init__(**options)

    def value(self, found: Confidence) -> Tensor:
        """Returns the increase of each row, (B,)."""
        return found.increase()


def normalize_by_sample(attributions: NDArray[Any]) -> NDArray[Any]:
    """Scales each sample of a batch to [0, 1]; a constant one becomes zeros."""
    scaled: NDArray[Any] = min_max(torch.as_tensor(np.asarray(attributions))).numpy()
    return scaled
