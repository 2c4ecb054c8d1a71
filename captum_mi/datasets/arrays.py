"""Two variables from a file: arrays of NumPy, or columns of a table."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def read_variables(
    path: str | Path, x: str | None = None, y: str | None = None
) -> tuple[Array, Array]:
    r"""Reads two variables, row i of one drawn together with row i of the other.

    Args:
        path: ``.npz`` with two arrays (N, ...) or more; ``.npy`` with one array (N, d); or ``.csv``
            (also ``.tsv``), with or without a header.
        x: which array, or which columns: names, numbers from 0 and ranges such as "0-3" (both ends
            included), separated by commas. None takes the array "x" or the first of two, or the
            first column of two.
        y: the same of the other variable.

    Returns:
        x and y, (N, ...). A table's columns are numbers where they can be, else texts.

    Raises:
        ValueError: if the file cannot be read, or does not say which is which.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "table.csv"
        >>> _ = path.write_text("height,weight,shape\n1,2,cube\n3,4,ball\n")
        >>> read_variables(path, "0-1", "shape")[1]
        array(['cube', 'ball'], dtype='<U4')
    """
    path = Path(path)
    if path.suffix not in (".npz", ".npy", ".csv", ".tsv"):
        raise ValueError(f"`path` must be a .npz, .npy, .csv or .tsv file, got {str(path)!r}")
    if path.suffix in (".csv", ".tsv"):
        names, cells = _read(path, _table)
        return _columns_of_table(names, cells, path, x, y)
    loaded = _read(path, _load)
    if isinstance(loaded, dict):
        return _arrays(loaded, path, x, y)
    if loaded.ndim != 2:
        raise ValueError(
            f"{str(path)!r} must hold an array (N, d) whose columns are x and y, got shape"
            f" {loaded.shape}; put two arrays into a .npz file"
        )
    return _columns_of_table([str(i) for i in range(loaded.shape[1])], loaded, path, x, y)


def _read(path: Path, read: Callable[[Path], Any]) -> Any:  # noqa: ANN401
    try:
        return read(path)
    except FileNotFoundError:
        raise ValueError(f"there is no file {str(path)!r}") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error})") from error


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
    if x is None and y is None:
        x, y = ("x", "y") if {"x", "y"} <= set(names) else (names if len(names) == 2 else (x, y))
    for option, name in (("x", x), ("y", y)):
        if name not in arrays:
            raise ValueError(
                f"`{option}` must name an array of {str(path)!r}, one of {', '.join(names)}; got"
                f" {name!r}"
            )
    return arrays[str(x)], arrays[str(y)]


def _table(path: Path) -> tuple[list[str], Array]:
    """Returns the columns' names and the cells, (N, d) texts."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [
            row for row in csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",") if row
        ]
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        raise ValueError(f"rows of {', '.join(map(str, sorted(widths))) or 'no'} columns")
    has_header = len(rows) > 1 and any(
        not _is_number(head) and _is_number(cell)
        for head, cell in zip(rows[0], rows[1], strict=True)
    )
    names = (
        [name.strip() for name in rows[0]] if has_header else list(map(str, range(len(rows[0]))))
    )
    return names, np.array(rows[has_header:])


def _columns_of_table(
    names: list[str], cells: Array, path: Path, x: str | None, y: str | None
) -> tuple[Array, Array]:
    if x is None and y is None and len(names) == 2:
        x, y = "0", "1"
    if x is None or y is None:
        raise ValueError(
            f"{str(path)!r} has {len(names)} columns; say which are `x` and which `y`, such as x"
            " '0-3' and y '4,5'"
        )
    return _numbers(cells[:, _positions("x", x, names)]), _numbers(
        cells[:, _positions("y", y, names)]
    )


def _positions(option: str, spec: str, names: list[str]) -> list[int]:
    found: list[int] = []
    for part in (part.strip() for part in spec.split(",")):
        first, dash, last = part.partition("-")
        if part in names:
            found.append(names.index(part))
        elif part.isdigit() and int(part) < len(names):
            found.append(int(part))
        elif dash and first.isdigit() and last.isdigit() and int(first) <= int(last) < len(names):
            found += range(int(first), int(last) + 1)
        else:
            raise ValueError(
                f"`{option}` names no columns with {part!r}; the table has {len(names)}, 0 to"
                f" {len(names) - 1}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
            )
    return found


def _numbers(cells: Array) -> Array:
    """Cells as numbers if all of them are; a single column of texts as (N,)."""
    if cells.dtype.kind != "U":
        return cells
    try:
        return cells.astype(np.float64)
    except ValueError:
        return cells[:, 0] if cells.shape[1] == 1 else cells


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
