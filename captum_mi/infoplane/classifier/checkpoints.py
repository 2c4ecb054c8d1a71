"""Weights that a training left behind, epoch by epoch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from captum_mi._checks import brief

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn


def find_checkpoints(pattern: str) -> dict[int, Path]:
    """Returns the files of a pattern by their epoch, the last number in a file's name.

    Raises:
        ValueError: if there are none, one has no number, or two have the same.

    Example:
        >>> find_checkpoints("no-such-folder/epoch-*.safetensors")
        Traceback (most recent call last):
            ...
        ValueError: `checkpoints` matches no file, got 'no-such-folder/epoch-*.safetensors'
    """
    found: dict[int, Path] = {}
    whole = Path(pattern).expanduser()
    for path in sorted(Path(whole.anchor).glob(str(whole.relative_to(whole.anchor)))):
        numbers = re.findall(r"\d+", path.stem)
        if not numbers:
            raise ValueError(f"`checkpoints` must have their epoch in their names, got {path.name}")
        epoch = int(numbers[-1])
        if epoch in found:
            raise ValueError(
                f"`checkpoints` must be of one training, got epoch {epoch} twice: {found[epoch]}"
                f" and {path}"
            )
        found[epoch] = path
    if not found:
        raise ValueError(f"`checkpoints` matches no file, got {brief(pattern)}")
    return dict(sorted(found.items()))


def load_each(model: nn.Module, checkpoints: Mapping[int, Path]) -> Iterator[int]:
    """Loads one safetensors file after another into a model.

    Args:
        model: of the weights.
        checkpoints: by their epochs.

    Yields:
        the epoch of the weights that the model has.

    Raises:
        ValueError: if a file holds no weights of this model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for epoch, path in checkpoints.items():
        try:
            model.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(
                f"`checkpoints` names {str(path)!r}, which holds no weights of this model: {error}"
            ) from error
        yield epoch
