"""A model that is run in between and then goes on as if it had not been."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from captum_mi._intervention.trace import AS_WRITTEN
from captum_mi.infoplane.noise import noises


@contextmanager
def left_as_it_is(model: nn.Module, loader: object = None) -> Iterator[None]:
    """Runs in evaluation mode, without gradients, each module by its own code.

    Behind the block every module is in its mode again, and all random numbers are those that would
    have been drawn without it: PyTorch's, NumPy's and Python's global ones, those of noise in the
    model, and those of the loader's generators.

    Args:
        model: the model.
        loader: what gives the batches.
    """
    modes = [(module, module.training) for module in model.modules()]
    devices = {weight.device for weight in model.parameters() if weight.device.type == "cuda"}
    with ExitStack() as stack:
        stack.enter_context(AS_WRITTEN)
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=list(devices)))
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
        for noise in {noise for module in model.modules() for noise in noises(module)}:
            stack.enter_context(noise.kept())
        for generator in _generators(loader):
            stack.callback(generator.set_state, generator.get_state())
        for module, mode in modes:
            stack.callback(setattr, module, "training", mode)
        model.eval()
        yield


def _generators(loader: object) -> list[torch.Generator]:
    owners = [loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)]
    owners.append(getattr(owners[-1], "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return [generator for generator in found if isinstance(generator, torch.Generator)]
