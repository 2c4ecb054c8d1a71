"""Codes of the outputs of layers, batch by batch: never all outputs at once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from captum_mi._intervention import nested
from captum_mi._intervention.hooks import edit_output
from captum_mi.estimators.compression import PCA
from captum_mi.estimators.compression_bounds import pca_gap
from captum_mi.infoplane.noise import noises

if TYPE_CHECKING:
    from captum_mi.estimators.compression import Compressor

    Labels: TypeAlias = np.ndarray[Any, Any]

Batches = Callable[[], Iterable[tuple[Any, Any]]]
Take = Callable[[Tensor], None]


class Codes(NamedTuple):
    """Codes of all samples.

    Attributes:
        inputs: (N, n).
        layers: name -> (N, n); fewer columns where a layer has no more of any variance, and one of
            NaN where its outputs are not finite.
        targets: (N,) or (N, ...).
        kept: name -> share of the layer's variance in its code; NaN if it is not known.
        hidden: name -> nats that the code can hide; NaN if nothing limits it.
    """

    inputs: Tensor
    layers: dict[str, Tensor]
    targets: Labels
    kept: dict[str, float]
    hidden: dict[str, float]


class Code:
    """The code of one variable, whose compressor learns from batches as they come."""

    def __init__(self, compressor: Compressor | None) -> None:
        """Copies a compressor that is not fitted yet."""
        self._given = compressor is not None and compressor.fitted
        self.compressor = compressor if self._given else copy.deepcopy(compressor)
        self._finite = True
        self._features = 0
        self._whole: list[Tensor] = []
        self._parts: list[Tensor] = []

    @property
    def learns(self) -> bool:
        """Whether it is to see the batches before it codes them."""
        return self.compressor is not None and not self._given

    def see(self, batch: Tensor) -> None:
        """Learns from a batch, (B, ...)."""
        self._finite = self._finite and bool(batch.isfinite().all())
        if not self._finite or not self.learns or self.compressor is None:
            return
        if batch[0].numel() <= self.compressor.n:
            self.compressor = PCA(self.compressor.n)  # keeps all that there is
        if isinstance(self.compressor, PCA):
            self.compressor.partial_fit(batch)
        else:
            self._whole.append(batch.to("cpu", copy=True))

    def end(self) -> None:
        """Learns what is learned from all batches together."""
        if self._whole and self._finite and self.compressor is not None:
            self.compressor.fit(torch.cat(self._whole))
        self._whole.clear()

    def add(self, batch: Tensor) -> None:
        """Keeps the code of a batch, (B, ...)."""
        self._features = batch[0].numel()
        self._finite = self._finite and bool(batch.isfinite().all())
        if not self._finite:
            self._parts.append(torch.full((len(batch), 1), math.nan, dtype=torch.float64))
        elif self.compressor is None:
            self._parts.append(batch.flatten(1).to("cpu", torch.float64, copy=True))
        else:
            self._parts.append(self.compressor.transform(batch).cpu())

    @property
    def values(self) -> Tensor:
        """Codes of all batches, (N, n); a column of NaN if something was not finite."""
        parts = self._parts if self._finite else [part[:, :1] * math.nan for part in self._parts]
        return torch.cat(parts)

    def left_out(self, noise: float) -> tuple[float, float]:
        """Returns the share of the variance that is kept, and the nats that may be hidden.

        Args:
            noise: deviation of what was added to each feature, independent of all else.
        """
        codes = self.values
        directions = self._features - codes.shape[1]
        if not directions:
            return 1.0, 0.0
        if not (self.learns and self._finite and isinstance(self.compressor, PCA)):
            return math.nan, math.nan
        variance = self.compressor.total_variance
        varies = variance > 0 and codes.shape[1] > 0
        kept = min(float(codes.var(0).sum()) / variance, 1.0) if varies else 1.0
        if not noise:
            return kept, math.nan
        # Given its trace, the entropy of what is left out is largest if it is the same all around.
        signal = max((1 - kept) * variance / directions - noise**2, 0.0)
        return kept, pca_gap(np.full(directions, signal), 0, noise, noise_is_independent=True)


def collect(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    batches: Batches,
    input_code: Compressor | None,
    layer_compressor: Compressor | None,
) -> tuple[Codes, Compressor | None]:
    """Runs the model on all batches, twice where codes are to be fitted first.

    Args:
        model: the model.
        layers: by their names.
        batches: begins a new pass over inputs and targets; the order may be another.
        input_code: of the inputs, or the first tensor of them.
        layer_compressor: of each layer; fitted anew on each.

    Returns:
        the codes, and the code of the inputs, fitted.

    Raises:
        ValueError: if a layer does not fire once, or gives no row for each input.
    """
    of_inputs = Code(input_code)
    codes = {name: Code(layer_compressor) for name in layers}
    if any(code.learns for code in (of_inputs, *codes.values())):
        see = {name: (layers[name], code.see) for name, code in codes.items()}
        _run(model, see, batches, of_inputs.see)
        for code in (of_inputs, *codes.values()):
            code.end()
    add = {name: (layers[name], code.add) for name, code in codes.items()}
    targets = _run(model, add, batches, of_inputs.add)
    left_out = {
        name: code.left_out(math.hypot(*(noise.added for noise in noises(layers[name]))))
        for name, code in codes.items()
    }
    whole = Codes(
        of_inputs.values,
        {name: code.values for name, code in codes.items()},
        np.concatenate(targets),
        {name: kept for name, (kept, _) in left_out.items()},
        {name: hidden for name, (_, hidden) in left_out.items()},
    )
    return whole, of_inputs.compressor


def _run(
    model: nn.Module,
    layers: Mapping[str, tuple[nn.Module, Take]],
    batches: Batches,
    take_inputs: Take,
) -> list[Labels]:
    """Runs the model, hands inputs and outputs over as they come, and returns the targets."""
    found = []
    for inputs, targets in batches():
        first = next(nested.tensors(inputs))
        rows = len(first)
        if len(targets) != rows:
            raise ValueError(f"`y` must hold a target for each input, got {len(targets)} of {rows}")
        take_inputs(first)  # before the model can change it in place
        with _watching(layers, rows) as fired:
            if isinstance(inputs, Tensor):
                model(inputs)
            elif isinstance(inputs, Mapping):
                model(**inputs)
            else:
                model(*inputs)
        missing = [name for name in layers if name not in fired]
        if missing:
            raise ValueError(f"layer {missing[0]!r} did not fire; does the input reach it?")
        found.append(_as_array(targets))
    if not found:
        raise ValueError("`x` must give batches every time it is gone through, got none")
    return found


def _as_array(targets: object) -> Labels:
    if isinstance(targets, Tensor):
        targets = targets.detach().cpu()
        return (targets.double() if targets.is_floating_point() else targets).numpy()
    return np.asarray(targets)


@contextmanager
def _watching(layers: Mapping[str, tuple[nn.Module, Take]], rows: int) -> Iterator[set[str]]:
    fired: set[str] = set()

    def keep(name: str, layer: nn.Module, take: Take) -> Take:
        def kept(value: object) -> None:
            if name in fired:
                raise ValueError(f"layer {name!r} fired twice in one pass, it must fire once")
            fired.add(name)
            axis = 0 if getattr(layer, "batch_first", True) else 1
            floating = nested.take(value, nested.floating(value))
            output = next((tensor for tensor in floating if tensor.ndim > axis), None)
            if output is None or output.shape[axis] != rows:
                got = "none" if output is None else f"shape {tuple(output.shape)}"
                raise ValueError(
                    f"layer {name!r} must return floating-point numbers, a row for each of {rows}"
                    f" inputs, got {got}"
                )
            output = output.detach().movedim(axis, 0)
            take(output[:, None] if output.ndim == 1 else output)

        return kept

    with ExitStack() as stack:
        for name, (layer, take) in layers.items():
            stack.enter_context(edit_output(layer, keep(name, layer, take)))
        yield fired
