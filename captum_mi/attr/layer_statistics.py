"""Mean and deviation of every element of a layer, over a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_mi._intervention import nested
from captum_mi._intervention.hooks import layer_value
from captum_mi._intervention.trace import warn_if_training


@dataclass(frozen=True)
class LayerStatistics:
    """Statistics of a layer, element by element: a noise bottleneck's prior, or a path's start.

    Attributes:
        mean: the layer's shape without the batch.
        std: the same shape, with n - 1.
        active: the same shape, share of the samples in which the element is not zero.
        count: number of samples.

    Source: Schulz et al., "Restricting the Flow", ICLR 2020, section 3.2.

    Example:
        >>> loader = [torch.randn(8, 3) for _ in range(4)]
        >>> LayerStatistics.fit(nn.Sequential(nn.Linear(3, 2)), "0", loader).count
        32
    """

    mean: Tensor
    std: Tensor
    active: Tensor
    count: int

    @classmethod
    def fit(
        cls,
        model: Callable[..., object],
        layer: nn.Module | str,
        loader: Iterable[object],
        *,
        attribute_to_layer_input: bool = False,
    ) -> LayerStatistics:
        """Runs the model up to the layer on all batches, and merges their moments.

        Args:
            model: the model, in evaluation mode.
            layer: the layer, or its dotted name in the model.
            loader: batches: the input tensor, a sequence that begins with it (labels are ignored),
                or a mapping of keyword arguments.
            attribute_to_layer_input: fit the layer's input instead of its output.

        Returns:
            the statistics, float32, on the layer's device.

        Warns:
            UserWarning: if the model is in training mode.

        Raises:
            ValueError: if there are fewer than two samples, the layer has not one tensor, or a NaN
                turns up.
        """
        module = (
            model.get_submodule(layer)  # type: ignore[attr-defined]
            if isinstance(layer, str)
            else layer
        )
        owner = getattr(model, "__self__", model)
        for inner in (owner if isinstance(owner, nn.Module) else module).modules():
            warn_if_training(inner, model)
        moments = Moments()
        for batch in tqdm(loader, desc="layer statistics", leave=False, delay=2):
            moments.add(layer_values(model, module, batch, at_input=attribute_to_layer_input))
        if moments.count < 2:
            raise ValueError(f"`loader` must hold at least two samples, got {moments.count}")
        return moments.statistics()

    def save(self, path: str | Path) -> None:
        """Writes the statistics as safetensors."""
        from safetensors.torch import save_file

        tensors = {"mean": self.mean, "std": self.std, "active": self.active}
        contiguous = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, path, metadata={"count": str(self.count)})

    @classmethod
    def load(cls, path: str | Path) -> LayerStatistics:
        """Reads what :meth:`save` wrote."""
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in ("mean", "std", "active")}
            return cls(**tensors, count=int(file.metadata()["count"]))


class Moments:
    """Moments of samples that come in batches, merged as they come.

    Attributes:
        count: number of samples.

    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
    sample variances", 1979.
    """

    def __init__(self) -> None:
        """Begins with no sample."""
        self.count = 0
        self._mean = self._squares = self._active = torch.zeros(())

    def add(self, values: Tensor) -> None:
        """Adds a batch of samples, (B, ...)."""
        added, mean = len(values), values.mean(0)
        if self.count == 0:
            self._mean, self._squares, self._active = (torch.zeros_like(mean) for _ in range(3))
        shift = mean - self._mean
        self.count += added
        self._mean = self._mean + shift * (added / self.count)
        self._squares = self._squares + (values - mean).square().sum(0)
        self._squares += shift.square() * (added * (self.count - added) / self.count)
        self._active = self._active + (values != 0).sum(0)

    def statistics(self) -> LayerStatistics:
        """Returns the statistics of two samples or more, float32."""
        return LayerStatistics(
            mean=self._mean.float(),
            std=(self._squares / (self.count - 1)).sqrt().float(),
            active=(self._active / self.count).float(),
            count=self.count,
        )


@torch.no_grad()
def layer_values(
    model: Callable[..., object], layer: nn.Module, batch: object, *, at_input: bool = False
) -> Tensor:
    """Returns a layer's output, or its input, for a batch, (B, ...), in double precision.

    Raises:
        ValueError: if the layer does not fire, has not one tensor, or a NaN turns up.
    """
    if isinstance(batch, Mapping):
        value = layer_value(lambda: model(**batch), layer, at_input=at_input)
    else:
        inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
        value = layer_value(lambda: model(inputs), layer, at_input=at_input)
    latents = nested.take(value, nested.floating(value))
    if len(latents) != 1:
        takes = "take" if at_input else "return"
        raise ValueError(
            f"`layer` must {takes} one floating-point tensor, {type(layer).__name__} {takes}s"
            f" {len(latents)}"
        )
    if not latents[0].isfinite().all():
        raise ValueError(f"layer {type(layer).__name__} holds NaN or infinity for these inputs")
    return latents[0].double()
