"""How the networks of the decomposition are trained on a frozen model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from captum_mi._checks import brief
from captum_mi._training import Progress, minimize
from captum_mi.attr._batches import Batch, hold_out
from captum_mi.attr._local_information import Networks
from captum_mi.attr._two_layers import TwoLayers
from captum_mi.attr.layer_statistics import LayerStatistics, Moments
from captum_mi.attr.places import Places

ENOUGH_IMAGES = 64
"""Of how many held-out images the negatives are drawn, or of four times as many as it takes."""

LogLikelihood = Callable[[Tensor, Any], Tensor]


class Fitted(NamedTuple):
    """What training gives."""

    places: Places
    networks: Networks
    history: list[Progress]


def train(
    layers: TwoLayers,
    find_places: Callable[[Tensor, Tensor], Places],
    build: Callable[[Places, int], Networks],
    log_likelihood: LogLikelihood,
    loader: Iterable[object],
    validation: float | Iterable[object],
    *,
    epochs: int,
    beta: float,
    learning_rate: float,
    patience: int | None,
    n_negatives: int,
    seed: int,
    device: torch.device,
) -> Fitted:
    """Fits statistics, trains mask and critics, and keeps negatives.

    ``layers`` is the frozen model, ``find_places`` takes the layer's value and the inputs,
    ``build`` the places and the dimension of Z; the rest are arguments of ``InfoNCEDecomposition``.
    """
    generator = torch.Generator().manual_seed(seed)
    kept, held_out = hold_out(loader, validation, generator)
    with layers.refusing_training():
        places, latent, z, n_batches = _statistics(layers, find_places, kept, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = build(places, len(z.mean)).to(device)
    networks.set_statistics(places, latent, z)
    noise = torch.Generator(device)

    def objective(batch: Batch) -> Tensor:
        suffix, z = layers.split(batch.inputs)
        x = places.values(suffix.latent[0]).float()
        masks = networks.masks(x)
        draws = torch.randn(x.shape, generator=noise, device=x.device)
        masked = networks.masked(x, masks, draws)
        output = suffix(places.put(masked, networks.latent_mean))
        labels = suffix.output.argmax(-1) if batch.labels is None else batch.labels
        kept_task = _checked(log_likelihood(output, labels), len(x))
        z = networks.standardized_z(z)
        total = networks.total.in_batch(z, networks.standardized(x))
        decision = networks.decision.in_batch(z, networks.standardized(masked.detach()))
        return beta * masks.mean() - kept_task.mean() - total.mean() - decision.mean()

    def validate() -> float:
        noise.manual_seed(seed)
        errors, rows = 0.0, 0
        for batch in _batches(held_out, device):
            errors += float(objective(batch)) * len(batch.inputs)
            rows += len(batch.inputs)
        return errors / rows

    noise.manual_seed(seed + 1)
    training = _endless(kept, device)
    steps = epochs * n_batches
    optimizer = torch.optim.Adam(networks.parameters(), learning_rate)
    history = minimize(
        lambda _step: objective(next(training)),
        networks,
        optimizer,
        steps,
        schedule=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        validate=validate,
        interval=n_batches,
        patience=patience,
        title="decomposition",
    )
    networks.requires_grad_(requires_grad=False).eval()
    _keep_negatives(layers, places, networks, _batches(held_out, device), n_negatives, generator)
    return Fitted(places, networks, history)


def log_softmax_likelihood(output: Tensor, labels: object) -> Tensor:
    """Returns the log-softmax of each row of logits at its label, (B,), nats."""
    if output.ndim != 2 or output.shape[1] < 2:
        raise ValueError(
            "`log_likelihood` must be given for a model that returns"
            f" {tuple(output.shape)}: only of logits (B, C) the log-softmax is one"
        )
    if not isinstance(labels, Tensor) or labels.shape != output.shape[:1]:
        raise ValueError(
            f"`loader` must give one integer label for each of {len(output)} inputs, got"
            f" {brief(labels)}; or give `log_likelihood`, which reads what the loader gives"
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < output.shape[1]:
        raise ValueError(
            f"`loader` must give labels of 0 to {output.shape[1] - 1}, the model's classes, got"
            f" {int(labels.min())} to {int(labels.max())}; without labels the model's own decisions"
            " are taken"
        )
    return -cross_entropy(output.float(), labels.long(), reduction="none")


def _statistics(
    layers: TwoLayers,
    find_places: Callable[[Tensor, Tensor], Places],
    loader: Iterable[object],
    device: torch.device,
) -> tuple[Places, LayerStatistics, LayerStatistics, int]:
    """Returns the places, the statistics of the layer and of Z, and the number of batches."""
    local, whole, n_batches, places = Moments(), Moments(), 0, None
    for batch in tqdm(_batches(loader, device), desc="statistics", leave=False, delay=2):
        latent, z = layers.values(batch.inputs)
        places = places or find_places(latent, batch.inputs)
        check_shape(latent, places)
        local.add(latent.double())
        whole.add(z.double())
        n_batches += 1
    if places is None:
        raise ValueError("`loader` must give at least one batch to train on, got none")
    return places, local.statistics(), whole.statistics(), n_batches


def check_shape(latent: Tensor, places: Places) -> None:
    """Raises ValueError if a layer's value has not the shape that was fitted."""
    if tuple(latent.shape[1:]) != places.shape:
        raise ValueError(
            f"`layer` has {tuple(latent.shape[1:])} for these inputs, but was fitted on"
            f" {places.shape}; give inputs of that size, or fit again"
        )


def _checked(log_likelihood: Tensor, rows: int) -> Tensor:
    if log_likelihood.shape != (rows,):
        raise ValueError(
            f"`log_likelihood` must return one number for each of {rows} rows, got shape"
            f" {tuple(log_likelihood.shape)}"
        )
    return log_likelihood


def _batches(loader: Iterable[object], device: torch.device) -> Iterator[Batch]:
    """Yields the batches, each of two images at least: one has no other to compare with."""
    for given in loader:
        batch = Batch.of(given, device)
        if len(batch.inputs) < 2:
            raise ValueError(
                "`loader` must give batches of at least two inputs, whose places are told apart,"
                f" got one of {len(batch.inputs)}; set its `drop_last`"
            )
        yield batch


def _endless(loader: Iterable[object], device: torch.device) -> Iterator[Batch]:
    while True:
        before = None
        for before in _batches(loader, device):
            yield before
        if before is None:
            raise ValueError(
                "`loader` gave nothing the second time; give a DataLoader or a list, which can be"
                " gone through again"
            )


@torch.no_grad()
def _keep_negatives(
    layers: TwoLayers,
    places: Places,
    networks: Networks,
    batches: Iterator[Batch],
    n_negatives: int,
    generator: torch.Generator,
) -> None:
    """Keeps places of held-out images, as many of each place, for both critics."""
    rows = max(1, round(n_negatives / places.count))
    found: list[Tensor] = []
    for batch in batches:
        found.append(places.values(layers.values(batch.inputs)[0]).float())
        if sum(map(len, found)) >= max(ENOUGH_IMAGES, 4 * rows):
            break
    x = torch.cat(found)
    draws = torch.randn(x.shape, generator=generator).to(x)
    masked = networks.masked(x, networks.masks(x), draws)
    networks.total.keep(networks.standardized(x), rows, generator)
    networks.decision.keep(networks.standardized(masked), rows, generator)
