"""Attributions by hook and rerun: slow, and without a line of the package."""

import torch


def hidden_states(value):
    """The hidden states among what a layer returns, or is given as (args, kwargs)."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value[-1], dict):
        args, kwargs = value
        return args[0] if args else kwargs["hidden_states"]
    return value[0]


def with_hidden_states(value, new):
    """What a layer returned, or was given, with other hidden states."""
    if isinstance(value, torch.Tensor):
        return new
    if isinstance(value[-1], dict):
        args, kwargs = value
        return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": new})
    return (new, *value[1:])


def run(forward_func, args, layer, edit, *, at_input=False):
    """The whole model runs; the layer's output, or input, passes through ``edit``."""
    if at_input:
        handle = layer.register_forward_pre_hook(
            lambda _module, args, kwargs: edit((args, kwargs)), with_kwargs=True
        )
    else:
        # Before other hooks: what they keep of the output, the model may read.
        handle = layer.register_forward_hook(
            lambda _module, _args, output: edit(output), prepend=True
        )
    try:
        return forward_func(*args)
    finally:
        handle.remove()


def latent(forward_func, args, layer, *, at_input=False):
    """The hidden states that the layer returns, or is given."""
    seen = []
    with torch.no_grad():
        run(
            forward_func,
            args,
            layer,
            lambda value: seen.append(hidden_states(value).clone()),
            at_input=at_input,
        )
    (found,) = seen
    return found


def narrowed(forward_func, args, layer, target=None, *, n_steps=5, at_input=False):
    """NIB: the latent times the mean of its gradients at z / n, 2 z / n, ..., z; one run each."""
    whole = latent(forward_func, args, layer, at_input=at_input)
    total = torch.zeros_like(whole)
    for step in range(1, n_steps + 1):
        leaf = (whole * step / n_steps).requires_grad_()
        output = run(
            forward_func,
            args,
            layer,
            lambda value, leaf=leaf: with_hidden_states(value, leaf.clone()),
            at_input=at_input,
        )
        score = output.sum() if target is None else output[:, target].sum()
        total += torch.autograd.grad(score, leaf)[0]
    return whole * total / n_steps


def assert_same(found, expected, tolerance):
    """Equal up to a share of the largest value, which must not be zero."""
    assert isinstance(found, torch.Tensor), f"{len(found)} latents instead of one"
    largest = expected.abs().max()
    assert largest > 0
    assert found.shape == expected.shape
    error = ((found - expected).abs().max() / largest).item()
    assert error < tolerance, f"off by {error:.2g} of the largest value"
