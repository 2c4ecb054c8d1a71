"""What is known of a layer at an epoch, and the file that keeps it."""

from __future__ import annotations

import csv
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
    names = layers or tuple(row.layer for row in found if row.epoch == found[0].epoch)
    strangers = {row.layer for row in found} - set(names)
    if strangers:
        raise ValueError(
            f"`path` {str(path)!r} holds the layers {', '.join(sorted(strangers))}, which are not"
            " recorded here; choose another file"
        )
    epochs: dict[int, list[Row]] = {row.epoch: [] for row in found}
    for row in found:
        epochs[row.epoch].append(row)
    return [row for rows in epochs.values() if len(rows) == len(names) for row in rows]


def write_rows(path: str | Path, rows: list[Row]) -> None:
    """Writes a file anew: the header and these rows."""
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)


def append_rows(path: str | Path, rows: list[Row]) -> None:
    """Appends rows."""
    with Path(path).open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
