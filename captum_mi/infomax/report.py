"""How frozen encoders are judged, and the table that compares them."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from captum_mi.infomax.decoder import fit_decoder, reconstruction
from captum_mi.infomax.dependency import distance_to_uniform, neural_dependency
from captum_mi.infomax.encoders import read_layers
from captum_mi.infomax.probes import PROBES, probe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from captum_mi.estimators import MutualInformationEstimator

    Labeled = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Row:
    """What is measured of one encoder, on images that it was not trained on.

    Attributes:
        name: of the encoder.
        accuracy: by layer and by probe, the share of images classified rightly.
        information: nats, what the code tells of the image, with its standard error; None if it was
            not estimated, or the estimator refused.
        squared_error: of the decoder's images, mean over pixels.
        ms_ssim: multi-scale structural similarity of the decoder's images, NaN for small ones.
        dependency: nats, the neural dependency measure of the code, with its standard error.
        distance: Kolmogorov-Smirnov distance of the code's marginals to the uniform prior.
        extra: what else is known of the training, ready for JSON.
    """

    name: str
    accuracy: Mapping[str, Mapping[str, float]]
    information: tuple[float, float] | None
    squared_error: float
    ms_ssim: float
    dependency: tuple[float, float]
    distance: float
    extra: Mapping[str, Any]

    def record(self) -> dict[str, Any]:
        """Returns the row ready for JSON."""
        return asdict(self)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Row:
        """Returns the row that a record holds."""
        return cls(**record)


def judge(
    name: str,
    encoder: nn.Module,
    layers: Sequence[str],
    train: Labeled,
    test: Labeled,
    *,
    estimator: MutualInformationEstimator | None = None,
    seed: int = 0,
    extra: Mapping[str, Any] | None = None,
) -> Row:
    """Measures an encoder, which stays as it is.

    Probes, decoder and discriminator are trained on the codes of ``train`` and judged on those of
    ``test``. The mutual information of image and code is estimated from both together.

    Args:
        name: of the row.
        encoder: of the images.
        layers: dotted names of those that probes read; the last is the code.
        train: images (N, C, H, W), in [0, 1], and labels (N,), integers from 0.
        test: others.
        estimator: of the mutual information of the pixels and the code; None for none.
        seed: of the networks that are trained.
        extra: what else belongs into the row.

    Returns:
        the row.

    Example:
        >>> from captum_mi.infomax import ConvEncoder
        >>> images, labels = torch.rand(80, 1, 8, 8), torch.arange(80) % 2
        >>> data = images[:60], labels[:60]
        >>> row = judge("random", ConvEncoder(1, 8), ["code"], data, (images[60:], labels[60:]))
        >>> row.accuracy["code"].keys()
        dict_keys(['linear', 'svm', 'network'])
    """
    seen, unseen = (read_layers(encoder, layers, images) for images, _ in (train, test))
    accuracy = {
        layer: probe(seen[layer], train[1], unseen[layer], test[1], seed) for layer in layers
    }
    codes, test_codes = seen[layers[-1]], unseen[layers[-1]]
    information = None
    if estimator is not None:
        pixels = torch.cat([train[0], test[0]]).flatten(1)
        pixels = pixels[:, (pixels != pixels[0]).any(0)]  # the border of digits tells nothing
        try:
            found = estimator.estimate(pixels, torch.cat([codes, test_codes]))
            information = found.value, found.std_error
        except ValueError as error:
            warnings.warn(f"{name}: no information of image and code: {error}", stacklevel=2)
    drawn = reconstruction(fit_decoder(codes, train[0], seed=seed), test_codes, test[0])
    dependency = neural_dependency(codes, test_codes, seed=seed)
    return Row(
        name,
        accuracy,
        information,
        drawn.squared_error,
        drawn.ms_ssim,
        (dependency.value, dependency.std_error),
        distance_to_uniform(test_codes),
        extra or {},
    )


def table(rows: Sequence[Row]) -> str:
    """Returns rows, of encoders with the same layers, as a table to print.

    Accuracies are in percent, informations in nats.

    Example:
        >>> accuracy = {"code": {"linear": 0.9, "svm": 0.8, "network": 0.95}}
        >>> row = Row("random", accuracy, None, 0.05, math.nan, (0.5, 0.01), 0.2, {})
        >>> print("|" + table([row]))
        |        code
                linear  svm   network  I(X;E)  L2      MS-SSIM  NDM   KS
        random  90.0    80.0  95.0     -       0.0500  -        0.50  0.200
    """
    layers = list(rows[0].accuracy)
    columns: list[list[str]] = [["", "", *(row.name for row in rows)]]
    for layer in layers:
        for number, name in enumerate(PROBES):
            cells = [f"{100 * row.accuracy[layer][name]:.1f}" for row in rows]
            columns.append(["" if number else layer, name, *cells])
    columns.append(["", "I(X;E)", *(_cell(row.information and row.information[0]) for row in rows)])
    columns.append(["", "L2", *(f"{row.squared_error:.4f}" for row in rows)])
    columns.append(["", "MS-SSIM", *(_cell(row.ms_ssim, 3) for row in rows)])
    columns.append(["", "NDM", *(_cell(row.dependency[0]) for row in rows)])
    columns.append(["", "KS", *(_cell(row.distance, 3) for row in rows)])
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in zip(*columns, strict=True)
    ]
    return "\n".join(lines)


def _cell(value: float | None, digits: int = 2) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
