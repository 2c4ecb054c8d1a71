"""One process, or several on one or more machines under ``accelerate launch``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")


class Processes:
    """The processes that share a run; the only place that imports accelerate.

    Attributes:
        index: this process's number, 0 to ``count - 1``.
        count: how many there are.
        device: where this process computes.
    """

    def __init__(self) -> None:
        """Joins the other processes, if there are any."""
        self.index, self.count = 0, 1
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._state: PartialState | None = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            self._state = PartialState(cpu=not torch.cuda.is_available())
            self.index, self.count = self._state.process_index, self._state.num_processes
            self.device = self._state.device

    @property
    def first(self) -> bool:
        """True in the process that reports."""
        return self.index == 0

    def wait(self) -> None:
        """Waits until every process is here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def gather(self, items: list[T]) -> list[T]:
        """Returns the items of all processes, in every process."""
        if self._state is None:
            return items
        from accelerate.utils import gather_object

        gathered: list[T] = gather_object(items)
        return gathered

    def agree(self, problem: str | None) -> None:
        """Raises ValueError in every process if one of them has a problem."""
        problems = [found for found in self.gather([problem]) if found]
        if problems:
            raise ValueError(problems[0])

    def close(self) -> None:
        """Ends the connection to the other processes."""
        if self._state is not None:
            self._state.destroy_process_group()
