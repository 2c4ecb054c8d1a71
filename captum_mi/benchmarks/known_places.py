"""Does a decomposition meet what each place is known to share with the representation?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from captum_mi._intervention.hooks import edit_output
from captum_mi.attr import InfoNCEDecomposition, Information
from captum_mi.datasets import ColoredPlaces, GaussianPlaces, KnownPlaces
from captum_mi.estimators import Estimate

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

HELP = "does a decomposition meet the known information of each place, in nats?"
COMPONENTS = ("total", "decision", "redundant")
BATCH = 64


class Row(NamedTuple):
    """What was measured at one kind of place, and the truth, nats.

    Attributes:
        kind: name of the kind.
        component: "total", "decision" or "redundant".
        truth: I(Z; X_k), or the part of it.
        estimate: mean over the places of the kind, with its standard error over images.
    """

    kind: str
    component: str
    truth: float
    estimate: Estimate


class Shuffled(nn.Module):
    """A model whose representation belongs to the image before it in the batch."""

    def __init__(self, model: nn.Module) -> None:
        """Keeps the model; its own layers stay its own."""
        super().__init__()
        self.model = model
        self.rolled = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Returns the model's logits; what ``rolled`` returns is Z of the image before."""
        found: list[Tensor] = []
        with edit_output(self.model.get_submodule("pool"), found.append):
            logits: Tensor = self.model(images)
        self.rolled(found[0].roll(1, 0))
        return logits


def measure(
    places: KnownPlaces,
    held_out: KnownPlaces,
    *,
    epochs: int,
    shuffled: bool = False,
    **options: Any,
) -> tuple[list[Row], Information, float]:
    """Fits a decomposition, and compares what it finds on other images with the truth.

    Args:
        places: images to fit on.
        held_out: the same places, other images.
        epochs: of the fit.
        shuffled: pair each image with the representation of another; the truth is 0.
        **options: of the constructor.

    Returns:
        a row for each kind and component, the whole, and the seconds of the fit.
    """
    encoder = places.encoder()
    local, pool = encoder.get_submodule("local"), encoder.get_submodule("pool")
    model = Shuffled(encoder) if shuffled else encoder
    method = InfoNCEDecomposition(model, local, getattr(model, "rolled", pool), **options)
    start = time.perf_counter()
    method.fit(DataLoader(_samples(places), BATCH), epochs)
    seconds = time.perf_counter() - start
    found = method.information(DataLoader(_samples(held_out), BATCH))
    rows = []
    for kind, chosen in kinds_of(places).items():
        for component in COMPONENTS if isinstance(places, ColoredPlaces) else COMPONENTS[:1]:
            maps = getattr(found.maps, component).flatten(1)[:, torch.from_numpy(chosen.ravel())]
            truth = getattr(places, component)[chosen]
            known = 0.0 if shuffled else float(truth.mean())
            rows.append(Row(kind, component, known, Estimate.of(maps.mean(1))))
    return rows, found, seconds


def kinds_of(places: KnownPlaces) -> dict[str, NDArray[np.bool_]]:
    """Returns which places, (h, w), are of each kind."""
    if isinstance(places, ColoredPlaces):
        return {kind: places.kinds == kind for kind in dict.fromkeys(places.kinds.ravel())}
    assert isinstance(places, GaussianPlaces)
    strengths = np.array(places.strengths)
    return {f"strength {each:g}": strengths == each for each in np.unique(strengths)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the benchmark's arguments."""
    parser.add_argument("--images", type=int, default=20_000, help="to fit on (default: 20000)")
    parser.add_argument("--held-out", type=int, default=1000, help="others (default: 1000)")
    parser.add_argument("--epochs", type=int, default=12, help="of each fit (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="of the images (default: 0)")
    parser.add_argument(
        "--only", choices=("colored", "gaussian", "shuffled"), help="one table (default: all)"
    )


def run(options: argparse.Namespace) -> None:
    """Prints a table for colored places, one for Gaussian ones and one for shuffled pairs."""
    kinds = {"colored": ColoredPlaces, "gaussian": GaussianPlaces, "shuffled": ColoredPlaces}
    print(
        f"{options.images} images, {options.held_out} held out; nats, means over places of a kind"
    )
    for name, kind in kinds.items():
        if options.only not in (None, name):
            continue
        rows, found, seconds = measure(
            kind(options.images, seed=2 * options.seed),
            kind(options.held_out, seed=2 * options.seed + 1),
            epochs=options.epochs,
            shuffled=name == "shuffled",
        )
        print(
            f"\n{name}: fitted in {seconds:.0f} s, mean mask {found.mask:.3f}, cap {found.cap:.2f}"
        )
        print("kind          component   truth   found   standard error")
        for kind_name, component, truth, estimate in rows:
            print(
                f"{kind_name:12}  {component:9}  {truth:6.3f}  {estimate.value:6.3f}"
                f"  {estimate.std_error:6.4f}",
                flush=True,
            )


def _samples(places: KnownPlaces) -> TensorDataset:
    images, labels = zip(*(places[i] for i in range(len(places))), strict=True)
    return TensorDataset(torch.stack(images), torch.tensor(labels))
