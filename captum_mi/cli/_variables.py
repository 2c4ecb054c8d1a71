"""Two variables from a file, for ``captum-mi estimate``, whose options its errors name."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

    Array = NDArray[np.generic]

SEPARATORS = {".csv": ",", ".tsv": "\t"}


def read_variables(
    path: str | Path,
    x: str | None = None,
    y: str | None = None,
    *,
    discrete: bool = False,
    texts: bool = False,
) -> tuple[Array, Array]:
    """Reads two variables, row i of one drawn together with row i of the other.

    The first line of a table is a header if it names the columns asked for, or has a text over a
    number.

    Args:
        path: .npz with arrays (N, ...), .npy with one array (N, d), .csv (commas or semicolons) or
            .tsv.
        x: an array, or columns: names, numbers from 0 and ranges such as "0-3" (both ends
            included), separated by commas. None takes what is called "x", or the first of two.
        y: the same of the other variable.
        discrete: y is a label: one column, read as text.
        texts: columns may hold texts too; a variable of such columns is a data frame.

    Returns:
        x and y, (N, ...); (N,) labels.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if it cannot be read, does not say which is which, or lacks a number or label.
    """
    path = Path(path)
    loaded = _load(path, [part for spec in (x, y) if spec for part in _parts(spec)])
    if isinstance(loaded, dict):
        of_x, of_y = _positions(path, "arrays", list(loaded), x, y)
        if len(of_x) > 1 or len(of_y) > 1:
            raise ValueError("`--x` and `--y` must name one array each")
        arrays = list(loaded.values())
        return arrays[of_x[0]], arrays[of_y[0]]
    of_x, of_y = _positions(path, "columns", list(loaded), x, y)
    if discrete and len(of_y) > 1:
        raise ValueError(f"`--y` must name one column of labels, got {len(of_y)}")
    if texts:
        first, second = (_kept(loaded.iloc[:, columns]) for columns in (of_x, of_y))
        return first, _values(loaded, of_y, labels=True) if discrete else second
    return _values(loaded, of_x), _values(loaded, of_y, labels=discrete)


def read_table(path: str | Path) -> DataFrame | None:
    """Reads the columns of a table; None if the file has arrays, or but two columns, or x and y.

    Columns of numbers become numbers; empty cells are missing.

    Args:
        path: as for :func:`read_variables`.
    """
    path = Path(path)
    loaded = _load(path, [])
    if isinstance(loaded, dict) or len(loaded.columns) < 3 or {"x", "y"} <= set(loaded.columns):
        return None
    return _kept(loaded, missing=True)


def _load(path: Path, wanted: list[str]) -> dict[str, Array] | DataFrame:
    """Returns the arrays of a .npz file by their names, or the columns of another file."""
    suffix = path.suffix.lower()
    if suffix not in (".npz", ".npy", *SEPARATORS):
        raise ValueError(f"FILE must be a .npz, .npy, .csv or .tsv file, got {str(path)!r}")
    try:
        if suffix in SEPARATORS:
            return _table(path, SEPARATORS[suffix], wanted)
        loaded: Array | np.lib.npyio.NpzFile = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            import pandas as pd

            return pd.DataFrame(loaded).rename(columns=str)
        with loaded:
            return dict(loaded)
    except (EOFError, ValueError, zipfile.BadZipFile) as error:
        reason = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        if isinstance(error, UnicodeDecodeError):
            reason = "it is no UTF-8 text; save it as UTF-8"
        elif "pickle" in reason:
            reason = "it holds no array of numbers or texts"
        raise ValueError(f"{str(path)!r} cannot be read ({reason})") from error


def _table(path: Path, separator: str, wanted: list[str]) -> DataFrame:
    """Reads the cells of a table, as texts below the names of its columns."""
    import pandas as pd

    with path.open(encoding="utf-8-sig") as file:
        first_line = file.readline()
    if separator == "," and ";" in first_line and "," not in first_line:
        separator = ";"
    cells = pd.read_csv(
        path, sep=separator, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig"
    )
    cells = cells.apply(lambda column: column.str.strip()).rename(columns=str)
    cells = cells[(cells != "").any(axis=1)]
    if cells.empty:
        raise ValueError("it is empty")
    head, below = (cells.head(2).to_numpy().tolist() * 2)[:2]
    named = any(part in head and not _span(part, len(head)) for part in wanted)
    over_numbers = (name for name, cell in zip(head, below, strict=True) if _is_number(cell))
    if named or not all(map(_is_number, over_numbers)):
        return cells.iloc[1:].set_axis(head, axis=1)
    return cells


def _positions(
    path: Path, kind: str, names: list[str], x: str | None, y: str | None
) -> tuple[list[int], list[int]]:
    """Returns which of the arrays or columns of these names are x, and which y."""
    holds = f"{str(path)!r} holds the {kind} {', '.join(names[:8])}{', ...' * (len(names) > 8)}"
    if len(names) < 2:
        raise ValueError(f"{holds}; it must hold two, x and y")
    if x is None and y is None:
        if {"x", "y"} <= set(names):
            x, y = "x", "y"
        elif len(names) == 2:
            return [0], [1]
    found: dict[str, list[int]] = {"x": [], "y": []}
    for option, spec in {"x": x, "y": y}.items():
        if spec is None:
            raise ValueError(f"{holds}; say which of them {option} is, with `--{option}`")
        for part in _parts(spec):
            if names.count(part) > 1:
                raise ValueError(f"`--{option}` names {part!r}, but {holds}; give its number")
            positions = [names.index(part)] if part in names else _span(part, len(names))
            if not positions:
                raise ValueError(f"`--{option}` names {part!r}, but {holds}")
            found[option] += positions
    return found["x"], found["y"]


def _values(table: DataFrame, columns: list[int], *, labels: bool = False) -> Array:
    """Returns columns as numbers, (N, d), or one as labels, (N,)."""
    chosen = table.iloc[:, columns]
    values: Array = chosen.to_numpy()
    if values.dtype == object:
        for name, cells in chosen.items():
            for row, cell in cells.items():
                if not (cell if labels else _is_number(cell)):
                    raise ValueError(
                        f"column {name!r} has {cell!r} in row {row + 1}, which is no"
                        f" {'label' if labels else 'number'}; drop the row, or give a column of"
                        " labels as `--y` with `--discrete`"
                    )
        values = values.astype(str if labels else np.float64)
    return values[:, 0] if labels else values


def _kept(table: DataFrame, *, missing: bool = False) -> DataFrame:
    """Returns columns as numbers where they are, and as texts elsewhere."""
    import pandas as pd

    found = []
    for name, column in table.reset_index(drop=True).items():
        if pd.api.types.is_numeric_dtype(column):
            found.append(column)
            continue
        cells = column.astype(object)
        number = cells.map(_is_number).to_numpy()
        empty = (cells == "").to_numpy()
        wrong = ~number & ~empty if number.mean() > 0.5 else np.zeros_like(empty)
        wrong |= empty & (not missing)
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(
                f"column {name!r} has {cells[row]!r} in row {row + 1}, among numbers or texts; drop"
                " the row"
            )
        kept = cells.where(~empty, None)
        found.append(kept.astype(np.float64) if (number | empty).all() else kept)
    return pd.concat(found, axis=1)


def _parts(spec: str) -> list[str]:
    return [part.strip() for part in spec.split(",")]


def _span(part: str, count: int) -> range:
    """Returns the positions that "2" or "0-3" stands for, none if there are not so many."""
    ends = re.fullmatch(r"(\d+)(?:-(\d+))?", part, re.ASCII)
    first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (0, -1)
    return range(first, last + 1) if last < count else range(0)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
