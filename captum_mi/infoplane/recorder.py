"""The information plane: what layers tell of the input and of the target, epoch by epoch."""

from __future__ import annotations

import math
import operator
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_mi._checks import brief, check_positive
from captum_mi._intervention import nested
from captum_mi.estimators import PCA, Estimate, WeightedKozachenkoLeonenko
from captum_mi.estimators.base import MutualInformationEstimator
from captum_mi.estimators.compression import Compressor
from captum_mi.infoplane.codes import collect
from captum_mi.infoplane.layers import named_layers
from captum_mi.infoplane.rows import Row, append_rows, read_rows, write_rows
from captum_mi.infoplane.untouched import left_as_it_is

if TYPE_CHECKING:
    from captum_mi.infoplane.codes import Labels

FOUR_COMPONENTS = PCA(4)
"""Not fitted; a copy is, for each variable."""

UNKNOWN = Estimate(math.nan, math.nan, 0)


class InformationPlane:
    r"""Records I(X; L) and I(L; Y) of layers while a model trains.

    Both are estimated between codes: of the input, fixed over the training, and of each layer's
    output, fitted anew at each record. What a code leaves out can hide information, never add any.
    Without noise in the model, I(X; L) of continuous inputs is infinite or constant, and what is
    estimated is what the codes resolve: put noise in with :func:`stochastic`.

    How much a layer's code hides of either information has a limit, ``Row.hidden``, if its features
    are kept in full (0), or if noise of one sigma is added to its output, ``stochastic(...,
    relative=False, at="output")``, and the code is principal components:

    .. math:: \frac{d - n}2 \log \frac{v}{\sigma^2}

    with v the mean variance of the d - n directions left out, at most :func:`pca_gap`. It
    needs noise that is independent of the input and of the target, which it is when it is added
    behind all that they determine. No such limit is known of relative noise, for its scale goes to
    zero with the value, nor of noise at the layer's input, which its weights may wipe out. What the
    code of the input hides of I(X; L) comes on top.

    Args:
        model: any model; it keeps its mode, weights and random numbers, so that training goes on as
            if nothing had been recorded.
        layers: modules of it, or their dotted names, each of which fires once in a pass. Of several
            outputs, the first of floating point counts; its first axis is that of samples, or its
            second where the layer has ``batch_first=False``.
        estimator: of the mutual information; by default of five weighted nearest neighbors.
        input_code: compressor of the inputs. One that is fitted, such as a trained autoencoder, is
            used as it is; one that is not is fitted at the first record. None takes the inputs as
            they are.
        layer_compressor: of the layers; of a layer of no more features, principal components keep
            all. They are followed batch by batch; another compressor gets all outputs of a layer.
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
        >>> plane = InformationPlane(model, ["1", "2"], layer_compressor=PCA(2))
        >>> [row.layer for row in plane.record(x, y, epoch=0)]
        ['1', '2']
        >>> plane.frame().shape
        (2, 10)
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
        y: Tensor | Sequence[Any] | None = None,
        *,
        epoch: int,
        loss: float = math.nan,
    ) -> list[Row]:
        """Estimates both informations of every layer, and keeps them.

        Args:
            x: inputs (N, ...); or a loader of pairs of inputs and targets, which is gone through
                twice, in any order. There, inputs may be a tuple or a mapping of what the model
                takes, whose first tensor is X; a mapping with ``labels`` is a pair too.
            y: targets, (N,) or (N, ...), with ``x`` a tensor. Whole numbers, texts and truth values
                are labels, where several of them for a sample make one; other numbers are a
                continuous variable.
            epoch: number of the epoch; one that is recorded already is left as it is.
            loss: of the training, to be shown with the path.

        Returns:
            one row for each layer. An estimate that fails, or of a layer that is not finite, is
            NaN, with a warning that says why.

        Raises:
            TypeError: if ``epoch`` is no integer.
            ValueError: if inputs and targets do not fit, or a layer does not fire once.

        Warns:
            UserWarning: if an estimate fails.
        """
        epoch = operator.index(epoch)
        known = [row for row in self.rows if row.epoch == epoch]
        if known:
            return known
        start = time.perf_counter()
        with left_as_it_is(self.model, x):
            codes, self.input_code = collect(
                self.model,
                self.layers,
                lambda: self._batches(x, y),
                self.input_code,
                self.layer_compressor,
            )
            targets = _target(codes.targets)
            rows = []
            for name, code in tqdm(codes.layers.items(), desc="plane", leave=False, delay=2):
                of_input = self._estimate(code, codes.inputs, name, "input")
                of_target = self._estimate(code, targets, name, "target")
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
                        codes.hidden[name],
                    )
                )
        self.seconds = time.perf_counter() - start
        if self.path is not None:
            append_rows(self.path, rows)
        self.rows += rows
        return rows

    def frame(self) -> pd.DataFrame:
        """Returns the rows as a table."""
        return pd.DataFrame(self.rows, columns=list(Row._fields))

    def _estimate(self, code: Tensor, other: Tensor | Labels, name: str, of: str) -> Estimate:
        if not code.shape[1]:  # a layer that says the same of all inputs
            return Estimate(0.0, 0.0, len(code))
        try:
            if code.isnan().any():
                raise ValueError("its outputs are not all finite")
            if isinstance(other, Tensor):
                return self.estimator.estimate(code, other)
            return self.estimator.estimate_discrete(code, other)
        except ValueError as error:
            warnings.warn(
                f"the information of layer {name!r} about the {of} could not be estimated: {error}",
                stacklevel=3,
            )
            return UNKNOWN

    def _batches(
        self, x: Tensor | Iterable[Any], y: Tensor | Sequence[Any] | None
    ) -> Iterator[tuple[Any, Any]]:
        device = next((weight.device for weight in self.model.parameters()), torch.device("cpu"))
        if isinstance(x, Tensor):
            if y is None or len(y) != len(x):
                raise ValueError(
                    f"`y` must hold one target for each of {len(x)} inputs, got"
                    f" {'none' if y is None else brief(y)}"
                )
            starts = range(0, len(x), self.batch_size)
            pairs: Iterable[Any] = (
                (x[start : start + self.batch_size], y[start : start + self.batch_size])
                for start in starts
            )
        elif y is not None:
            raise ValueError("`y` must be left out if `x` is a loader, which gives the targets")
        else:
            pairs = x
        for pair in pairs:
            inputs, targets = _pair(pair)
            yield nested.map_tensors(lambda tensor: tensor.to(device), inputs), targets


def _pair(batch: object) -> tuple[Any, Any]:
    if isinstance(batch, Mapping) and "labels" in batch:
        batch = {name: batch[name] for name in batch if name != "labels"}, batch["labels"]
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        inputs, targets = batch
        if next(nested.tensors(inputs), None) is not None:
            return inputs, targets
    raise ValueError(
        f"`x` must give pairs of inputs and targets, or mappings with `labels`, got {brief(batch)};"
        " or give a tensor and `y`"
    )


def _target(values: Labels) -> Tensor | Labels:
    """Returns whole numbers and texts as labels, (N,), and other numbers as a tensor, (N, d)."""
    flat = values.reshape(len(values), -1)
    if flat.dtype.kind == "f" and not (flat == flat.round()).all():
        return torch.from_numpy(flat)
    if flat.shape[1] == 1:
        return flat[:, 0]
    labels: Labels = np.unique(flat, axis=0, return_inverse=True)[1].reshape(-1)
    return labels
