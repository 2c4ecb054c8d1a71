"""The information plane: what layers tell of the input and of the target, epoch by epoch."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_mi._checks import brief, check_positive
from captum_mi.estimators import PCA, Estimate, WeightedKozachenkoLeonenko
from captum_mi.estimators.base import MutualInformationEstimator
from captum_mi.estimators.compression import Compressor
from captum_mi.infoplane.codes import collect
from captum_mi.infoplane.layers import named_layers
from captum_mi.infoplane.rows import Row, append_rows, read_rows, write_rows

FOUR_COMPONENTS = PCA(4)
"""Not fitted; a copy is, for each variable."""

UNKNOWN = Estimate(math.nan, math.nan, 0)


class InformationPlane:
    """Records I(X; L) and I(L; Y) of layers while a model trains.

    Both are estimated between codes: of the input, fixed over the training, and of each layer's
    output, fitted anew at each record. What a code leaves out can hide information, never add any.
    Without noise in the model, I(X; L) of continuous inputs is infinite or constant, and what is
    estimated is what the codes resolve: put noise in with :func:`stochastic`.

    Args:
        model: any model; it keeps its mode, weights and random numbers, so that training goes on as
            if nothing had been recorded.
        layers: modules of it, or their dotted names, each of which fires once in a pass.
        estimator: of the mutual information; by default of five weighted nearest neighbors.
        input_code: compressor of the inputs. One that is fitted, such as a trained autoencoder, is
            used as it is; one that is not is fitted at the first record. None takes the inputs as
            they are.
        layer_compressor: of the layers; a layer of no more features is taken as it is. Principal
            components are followed batch by batch; another compressor gets all outputs of a layer.
        path: CSV that rows are appended to. If it is there, its whole epochs are taken for
            recorded, and the run goes on behind them.
        batch_size: of passes over tensors.

    Attributes:
        rows: one for each epoch and layer.
        seconds: what the last record took; NaN before it.

    Raises:
        ValueError: if there are no such layers, or the file holds another plane.

    Source: Butakov et al., "Information Bottleneck Analysis of Deep Neural Networks via Lossy
    Compression", ICLR 2024, algorithm 2.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))
        >>> x, y = torch.randn(200, 8), torch.randint(2, (200,))
        >>> plane = InformationPlane(model, ["1", "2"], KSG(), layer_compressor=PCA(2))
        >>> [row.layer for row in plane.record(x, y, epoch=0)]
        ['1', '2']
        >>> plane.frame().shape
        (2, 9)
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[nn.Module | str],
        estimator: MutualInformationEstimator | None = None,
        *,
        input_code: Compressor | None = FOUR_COMPONENTS,
        layer_compressor: Compressor | None = FOUR_COMPONENTS,
        path: str | Path | None = None,
        batch_size: int = 500,
    ) -> None:
        """Reads what an earlier run left; nothing is hooked before ``record``."""
        self.model = model
        self.layers = named_layers(model, layers)
        self.estimator = estimator or WeightedKozachenkoLeonenko(5)
        self.input_code = input_code
        self.layer_compressor = layer_compressor
        self.batch_size = check_positive("batch_size", batch_size)
        self.path = None if path is None else Path(path)
        self.rows: list[Row] = []
        self.seconds = math.nan
        if self.path is not None:
            if self.path.exists():
                self.rows = read_rows(self.path, tuple(self.layers))
            write_rows(self.path, self.rows)

    def record(
        self,
        x: Tensor | Iterable[Any],
        y: Tensor | None = None,
        *,
        epoch: int,
        loss: float = math.nan,
    ) -> list[Row]:
        """Estimates both informations of every layer, and keeps them.

        Args:
            x: inputs (N, ...), or a loader of pairs of inputs and targets, which is gone through
                twice.
            y: targets, (N,) integers or other labels, or numbers (N,) or (N, d); in a loader,
                likewise.
            epoch: number of the epoch; one that is recorded already is left as it is.
            loss: of the training, to be shown with the path.

        Returns:
            one row for each layer. An estimate that fails is NaN, with a warning that says why.

        Raises:
            ValueError: if inputs and targets do not fit, or a layer does not fire once.

        Warns:
            UserWarning: if an estimate fails.
        """
        known = [row for row in self.rows if row.epoch == epoch]
        if known:
            return known
        start = time.perf_counter()
        with _left_as_it_is(self.model):
            codes, self.input_code = collect(
                self.model,
                self.layers,
                lambda: self._batches(x, y),
                self.input_code,
                self.layer_compressor,
            )
            rows = []
            for name, code in tqdm(codes.layers.items(), desc="plane", leave=False, delay=2):
                of_input = self._estimate(codes.inputs, code, name)
                of_target = self._estimate(code, codes.targets, name, to_target=True)
                rows.append(
                    Row(
                        epoch,
                        float(loss),
                        name,
                        of_input.value,
                        of_input.std_error,
                        of_target.value,
                        of_target.std_error,
                        codes.kept[name],
                        len(code),
                    )
                )
        self.seconds = time.perf_counter() - start
        self.rows += rows
        if self.path is not None:
            append_rows(self.path, rows)
        return rows

    def frame(self) -> pd.DataFrame:
        """Returns the rows as a table."""
        return pd.DataFrame(self.rows, columns=list(Row._fields))

    def _estimate(
        self, first: Tensor, second: Tensor, name: str, *, to_target: bool = False
    ) -> Estimate:
        code = first if to_target else second
        if not code.shape[1]:  # a layer that says the same of all inputs
            return Estimate(0.0, 0.0, len(code))
        discrete = to_target and not second.is_floating_point()
        try:
            if discrete:
                return self.estimator.estimate_discrete(first, second)
            return self.estimator.estimate(first, second.reshape(len(second), -1))
        except ValueError as error:
            of = "the target" if to_target else "the input"
            warnings.warn(
                f"the information of layer {name!r} about {of} could not be estimated: {error}",
                stacklevel=3,
            )
            return UNKNOWN

    def _batches(
        self, x: Tensor | Iterable[Any], y: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        device = next((weight.device for weight in self.model.parameters()), torch.device("cpu"))
        if isinstance(x, Tensor):
            if y is None or len(y) != len(x):
                raise ValueError(
                    f"`y` must hold one target for each of {len(x)} inputs, got"
                    f" {'none' if y is None else brief(y)}"
                )
            pairs: Iterable[Any] = zip(
                torch.split(x, self.batch_size), torch.split(y, self.batch_size), strict=True
            )
        else:
            pairs = x
        for pair in pairs:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise ValueError(
                    f"`x` must give pairs of inputs and targets, got {brief(pair)}; or give `y`"
                )
            inputs, targets = pair
            yield inputs.to(device), torch.as_tensor(targets)


@contextmanager
def _left_as_it_is(model: nn.Module) -> Iterator[None]:
    """Runs in evaluation mode, and brings back every module's mode and the random numbers."""
    modes = [(module, module.training) for module in model.modules()]
    devices = {weight.device for weight in model.parameters() if weight.device.type == "cuda"}
    try:
        model.eval()
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
