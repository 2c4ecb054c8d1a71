"""The promises that every attribution method keeps."""

import gc
import inspect
from concurrent.futures import ThreadPoolExecutor

import captum.attr
import pytest
import torch
from captum.attr import NoiseTunnel
from captum.attr._utils.attribution import Attribution
from families import build
from helpers import snapshot
from torch import nn

from captum_mi.attr import METHODS, RISE, GenericAttention, LayerRISE
from captum_mi.models import ImageTextSimilarity, blocks

REDUCE_CHANNELS = {"rise", "gradcam", "chefer", "attention"}
READ_ATTENTION = {"chefer", "attention"}
TEXTS = ["a red circle", "a blue square and a green heart", "a heart"]


@pytest.fixture(scope="module")
def clip():
    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, TEXTS).eval()
    return similarity, blocks(model, "image")[1]


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


@pytest.fixture
def factory(name, monkeypatch):
    # The promises do not depend on the number of masks; 4,000 would take a minute in all.
    monkeypatch.setitem(LayerRISE.attribute.__wrapped__.__kwdefaults__, "n_masks", 200)
    return METHODS[name]


@pytest.fixture
def pixels():
    return torch.randn(3, 3, 32, 32)


def test_is_a_captum_attribution_with_a_readable_name(factory, clip):
    method = factory(*clip)
    assert isinstance(method, Attribution)
    assert hasattr(factory.attribute, "__wrapped__")
    assert "I B" not in method.get_name()


def test_constructor_takes_captums_device_ids(factory, clip):
    assert list(inspect.signature(factory.__init__).parameters)[3] == "device_ids"
    assert factory(*clip, [0]).device_ids == [0]


def test_whether_it_multiplies_by_inputs(name, factory, clip):
    # The layer's value times weights, or what the output loses without it; not nats, nor the steps
    # of an attack, nor what is read off attention.
    multiplies = name in {"nib", "fastig", "gradcam", "rise"}
    assert factory(*clip).multiplies_by_inputs is multiplies
    assert RISE(clip[0]).multiplies_by_inputs


def test_short_names_are_no_other_classes_of_captum(name):
    assert name not in {key.lower() for key in vars(captum.attr)}


def test_rows_do_not_influence_each_other(factory, clip, pixels):
    together = factory(*clip).attribute(pixels, target=[0, 1, 2])
    for i in range(3):
        alone = factory(*clip).attribute(pixels[i : i + 1], target=i)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-3, atol=1e-5)


def test_same_call_same_numbers(factory, clip, pixels):
    first = factory(*clip).attribute(pixels, target=0)
    assert torch.equal(first, factory(*clip).attribute(pixels, target=0))


def test_internal_batch_size_does_not_change_numbers(factory, clip, pixels):
    if "internal_batch_size" not in inspect.signature(factory.attribute).parameters:
        pytest.skip("runs its rows at once")
    expected = factory(*clip).attribute(pixels, target=0)
    actual = factory(*clip).attribute(pixels, target=0, internal_batch_size=3)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5)


def test_two_threads_get_what_one_gets(factory, clip, pixels):
    method = factory(*clip)
    expected = method.attribute(pixels, target=0)
    before = snapshot(clip[0])
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(method.attribute, pixels, target=0) for _ in range(6)]
        for call in calls:
            torch.testing.assert_close(call.result(), expected)
    assert snapshot(clip[0]) == before


def test_callers_without_gradients_get_the_same(factory, clip, pixels):
    expected = factory(*clip).attribute(pixels, target=0)
    with torch.no_grad():
        torch.testing.assert_close(factory(*clip).attribute(pixels, target=0), expected)
    with torch.inference_mode():
        actual = factory(*clip).attribute(pixels.clone(), target=0)
    torch.testing.assert_close(actual, expected)
    assert not expected.requires_grad


@pytest.mark.parametrize("failure", [None, "target", "layer"])
def test_nothing_is_left_behind(factory, clip, pixels, failure):
    similarity, layer = clip
    next(similarity.parameters()).requires_grad_(False)
    similarity.model.logit_scale.grad = torch.ones(())
    similarity.model.vision_model(pixels, output_hidden_states=True)  # leaves hooks of its own
    before, state = snapshot(similarity), torch.get_rng_state()
    if failure == "target":
        with pytest.raises((AssertionError, IndexError)):
            factory(similarity, layer).attribute(pixels, target=7)
    elif failure == "layer":
        handle = layer.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            factory(similarity, layer).attribute(pixels, target=0)
        handle.remove()
    else:
        factory(similarity, layer).attribute(pixels, target=0)
    after = snapshot(similarity)
    similarity.model.logit_scale.grad = None
    assert after == before
    assert torch.equal(torch.get_rng_state(), state)


def test_inputs_are_left_alone(factory, clip, pixels):
    pixels.requires_grad_()
    original = pixels.detach().clone()
    factory(*clip).attribute(pixels, target=0)
    assert pixels.grad is None
    assert pixels.requires_grad
    assert torch.equal(pixels, original)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_give_finite_float32(factory, dtype, pixels):
    model, processor = build("clip")
    similarity = ImageTextSimilarity(model.to(dtype), processor, TEXTS)
    found = factory(similarity, blocks(model, "image")[1]).attribute(pixels, target=0)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert found.abs().sum() > 0


def test_nan_in_the_layer_is_an_error_that_names_it(factory, clip, pixels):
    pixels[1, 0, 3, 3] = float("nan")
    with pytest.raises(
        ValueError, match=r"layer 'model.vision_model.encoder.layers.1' .* holds NaN"
    ):
        factory(*clip).attribute(pixels, target=0)


def test_last_block_warns(name, factory, clip, pixels):
    similarity, _ = clip
    if name in READ_ATTENTION:
        pytest.skip("the last attention tells where the pooled token looks")
    if name == "rise":
        pytest.skip("an estimate from random masks is not exactly zero")
    words = "every attribution .* is zero" if name == "gradcam" else "only one token"
    with pytest.warns(UserWarning, match=words):
        factory(similarity, blocks(similarity)[-1]).attribute(pixels, target=0)


def test_under_a_noise_tunnel(name, factory, clip, pixels):
    found = NoiseTunnel(factory(*clip)).attribute(pixels, nt_samples=2, target=0)
    assert found.shape == (3, 17, 1 if name in REDUCE_CHANNELS else 32)


def test_a_list_of_layers_gives_a_list(factory, clip, pixels):
    if factory is GenericAttention:
        pytest.skip("rolls out over all that it is given")
    similarity, layer = clip
    other = blocks(similarity)[2]
    both = factory(similarity, [layer, other]).attribute(pixels, target=0)
    assert isinstance(both, list)
    for found, alone in zip(both, [layer, other], strict=True):
        torch.testing.assert_close(found, factory(similarity, alone).attribute(pixels, target=0))


def test_on_a_convolution_network(name, factory):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 5, 3),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )
    if name in READ_ATTENTION:
        with pytest.raises(ValueError, match=r"layer '0' \(Conv2d\) ran no attention"):
            factory(model, model[0]).attribute(torch.randn(2, 3, 16, 16), target=1)
        return
    found = factory(model, model[0]).attribute(torch.randn(2, 3, 16, 16), target=1)
    assert found.shape == (2, 1 if name in REDUCE_CHANNELS else 4, 7, 7)


def test_repeated_calls_do_not_pile_up_tensors(factory, clip, pixels):
    def alive():
        return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())

    factory(*clip).attribute(pixels, target=0)
    gc.collect()
    gc.disable()
    try:
        before = alive()
        for _ in range(3):
            factory(*clip).attribute(pixels, target=0)
        assert alive() <= before
    finally:
        gc.enable()
