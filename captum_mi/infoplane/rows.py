"""What is known of a layer at an epoch, and the file that keeps it."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import NamedTuple, get_type_hints


class Row(NamedTuple):
    """What a layer tells of the input and of the target at an epoch, nats.

    Attributes:
        epoch: number of the epoch.
        loss: what the caller said; NaN if nothing.
        layer: dotted name.
        of_input: I(X; L), between the codes; NaN where it could not be estimated.
        of_input_error: its standard error.
        of_target: I(L; Y), between the layer's code and the target.
        of_target_error: its standard error.
        kept: share of the layer's variance that its code keeps; NaN of a compressor that is no PCA.
        samples: N.
        hidden: the most that the layer's code can hide of either, see :class:`InformationPlane`;
            NaN where nothing limits it.
    """

    epoch: int
    loss: float
    layer: str
    of_input: float
    of_input_error: float
    of_target: float
    of_target_error: float
    kept: float
    samples: int
    hidden: float = math.nan


KINDS = tuple(get_type_hints(Row).values())


def read_rows(path: str | Path, layers: tuple[str, ...] | None = None) -> list[Row]:
    """Reads the rows of all whole epochs.

    Args:
        path: the CSV.
        layers: names that an epoch must have, each once; None takes those of the first epoch.

    Raises:
        ValueError: if the file has other columns or layers, or a line is damaged.
    """
    found: list[Row] = []
    with Path(path).open(newline="") as file:
        lines = [line for line in file if line.endswith("\n")]  # what was half written is cut off
    reader = csv.reader(lines)
    header = next(reader, list(Row._fields))
    if tuple(header) != Row._fields:
        raise ValueError(f"`path` {str(path)!r} has the columns {', '.join(header)}, not a plane's")
    for number, values in enumerate(reader, start=2):
        try:
            read = [kind(value) for kind, value in zip(KINDS, values, strict=True)]
        except ValueError:
            raise ValueError(f"`path` {str(path)!r} line {number} is damaged; remove it") from None
        found.append(Row(*read))
    names = set(layers or (row.layer for row in found))
    strangers = {row.layer for row in found} - names
    if strangers:
        raise ValueError(
            f"`path` {str(path)!r} holds the layers {', '.join(sorted(strangers))}, which are not"
            " recorded here; choose another file"
        )
    epochs: dict[int, dict[str, Row]] = {}
    for row in found:
        epochs.setdefault(row.epoch, {})[row.layer] = row
    broken = [epoch for epoch, rows in epochs.items() if len(rows) < len(names)]
    if broken and broken != list(epochs)[-1:]:  # the last one may have been cut off
        missing = sorted(names - set(epochs[broken[0]]))
        raise ValueError(
            f"`path` {str(path)!r} lacks the layers {', '.join(missing)} at epoch {broken[0]};"
            " choose another file"
        )
    whole = [rows for rows in epochs.values() if len(rows) == len(names)]
    return [row for rows in whole for row in rows.values()]


def write_rows(path: str | Path, rows: list[Row]) -> None:
    """Writes a file anew, at one stroke: the header and these rows."""
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    with part.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)
    part.replace(path)


def append_rows(path: str | Path, rows: list[Row]) -> None:
    """Appends rows."""
    with Path(path).open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
