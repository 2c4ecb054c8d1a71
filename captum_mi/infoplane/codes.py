"""Codes of the outputs of layers, batch by batch: never all outputs at once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from captum_mi._intervention import nested
from captum_mi._intervention.hooks import edit_output
from captum_mi.estimators.compression import PCA

if TYPE_CHECKING:
    from captum_mi.estimators.compression import Compressor

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]


class Codes(NamedTuple):
    """Codes of all samples.

    Attributes:
        inputs: (N, n).
        layers: name -> (N, n); fewer columns where a layer has no more of any variance.
        targets: (N,) or (N, ...).
        kept: name -> share of the layer's variance in its code; NaN if it is not known.
    """

    inputs: Tensor
    layers: dict[str, Tensor]
    targets: Tensor
    kept: dict[str, float]


class _Code:
    """A compressor that is fitted on batches as they come, or on all of them."""

    def __init__(self, compressor: Compressor | None) -> None:
        self._fitted = compressor is not None and compressor.fitted
        self.compressor = compressor if self._fitted else copy.deepcopy(compressor)
        self._whole: list[Tensor] = []

    @property
    def ready(self) -> bool:
        """True if it need not see the batches before it transforms them."""
        return self._fitted or self.compressor is None

    def see(self, batch: Tensor) -> None:
        if self.ready:
            return
        if isinstance(self.compressor, PCA):
            if batch.flatten(1).shape[1] <= self.compressor.n:
                self.compressor = None
                return
            self.compressor.partial_fit(batch)
        else:
            self._whole.append(batch.cpu())

    def end(self) -> None:
        if self._whole and self.compressor is not None:
            self.compressor.fit(torch.cat(self._whole))
            self._whole.clear()
        self._fitted = True

    def of(self, batch: Tensor) -> Tensor:
        if self.compressor is None:
            return batch.flatten(1).double().cpu()
        return self.compressor.transform(batch).cpu()

    @property
    def rank(self) -> int | None:
        """How many columns of the code vary by more than rounding; None if all may."""
        if not isinstance(self.compressor, PCA):
            return None
        variances = self.compressor.variances
        least = torch.finfo(torch.float32).eps * float(variances[0])
        return int((variances[: self.compressor.n] > least).sum())

    @property
    def kept(self) -> float:
        if self.compressor is None:
            return 1.0
        if not isinstance(self.compressor, PCA):
            return math.nan
        whole = self.compressor.total_variance
        kept = float(self.compressor.variances[: self.compressor.n].sum())
        return kept / whole if whole > 0 else 1.0


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
        input_code: of the inputs.
        layer_compressor: of each layer; fitted anew on each.

    Returns:
        the codes, and the code of the inputs, fitted.

    Raises:
        ValueError: if a layer does not fire once, or gives no row for each input.
    """
    codes = {name: _Code(layer_compressor) for name in layers}
    of_inputs = _Code(input_code)
    if not all(code.ready for code in (of_inputs, *codes.values())):
        for inputs, _, outputs in _passes(model, layers, batches):
            of_inputs.see(inputs)
            for name, output in outputs.items():
                codes[name].see(output)
        for code in (of_inputs, *codes.values()):
            code.end()
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    inputs_found, targets = [], []
    for inputs, target, outputs in _passes(model, layers, batches):
        inputs_found.append(of_inputs.of(inputs))
        targets.append(target.cpu())
        for name, output in outputs.items():
            found[name].append(codes[name].of(output))
    whole = {name: torch.cat(parts)[:, : codes[name].rank] for name, parts in found.items()}
    kept = {name: code.kept for name, code in codes.items()}
    return Codes(torch.cat(inputs_found), whole, torch.cat(targets), kept), of_inputs.compressor


@torch.no_grad()
def _passes(
    model: nn.Module, layers: Mapping[str, nn.Module], batches: Batches
) -> Iterator[tuple[Tensor, Tensor, dict[str, Tensor]]]:
    """Yields inputs, targets and the layers' outputs, (B, d) each, batch by batch."""
    seen = 0
    for inputs, targets in batches():
        seen += 1
        with _watching(layers, len(inputs)) as outputs:
            model(inputs)
        missing = [name for name in layers if name not in outputs]
        if missing:
            raise ValueError(f"layer {missing[0]!r} did not fire; does the input reach it?")
        yield inputs, targets, outputs
    if not seen:
        raise ValueError("`x` must give batches every time it is gone through, got none")


@contextmanager
def _watching(layers: Mapping[str, nn.Module], rows: int) -> Iterator[dict[str, Tensor]]:
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[object], None]:
        def kept(value: object) -> None:
            if name in outputs:
                raise ValueError(f"layer {name!r} fired twice in one pass, it must fire once")
            positions = nested.floating(value)
            first = nested.take(value, positions[:1])
            if not first or len(first[0]) != rows:
                raise ValueError(f"layer {name!r} must return one row for each of {rows} inputs")
            outputs[name] = first[0].detach().flatten(1).clone()

        return kept

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.enter_context(edit_output(layer, keep(name)))
        yield outputs
