"""What several tests share: hooking a layer by hand, and the state that must not change."""

import torch
from torch import nn
from torch.nn.modules import module as torch_module


def replaced(forward_func, layer, args, new):
    """The oracle: the whole model runs, the layer's floating-point output is exchanged."""

    def hook(_module, _args, output):
        if isinstance(output, torch.Tensor):
            return new.clone()
        if isinstance(output, dict):
            output["last_hidden_state"] = new.clone()
            return output
        return (new.clone(), *output[1:])

    handle = layer.register_forward_hook(hook)
    try:
        return forward_func(*args)
    finally:
        handle.remove()


def latent_of(forward_func, layer, x):
    """The layer's floating-point output, seen by a hook."""
    seen = []
    handle = layer.register_forward_hook(lambda _m, _a, output: seen.append(output))
    with torch.no_grad():
        forward_func(x)
    handle.remove()
    return (seen[0] if isinstance(seen[0], torch.Tensor) else seen[0][0]).detach()


def snapshot(model):
    """Everything about a model that a careless explanation might change."""
    return {
        "hooks": [
            (name, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for name, m in model.named_modules()
        ],
        "patches": [name for name, m in model.named_modules() if "forward" in vars(m)],
        "global": (
            len(torch_module._global_forward_hooks),
            len(torch_module._global_forward_pre_hooks),
        ),
        "training": [m.training for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [p.grad for p in model.parameters()],
    }


class InPlaceSkip(nn.Module):
    """A module before the layer changes its argument, which is used again behind the layer."""

    def __init__(self):
        super().__init__()
        self.first, self.relu = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True)
        self.layer, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        skip = self.first(x)
        hidden = self.layer(self.relu(skip))
        return self.head(hidden.tanh() + skip).mean((2, 3))
