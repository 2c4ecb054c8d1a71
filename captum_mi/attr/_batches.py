"""A loader's batches: which are held out, and what is in one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, Subset

from captum_mi._checks import brief
from captum_mi._training import split

LABELS = ("labels", "label")
OPTIONS = (
    "num_workers",
    "collate_fn",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "prefetch_factor",
    "persistent_workers",
)
"""What a DataLoader keeps when samples are held out of it."""

REMEDY = "give `validation` a loader of its own"


class Batch(NamedTuple):
    """What a loader gives at once.

    Attributes:
        inputs: (B, ...), what the model takes.
        labels: what the loader gives beside it; None if nothing.
    """

    inputs: Tensor
    labels: Any

    @classmethod
    def of(cls, given: object, device: torch.device) -> Batch:
        """Reads a tensor, a sequence that begins with it, or a mapping that holds one.

        Raises:
            TypeError: if it is none of these.
        """
        labels: object = None
        if isinstance(given, Mapping):
            labels = next((given[name] for name in LABELS if name in given), None)
            inputs = [value for name, value in given.items() if name not in LABELS]
            given = inputs[0] if len(inputs) == 1 else given
        elif isinstance(given, (tuple, list)) and len(given) in (1, 2):
            given, labels = (*given, None)[:2]
        if not isinstance(given, Tensor):
            raise TypeError(
                "`loader` must give tensors (B, ...), pairs of inputs and labels, or mappings of"
                f" one input and `labels`, got {_described(given)}; give it a collate function"
            )
        moved = labels.to(device) if isinstance(labels, Tensor) else labels
        return cls(given.to(device), moved)


def _described(given: object) -> str:
    if isinstance(given, Mapping):
        return f"a mapping with {', '.join(map(repr, given))}"
    if isinstance(given, (tuple, list)):
        return f"a {type(given).__name__} with {', '.join(type(each).__name__ for each in given)}"
    return brief(given)


def hold_out(
    loader: Iterable[object], validation: float | Iterable[object], generator: torch.Generator
) -> tuple[Iterable[object], Iterable[object]]:
    """Returns the batches to train on and those held out, each to be gone through many times.

    Of a loader over a data set with indices a share of the samples is held out, and the rest
    shuffled; of a list of batches the last ones are.

    Raises:
        TypeError: if a share of the loader cannot be held out.
        ValueError: if ``validation`` is no share, or leaves no batch.
    """
    if isinstance(validation, Iterable):
        return loader, validation
    if not isinstance(validation, (int, float)) or not 0 < validation < 1:
        raise ValueError(f"`validation` must lie between 0 and 1, or be a loader, got {validation}")
    if isinstance(loader, DataLoader):
        return _hold_out_samples(loader, validation, generator)
    if not isinstance(loader, Sequence):
        raise TypeError(
            "`loader` must be a DataLoader or a list of batches to hold some out, got a"
            f" {type(loader).__name__}; make a DataLoader of a data set, or {REMEDY}"
        )
    kept = len(loader) - math.ceil(validation * len(loader))
    if kept < 1:
        raise ValueError(
            f"`loader` has {len(loader)} batches, of which none is left to train on; {REMEDY}"
        )
    return loader[:kept], loader[kept:]


def _hold_out_samples(
    loader: DataLoader[Any], share: float, generator: torch.Generator
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    n_samples = _n_samples(loader)
    kept, held_out = split(n_samples, share, generator)
    if min(len(kept), len(held_out)) < 2:
        raise ValueError(
            f"`loader` has {n_samples} samples, of which {len(held_out)} would be held out and"
            f" {len(kept)} left, and it takes two of each; give more samples, or another share"
        )
    size = min(loader.batch_size or 1, len(kept))
    if size > 1 and len(held_out) % size == 1:
        held_out = held_out[:-1]  # it would be alone in a batch
    options = {name: getattr(loader, name) for name in OPTIONS}
    train, test = (Subset(loader.dataset, each.tolist()) for each in (kept, held_out))
    return (
        DataLoader(train, size, shuffle=True, drop_last=True, generator=generator, **options),
        DataLoader(test, size, generator=generator, **options),
    )


def _n_samples(loader: DataLoader[Any]) -> int:
    """Returns how many samples there are; raises TypeError if they cannot be drawn otherwise."""
    sampler = loader.sampler
    if isinstance(sampler, (RandomSampler, SequentialSampler)) and loader.batch_size:
        n_samples = len(loader.dataset)  # type: ignore[arg-type]
        if len(sampler) == n_samples:
            return n_samples
    raise TypeError(
        "`loader` must draw batches from a data set with indices, all of it, in order or at random,"
        f" to hold samples out of it; {REMEDY}"
    )
