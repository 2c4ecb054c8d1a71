"""Captum's own layer cases, with NarrowingIB in the place of LayerIntegratedGradients."""

import inspect

import pytest
import torch
from captum._utils.common import _get_module_from_name
from captum.attr import IntegratedGradients, LayerIntegratedGradients, NoiseTunnel

from captum_mi import NarrowingIB

REASON = "Captum ships its test cases from 0.9 on"
config = pytest.importorskip("captum.testing.attr.helpers.test_config", reason=REASON).config

pytestmark = pytest.mark.filterwarnings(
    "ignore:Internal batch size",
    "ignore:Multiple layers provided",
    "ignore:every attribution",
)

CASES = [
    pytest.param(case, id=case["name"])
    for case in config
    if LayerIntegratedGradients in case["algorithms"]
]


def layers_of(case):
    names = case["layer"]
    found = [
        _get_module_from_name(case["model"], name)
        for name in ([names] if isinstance(names, str) else names)
    ]
    return found[0] if isinstance(names, str) else found


def flat(attributions):
    if isinstance(attributions, torch.Tensor):
        return [attributions]
    return [tensor for item in attributions for tensor in flat(item)]


def row(value, i, batch):
    if isinstance(value, torch.Tensor) and value.ndim and len(value) == batch:
        return value[i : i + 1]
    if isinstance(value, tuple):
        return tuple(row(item, i, batch) for item in value)
    return value


def test_there_are_cases():
    assert len(CASES) >= 12


def test_signature_starts_as_layer_integrated_gradients():
    captums = list(inspect.signature(LayerIntegratedGradients.attribute).parameters)
    ours = inspect.signature(NarrowingIB.attribute).parameters
    assert list(ours)[: len(captums)] == captums
    assert all(
        ours[name].kind is inspect.Parameter.KEYWORD_ONLY for name in list(ours)[len(captums) :]
    )


@pytest.mark.parametrize("case", CASES)
def test_input_baselines_give_captums_numbers(case):
    layers, arguments = layers_of(case), case["attribute_args"]
    arguments = {"n_steps": 12, "method": "gausslegendre", "baselines": None} | arguments
    if arguments["baselines"] is None:
        inputs = arguments["inputs"]
        count = len(inputs) if isinstance(inputs, tuple) else 1
        arguments["baselines"] = (0,) * count if isinstance(inputs, tuple) else 0
    ours = NarrowingIB(case["model"], layers).attribute(**arguments)
    captums = LayerIntegratedGradients(case["model"], layers).attribute(**arguments)
    for actual, expected in zip(flat(ours), flat(captums), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert isinstance(ours, list) == isinstance(layers, list)


@pytest.mark.parametrize("case", CASES)
def test_each_row_equals_the_row_alone(case):
    layers, arguments = layers_of(case), dict(case["attribute_args"])
    inputs, target = arguments["inputs"], arguments["target"]
    batch = len(inputs[0]) if isinstance(inputs, tuple) else len(inputs)
    method = NarrowingIB(case["model"], layers)
    together = flat(method.attribute(**arguments))
    for i in range(batch):
        one = target[i] if isinstance(target, (list, torch.Tensor)) else target
        single = arguments | {"inputs": row(inputs, i, batch), "target": one}
        if "additional_forward_args" in single:
            single["additional_forward_args"] = row(single["additional_forward_args"], i, batch)
        for whole, alone in zip(together, flat(method.attribute(**single)), strict=True):
            torch.testing.assert_close(whole[i : i + 1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("failure", [None, "target", "layer"])
def test_hooks_are_removed(case, failure):
    layers, arguments = layers_of(case), dict(case["attribute_args"])
    first = layers[0] if isinstance(layers, list) else layers
    method = NarrowingIB(case["model"], layers)
    if failure == "target":
        arguments["target"] = (9999,) * 5
        with pytest.raises(AssertionError):
            method.attribute(**arguments)
    elif failure == "layer":
        handle = first.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            method.attribute(**arguments)
        handle.remove()
    else:
        method.attribute(**arguments)
    for module in case["model"].modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in vars(module)


@pytest.mark.parametrize("case", CASES)
def test_identity_layer_at_the_input_equals_integrated_gradients(case):
    class Wrapped(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.identity, self.model = torch.nn.Identity(), model

        def forward(self, first, *rest):
            return self.model(self.identity(first), *rest)

    arguments = dict(case["attribute_args"]) | {"n_steps": 9, "method": "riemann_right"}
    inputs = arguments.pop("inputs")
    first, *rest = inputs if isinstance(inputs, tuple) else (inputs,)
    rest += arguments.pop("additional_forward_args", ())
    arguments |= {"additional_forward_args": tuple(rest) or None}
    wrapped = Wrapped(case["model"])
    expected = IntegratedGradients(wrapped).attribute(first, **arguments)
    actual = NarrowingIB(wrapped, wrapped.identity).attribute(first, **arguments)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def runs_in_a_noise_tunnel(case):
    """NoiseTunnel repeats the batch itself, and takes no list of layers."""
    return isinstance(case["layer"], str) and "internal_batch_size" not in case["attribute_args"]


@pytest.mark.parametrize("case", [case for case in CASES if runs_in_a_noise_tunnel(case.values[0])])
def test_noise_tunnel_runs_over_it(case):
    arguments = dict(case["attribute_args"])
    method = NarrowingIB(case["model"], layers_of(case))
    plain = flat(method.attribute(**arguments))
    tunnel = flat(NoiseTunnel(method).attribute(nt_samples=3, stdevs=0.0, **arguments))
    for actual, expected in zip(tunnel, plain, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
