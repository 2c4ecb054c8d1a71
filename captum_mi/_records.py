"""Records on disk, one line each, appended and flushed, so that a run can be killed and resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

Record = dict[str, Any]


def read_records(folder: Path) -> list[Record]:
    """Returns every whole record that any process left in the folder."""
    found = []
    for path in sorted(folder.glob("records-*.jsonl")):
        for number, line in enumerate(path.read_text().splitlines(keepends=True), start=1):
            if not line.endswith("\n"):
                continue
            try:
                found.append(json.loads(line))
            except ValueError:
                raise ValueError(
                    f"{str(path)!r} line {number} is damaged; remove the line, and its pair is done"
                    " again"
                ) from None
    return found


class RecordWriter:
    """Appends records to a process's own file; what a killed run left half written is cut off.

    Args:
        folder: where the records are.
        process: the process's number.
    """

    def __init__(self, folder: Path, process: int = 0) -> None:
        """Opens the file behind its last whole record."""
        path = folder / f"records-{process}.jsonl"
        self._file: TextIO = path.open("a")
        self._file.truncate(path.read_bytes().rfind(b"\n") + 1)

    def append(self, record: Record) -> None:
        """Writes a record out."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def check_settings(folder: Path, settings: Mapping[str, object]) -> None:
    """Raises ValueError if the folder holds a run with other settings."""
    path = folder / "settings.json"
    if not path.exists():
        return
    try:
        known = dict(json.loads(path.read_text()))
    except (TypeError, ValueError):
        raise ValueError(
            f"{str(path)!r} cannot be read; remove the folder, or choose another `--out`"
        ) from None
    for name in sorted({*known, *settings}):
        if known.get(name) != settings.get(name):
            raise ValueError(
                f"folder {str(folder)!r} holds a run with {name} {known.get(name)!r}, not"
                f" {settings.get(name)!r}; choose another `--out`, or remove the folder"
            )


def write_settings(folder: Path, settings: Mapping[str, object]) -> None:
    """Writes the settings of a run, whole or not at all."""
    partial = folder / f"settings.json.{os.getpid()}"
    partial.write_text(json.dumps(settings, indent=1) + "\n")
    partial.replace(folder / "settings.json")
