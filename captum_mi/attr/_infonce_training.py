"""How the networks of the decomposition are trained on a frozen model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

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

MISNUMBERED = 1.0
"""From how many nats below guessing on labels are taken to be numbered otherwise."""

LogLikelihood = Callable[[Tensor, Any], Tensor]


@torch.inference_mode(mode=False)
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
) -> tuple[Networks, list[Progress]]:
    """Fits statistics, trains mask and critics, and keeps negatives.

    ``layers`` is the frozen model, ``find_places`` takes the layer's value and the inputs,
    ``build`` the places and the dimension of Z; the rest are arguments of ``InfoNCEDecomposition``.
    """
    generator = torch.Generator().manual_seed(seed)
    kept, held_out = hold_out(loader, validation, generator)
    places, latent, z, n_batches = _statistics(layers, find_places, kept, device)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        networks = build(places, len(z.mean)).to(device)
    networks.set_statistics(latent, z)

    def task(output: Tensor, own: Tensor, batch: Batch) -> Tensor:
        labels = own.argmax(1) if batch.labels is None and own.ndim == 2 else batch.labels
        return _checked(log_likelihood(output, labels), len(batch.inputs))

    def objective(batch: Batch, noise: torch.Generator) -> Tensor:
        suffix, z = layers.split(batch.inputs)
        suffix.trust()  # the model repeats itself on the held-out batches
        x, z = networks.read(suffix.latent[0], z)
        masks = networks.masks(x)
        draws = torch.randn(x.shape, generator=noise, device=x.device)
        masked = networks.masked(x, masks, draws)
        output = suffix(places.put(masked, networks.latent_mean))
        kept_task = task(output, suffix.output, batch)
        total = networks.total.in_batch(z, networks.standardized(x))
        decision = networks.decision.in_batch(z, networks.standardized(masked.detach()))
        return beta * masks.mean() - kept_task.mean() - total.mean() - decision.mean()

    def validate() -> float:
        noise = torch.Generator(device).manual_seed(seed)  # the same each time
        errors, rows = 0.0, 0
        for batch in _batches(held_out, device, "validation"):
            errors += float(objective(batch, noise)) * len(batch.inputs)
            rows += len(batch.inputs)
        return errors / rows

    surplus = _check_held_out(layers, networks, task, _batches(held_out, device, "validation"))
    if log_likelihood is log_softmax_likelihood and surplus < -MISNUMBERED:
        warnings.warn(
            f"the model's log-likelihood of the labels is {-surplus:.1f} nats below that of"
            " guessing; `loader` must number them as the model does its outputs (a folder's classes"
            " need not be the model's)",
            stacklevel=4,
        )
    training, noise = _endless(kept, device), torch.Generator(device).manual_seed(seed + 1)
    steps = epochs * n_batches
    optimizer = torch.optim.Adam(networks.parameters(), learning_rate)
    history = minimize(
        lambda _step: objective(next(training), noise),
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
    batches = _batches(held_out, device, "validation")
    _keep_negatives(layers, networks, batches, n_negatives, generator)
    return networks, history


@torch.no_grad()
def _check_held_out(
    layers: TwoLayers,
    networks: Networks,
    task: Callable[[Tensor, Tensor, Batch], Tensor],
    batches: Iterator[Batch],
) -> float:
    """Runs the model as it is, so that what fails on held-out batches fails before training.

    It runs twice, and must give the same.

    Returns:
        how many nats the model's log-likelihood lies above that of guessing.
    """
    found, guess = [], 0.0
    for batch in batches:
        suffix, z = layers.split(batch.inputs)
        networks.read(suffix.latent[0], z)
        found.append(task(suffix(*suffix.latent), suffix.output, batch))
        guess = -math.log(suffix.output[0].numel())
    return float(torch.cat(found).mean()) - guess


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
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"`loader` must give integer labels, got {labels.dtype}; or give `log_likelihood`,"
            " which reads what the loader gives"
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
        places.check(latent)
        local.add(latent.double())
        whole.add(z.double())
        n_batches += 1
    assert places is not None  # of the batch that there is at least
    return places, local.statistics(), whole.statistics(), n_batches


def _checked(log_likelihood: Tensor, rows: int) -> Tensor:
    if not isinstance(log_likelihood, Tensor) or log_likelihood.shape != (rows,):
        raise ValueError(
            f"`log_likelihood` must return one number for each of {rows} rows, got"
            f" {brief(log_likelihood)}"
        )
    if torch.is_grad_enabled() and not log_likelihood.requires_grad:
        raise ValueError(
            "`log_likelihood` must let gradients through to the model's output, got one without;"
            " leave out detach(), item() and the like"
        )
    return log_likelihood


def _batches(
    loader: Iterable[object], device: torch.device, name: str = "loader"
) -> Iterator[Batch]:
    """Yields the batches, each of two images at least: one has no other to compare with."""
    empty = True
    for given in loader:
        batch, empty = Batch.of(given, device), False
        if len(batch.inputs) < 2:
            raise ValueError(
                f"`{name}` must give batches of at least two inputs, whose places are told apart,"
                f" got one of {len(batch.inputs)}; set its `drop_last`, or a larger `batch_size`"
            )
        yield batch
    if empty:
        raise ValueError(
            f"`{name}` gave no batch; give a DataLoader or a list, which can be gone through again"
            " and again, and is not empty"
        )


def _endless(loader: Iterable[object], device: torch.device) -> Iterator[Batch]:
    while True:
        yield from _batches(loader, device)


@torch.no_grad()
def _keep_negatives(
    layers: TwoLayers,
    networks: Networks,
    batches: Iterator[Batch],
    n_negatives: int,
    generator: torch.Generator,
) -> None:
    """Keeps places of held-out images, as many of each place, for both critics."""
    rows = max(1, round(n_negatives / networks.places.count))
    found: list[Tensor] = []
    for batch in batches:
        found.append(networks.read(*layers.values(batch.inputs))[0])
        if sum(map(len, found)) >= max(ENOUGH_IMAGES, 4 * rows):
            break
    x = torch.cat(found)
    draws = torch.randn(x.shape, generator=generator).to(x)
    masked = networks.masked(x, networks.masks(x), draws)
    networks.total.keep(networks.standardized(x), rows, generator)
    networks.decision.keep(networks.standardized(masked), rows, generator)
