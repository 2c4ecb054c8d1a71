"""The file that holds what a decomposition was fitted to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def write(path: str | Path, networks: nn.Module, facts: dict[str, Any]) -> None:
    """Writes networks and facts, which JSON can hold, as safetensors."""
    from safetensors.torch import save_file

    state = {name: tensor.cpu().contiguous() for name, tensor in networks.state_dict().items()}
    save_file(state, path, {name: json.dumps(value) for name, value in facts.items()})


def read(path: str | Path, names: tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the state and the facts of such a file.

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
            facts = {name: json.loads(written[name]) for name in names}
            state = {name: file.get_tensor(name) for name in list(file.keys())}
    except (KeyError, SafetensorError, ValueError) as error:
        raise ValueError(f"`path` {str(path)!r} holds no fitted decomposition") from error
    return state, facts


def name_of(forward_func: Callable[..., Any], layer: nn.Module) -> str:
    """Returns the dotted name of a layer; "" if the model does not tell."""
    owner = getattr(forward_func, "__self__", forward_func)
    modules = owner.named_modules() if isinstance(owner, nn.Module) else ()
    return next((name for name, module in modules if module is layer), "")


def module_of(forward_func: Callable[..., Any], name: str) -> nn.Module:
    """Returns the layer of a name.

    Raises:
        ValueError: if the model has none of this name.
    """
    owner = getattr(forward_func, "__self__", forward_func)
    modules: dict[str, nn.Module] = {}
    if isinstance(owner, nn.Module):
        modules |= owner.named_modules()
    if not name or name not in modules:
        raise ValueError(
            f"`forward_func` {type(owner).__name__} has no module {name!r}, on which this was"
            " fitted; give the model it was fitted on, or `layer` and `global_layer`"
        )
    return modules[name]
