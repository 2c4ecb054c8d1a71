"""A module's state with facts that JSON can hold, in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn


def write_state(path: str | Path, module: nn.Module, facts: dict[str, Any]) -> None:
    """Writes a module's state and facts."""
    from safetensors.torch import save_file

    state = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
    save_file(state, path, {name: json.dumps(value) for name, value in facts.items()})


def read_state(
    path: str | Path, facts: Sequence[str], what: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the state, on the CPU, and the facts of these names.

    Args:
        path: of a file that :func:`write_state` wrote.
        facts: their names.
        what: what the file should hold, for messages.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"`path` {str(path)!r} is no file; fit and save one")
    try:
        with safe_open(path, framework="pt") as file:
            written = file.metadata() or {}
            found = {name: json.loads(written[name]) for name in facts}
            state = {name: file.get_tensor(name) for name in list(file.keys())}
    except (KeyError, SafetensorError, ValueError) as error:
        raise ValueError(f"`path` {str(path)!r} holds no {what}") from error
    return state, found
