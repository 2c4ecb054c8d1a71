"""A loader's batches: which are held out, and what is in one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from captum_mi._checks import brief
from captum_mi._training import split

LABELS = ("labels", "label")
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
                f" one input and `labels`, got {brief(given)}; give it a collate function"
            )
        moved = labels.to(device) if isinstance(labels, Tensor) else labels
        return cls(given.to(device), moved)


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
    if not isinstance(validation, (int, float)):
        return loader, validation
    if not 0 < validation < 1:
        raise ValueError(f"`validation` must lie between 0 and 1, or be a loader, got {validation}")
    if isinstance(loader, DataLoader):
        return _hold_out_samples(loader, validation, generator)
    if not isinstance(loader, Sequence):
        raise TypeError(
            f"`loader` must be a DataLoader or a list of batches, got a {type(loader).__name__};"
            f" {REMEDY}"
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
    ordinary = isinstance(loader.sampler, (RandomSampler, SequentialSampler))
    if isinstance(loader.dataset, IterableDataset) or loader.batch_size is None or not ordinary:
        raise TypeError(
            "`loader` must draw batches from a data set with indices, in order or at random, to"
            f" hold samples out of it; {REMEDY}"
        )
    kept, held_out = split(len(loader.dataset), share, generator)  # type: ignore[arg-type]
    options: dict[str, Any] = {
        "num_workers": loader.num_workers,
        "collate_fn": loader.collate_fn,
        "pin_memory": loader.pin_memory,
        "worker_init_fn": loader.worker_init_fn,
    }
    size = loader.batch_size
    if len(held_out) < 2:
        raise ValueError(
            f"`loader` has {len(loader.dataset)} samples, of which {len(held_out)} would be held"  # type: ignore[arg-type]
            " out, and it takes two; give more samples, or a larger share"
        )
    train = DataLoader(
        Subset(loader.dataset, kept.tolist()),
        min(size, len(kept)),
        shuffle=True,
        drop_last=True,
        generator=generator,
        **options,
    )
    return train, DataLoader(Subset(loader.dataset, held_out.tolist()), size, **options)
