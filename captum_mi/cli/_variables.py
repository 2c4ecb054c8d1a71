"""Two variables from a file, for ``captum-mi estimate``, whose options its errors name."""

from __future__ import annotations

import csv
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[Any]

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_variables(
    path: str | Path, x: str | None = None, y: str | None = None, *, discrete: bool = False
) -> tuple[Array, Array]:
    r"""Reads two variables, row i of one drawn together with row i of the other.

    The first line of a table is a header if it names the columns asked for, or has a text over a
    number.

    Args:
        path: ``.npz`` with two arrays (N, ...) or more; ``.npy`` with one array (N, d); or ``.csv``
            (also with semicolons, or ``.tsv``).
        x: which array, or which columns: names, numbers from 0 and ranges such as "0-3" (both ends
            included), separated by commas. None takes the array "x" or the first of two, or the
            first column of two.
        y: the same of the other variable.
        discrete: y is a label: one column, read as text.

    Returns:
        x and y, (N, ...); (N,) labels.

    Raises:
        ValueError: if the file cannot be read, does not say which is which, or has a cell that is
            not a number where one is needed, or is empty where a label is.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "table.csv"
        >>> _ = path.write_text("height,weight,shape\n1,2,cube\n3,4,ball\n")
        >>> read_variables(path, "0-1", "shape", discrete=True)[1]
        array(['cube', 'ball'], dtype='<U4')
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in DELIMITERS:
        wanted = [part for spec in (x, y) if spec for part in _parts(spec)]
        table = _read(path, lambda file: _table(file, DELIMITERS[suffix], wanted))
        columns = table.columns(path, x, y, discrete=discrete)
        return table.numbers(columns[0]), (table.labels if discrete else table.numbers)(columns[1])
    if suffix not in (".npz", ".npy"):
        raise ValueError(f"FILE must be a .npz, .npy, .csv or .tsv file, got {str(path)!r}")
    loaded = _read(path, _load)
    if isinstance(loaded, dict):
        return _arrays(loaded, path, x, y)
    if loaded.ndim != 2:
        raise ValueError(
            f"{str(path)!r} must hold an array (N, d) whose columns are x and y, got shape"
            f" {loaded.shape}; put two arrays into a .npz file"
        )
    table = _Table([str(i) for i in range(loaded.shape[1])], loaded, first_line=1)
    columns = table.columns(path, x, y, discrete=discrete)
    return loaded[:, columns[0]], loaded[:, columns[1][0] if discrete else columns[1]]


def _read(path: Path, read: Callable[[Path], Any]) -> Any:  # noqa: ANN401
    try:
        return read(path)
    except FileNotFoundError:
        raise ValueError(f"there is no file {str(path)!r}") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        reason = str(error)
        if isinstance(error, UnicodeDecodeError):
            reason = "it is no UTF-8 text; save it as UTF-8"
        elif "pickle" in reason:
            reason = "it holds no array of numbers or texts"
        raise ValueError(f"{str(path)!r} cannot be read ({reason})") from error


def _load(path: Path) -> Array | dict[str, Array]:
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        array: Array = loaded
        return array
    with loaded:
        return {name: loaded[name] for name in loaded.files}


def _arrays(
    arrays: dict[str, Array], path: Path, x: str | None, y: str | None
) -> tuple[Array, Array]:
    names = list(arrays)
    if len(names) < 2:
        raise ValueError(
            f"{str(path)!r} must hold two arrays, x and y, got {', '.join(names) or 'none'}"
        )
    if x is None and y is None:
        x, y = ("x", "y") if {"x", "y"} <= set(names) else (names if len(names) == 2 else (x, y))
    for option, name in (("x", x), ("y", y)):
        if name is None:
            raise ValueError(
                f"{str(path)!r} holds the arrays {', '.join(names)}; say which is {option}, with"
                f" `--{option} NAME`"
            )
        if name not in arrays:
            raise ValueError(
                f"`--{option}` must name an array of {str(path)!r}, one of {', '.join(names)}; got"
                f" {name!r}"
            )
    return arrays[str(x)], arrays[str(y)]


def _table(path: Path, delimiter: str, wanted: list[str]) -> _Table:
    with path.open(newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        file.seek(0)
        if delimiter == "," and ";" in first and "," not in first:
            delimiter = ";"
        rows = [
            [cell.strip() for cell in row]
            for row in csv.reader(file, delimiter=delimiter)
            if any(cell.strip() for cell in row)
        ]
    if not rows:
        raise ValueError("it is empty")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise ValueError(f"row {number} has {len(row)} columns, the first has {len(rows[0])}")
    named = any(part in rows[0] and not _is_position(part, len(rows[0])) for part in wanted)
    text_over_number = len(rows) > 1 and any(
        not _is_number(head) and _is_number(cell)
        for head, cell in zip(rows[0], rows[1], strict=True)
    )
    if named or text_over_number:
        return _Table(rows[0], np.array(rows[1:]).reshape(-1, len(rows[0])), first_line=2)
    return _Table([str(i) for i in range(len(rows[0]))], np.array(rows), first_line=1)


@dataclass(frozen=True)
class _Table:
    """Named columns of cells, (N, d), the first of them on line ``first_line``."""

    names: list[str]
    cells: Array
    first_line: int

    def columns(
        self, path: Path, x: str | None, y: str | None, *, discrete: bool
    ) -> tuple[list[int], list[int]]:
        """Returns the positions of x and of y."""
        if x is None and y is None and len(self.names) == 2:
            x, y = "0", "1"
        if x is None or y is None:
            raise ValueError(
                f"{str(path)!r} has {len(self.names)} columns; say which are x and which y, as in"
                " `--x 0-3 --y 4,5`"
            )
        found = self.positions("x", x), self.positions("y", y)
        if discrete and len(found[1]) != 1:
            raise ValueError(f"`--y` must be one column of labels, got {len(found[1])}")
        return found

    def positions(self, option: str, spec: str) -> list[int]:
        """Returns the positions of the columns that ``spec`` lists."""
        count, found = len(self.names), []
        for part in _parts(spec):
            first, dash, last = part.partition("-")
            if self.names.count(part) > 1:
                raise ValueError(
                    f"`--{option}` names {part!r}, as {self.names.count(part)} columns are called;"
                    " give its number"
                )
            if part in self.names:
                found.append(self.names.index(part))
            elif _is_position(part, count):
                found.append(int(part))
            elif (
                dash
                and _is_position(first, count)
                and _is_position(last, count)
                and int(first) <= int(last)
            ):
                found += range(int(first), int(last) + 1)
            else:
                raise ValueError(
                    f"`--{option}` names no columns with {part!r}; the table has {count}, 0 to"
                    f" {count - 1}: {', '.join(self.names[:8])}{', ...' if count > 8 else ''}"
                )
        return found

    def numbers(self, columns: list[int]) -> Array:
        """(N, d) numbers of these columns."""
        for column in columns:
            for row, cell in enumerate(self.cells[:, column]):
                if not _is_number(cell):
                    raise ValueError(
                        f"column {self.names[column]!r} has {str(cell)!r} in row"
                        f" {row + self.first_line}, which is no number; drop the row, or give a"
                        " column of labels as `--y` with `--discrete`"
                    )
        return self.cells[:, columns].astype(np.float64)

    def labels(self, columns: list[int]) -> Array:
        """(N,) texts of one column."""
        found = self.cells[:, columns[0]]
        (empty,) = np.nonzero(found == "")
        if len(empty):
            raise ValueError(
                f"column {self.names[columns[0]]!r} has {len(empty)} empty labels, the first in row"
                f" {empty[0] + self.first_line}; drop the rows"
            )
        return found


def _parts(spec: str) -> list[str]:
    return [part.strip() for part in spec.split(",")]


def _is_position(part: str, count: int) -> bool:
    return part.isascii() and part.isdigit() and int(part) < count


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
