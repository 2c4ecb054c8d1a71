"""A variable of columns of several kinds: its labels, and its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from captum_mi.estimators._samples import as_samples
from captum_mi.estimators.discrete import value_codes
from captum_mi.estimators.kinds import kind_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from captum_mi.estimators._samples import Samples

    Codes: TypeAlias = NDArray[np.int64]

WIDE = 50
"""Columns from which on all are taken for continuous, as pixels and features are."""


@dataclass(frozen=True)
class Variable:
    """Columns told apart by :func:`kind_of`.

    Attributes:
        labels: (N,), a number for each combination of the columns of labels; None without any.
        numbers: (N, d), float64, the other columns; None without any.
        mixed: whether one of these has frequent values.
    """

    labels: Codes | None
    numbers: Tensor | None
    mixed: bool

    @classmethod
    def of(cls, name: str, value: Samples) -> Variable:
        """Reads columns.

        Args:
            name: the argument, for the wording of errors.
            value: (N,), (N, d) or (N, ...): numbers, labels, or a data frame of both.
        """
        cells: Any = value.detach() if isinstance(value, torch.Tensor) else value
        table = hasattr(cells, "iloc")
        if not table and not isinstance(cells, torch.Tensor):
            cells = np.asarray(cells)
        if not np.ndim(cells):
            raise ValueError(f"`{name}` must be (N,), (N, d) or (N, ...), got {value!r}")
        if np.ndim(cells) > 2:
            cells = cells.reshape(len(cells), -1)
        if np.ndim(cells) == 1:
            columns = [cells]
        elif np.shape(cells)[1] > WIDE and not table:
            return cls(None, as_samples(name, cells), mixed=False)
        else:
            places = range(np.shape(cells)[1])
            columns = [cells.iloc[:, i] if table else cells[:, i] for i in places]
        kinds = [kind_of(column) for column in columns]
        labels = [each for each, kind in zip(columns, kinds, strict=True) if kind == "label"]
        numbers = [each for each, kind in zip(columns, kinds, strict=True) if kind != "label"]
        codes = np.stack([value_codes(name, each) for each in labels], axis=1) if labels else None
        return cls(
            None if codes is None else value_codes(name, codes),
            torch.cat([as_samples(name, each) for each in numbers], dim=1) if numbers else None,
            mixed="mixed" in kinds,
        )

    @property
    def samples(self) -> Tensor:
        """The numbers, of a variable that has some."""
        if self.numbers is None:
            raise ValueError("labels alone are no numbers")
        return self.numbers

    @property
    def codes(self) -> Codes:
        """The labels, of a variable that has some."""
        if self.labels is None:
            raise ValueError("numbers alone are no labels")
        return self.labels

    def rows(self, rows: Codes) -> Variable:
        """Returns the variable at some rows."""
        return Variable(
            None if self.labels is None else self.labels[rows],
            None if self.numbers is None else self.numbers[rows],
            self.mixed,
        )

    def __len__(self) -> int:
        """Returns N."""
        return len(self.samples if self.labels is None else self.labels)
