"""Networks of the commands that train: the paper's, or what a function of the user's returns."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    import torch
    from torch import Tensor, nn


def network_of(options: argparse.Namespace, some: Tensor) -> tuple[nn.Module, tuple[str, ...]]:
    """Returns the network and the layers to record; checks that it takes some images."""
    import torch

    from captum_mi.infoplane.classifier import Classifier
    from captum_mi.infoplane.layers import named_layers

    some = some.to(device_of(options.device))
    if options.model is None:
        network: nn.Module = Classifier(some.shape[1], some.shape[-1])
        return network.to(options.device), tuple(name for name, _ in network.named_children())
    model = own_network(options.model).to(options.device)
    try:
        with torch.no_grad():
            scores = model.eval()(some)
    except RuntimeError as error:
        shape = tuple(some.shape)
        raise ValueError(f"`--model` fails on images of shape {shape}: {error}") from error
    if not isinstance(scores, torch.Tensor) or scores.shape != (len(some), 10):
        raise ValueError(
            "`--model` must return the scores of ten classes, (B, 10), got"
            f" {getattr(scores, 'shape', type(scores).__name__)}"
        )
    return model, tuple(named_layers(model, options.layers))


def device_of(name: str) -> torch.device:
    """Returns the device of a name, if it can be used."""
    import torch

    try:
        return torch.zeros(1).to(name).device
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"`--device` {name!r} cannot be used: {reason}") from error


def own_network(spec: str) -> nn.Module:
    """Calls a function of a module, which may lie in the folder that the command runs in."""
    from torch import nn

    name, _, function = spec.partition(":")
    if not name or not function:
        raise ValueError(f"`--model` must be MODULE:FUNCTION, got {spec!r}")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = import_module(name)
    finally:
        sys.path.pop(0)
    if not callable(getattr(module, function, None)):
        raise ValueError(f"`--model` names {spec!r}, but {name} has no function {function!r}")
    model = getattr(module, function)()
    if not isinstance(model, nn.Module):
        raise TypeError(f"`--model` must return a torch module, got {type(model).__name__}")
    return model
