"""The promises that every attribution method keeps."""

import gc
import inspect
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import captum.attr
import pytest
import torch
from captum.attr import NoiseTunnel
from captum.attr._utils.attribution import Attribution
from families import build
from helpers import snapshot
from torch import nn

from captum_mi.attr import METHODS, RISE, GenericAttention, LayerRISE
from captum_mi.attr.methods import Method, Place, call_attribute, options_of, ready_methods
from captum_mi.datasets import scene_pairs
from captum_mi.explanation import TowerStatistics, attribute_image, attribute_text, layer_of
from captum_mi.metrics import explain
from captum_mi.models import ImageTextSimilarity, TextImageSimilarity, blocks, tokenize
from captum_mi.models.towers import hidden_state, token_embedding

REDUCE_CHANNELS = {"rise", "gradcam", "chefer", "attention", "infonce"}
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
def kind(name):
    return METHODS[name].kind


@pytest.fixture
def factory(name, kind, monkeypatch):
    """Makes the method, of a model and a layer; one that needs it is fitted, once for each."""
    # The promises do not depend on the number of masks; 4,000 would take a minute in all.
    monkeypatch.setitem(LayerRISE.attribute.__wrapped__.__kwdefaults__, "n_masks", 200)
    return fitted if METHODS[name].needs_fit else kind


def global_layer(model):
    return model[-1] if isinstance(model, nn.Sequential) else model.model.visual_projection


@cache
def fitted(model, layer):
    method = METHODS["infonce"](model, layer, global_layer=global_layer(model), hidden=16)
    side = 16 if isinstance(model, nn.Sequential) else 32
    images = torch.randn(4, 8, 3, side, side, generator=torch.Generator().manual_seed(0))
    assert len(method.fit(list(images), epochs=2, validation=0.25)) == 2
    return method


@pytest.fixture
def pixels():
    return torch.randn(3, 3, 32, 32)


def test_is_a_captum_attribution_with_a_readable_name(factory, kind, clip):
    method = factory(*clip)
    assert isinstance(method, Attribution)
    assert hasattr(kind.attribute, "__wrapped__")
    assert "I B" not in method.get_name()


def test_constructor_takes_captums_device_ids(name, kind, clip):
    layers = [clip[1], *([global_layer(clip[0])] if METHODS[name].needs_fit else [])]
    assert list(inspect.signature(kind.__init__).parameters)[2 + len(layers)] == "device_ids"
    assert kind(clip[0], *layers, [0]).device_ids == [0]


def test_whether_it_multiplies_by_inputs(name, factory, clip):
    # The layer's value times weights, or what the output loses without it; not nats, nor the steps
    # of an attack, nor what is read off attention.
    multiplies = name in {"nib", "nib-zero", "nib-mean", "fastig", "gradcam", "rise"}
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


def test_internal_batch_size_does_not_change_numbers(factory, kind, clip, pixels):
    if "internal_batch_size" not in inspect.signature(kind.attribute).parameters:
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
def test_nothing_is_left_behind(name, factory, clip, pixels, failure):
    if name == "infonce" and failure == "target":
        pytest.skip("no target is chosen after the fit")
    similarity, layer = clip
    factory(similarity, layer)  # fitted before
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
    if name in {"rise", "infonce"}:
        pytest.skip("an estimate is not exactly zero")
    words = "every attribution .* is zero" if name == "gradcam" else "only one token"
    with pytest.warns(UserWarning, match=words):
        factory(similarity, blocks(similarity)[-1]).attribute(pixels, target=0)


def test_under_a_noise_tunnel(name, factory, clip, pixels):
    found = NoiseTunnel(factory(*clip)).attribute(pixels, nt_samples=2, target=0)
    assert found.shape == (3, 17, 1 if name in REDUCE_CHANNELS else 32)


def test_a_list_of_layers_gives_a_list(name, factory, kind, clip, pixels):
    if name == "chefer":
        pytest.skip("rolls out over all that it is given")
    similarity, layer = clip
    other = blocks(similarity)[2]
    if name == "infonce":
        with pytest.raises(TypeError, match="`layer` must be a module, got list"):
            kind(similarity, [layer, other], global_layer(similarity))
        return
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


def test_an_entry_is_called_like_its_class(name, clip):
    known = METHODS[name]
    more = {"global_layer": global_layer(clip[0])} if known.needs_fit else {}
    method = known(*clip, device_ids=[0], **more)
    assert type(method) is known.kind
    assert (method.forward_func, method.layer, method.device_ids) == (*clip, [0])


def test_every_entry_has_all_facts(name):
    known = METHODS[name]
    assert known.name == name
    assert known.explaining(object()) is known.kind
    assert known.explaining(None) is (RISE if name == "rise" else known.kind)
    assert known.unit in ("cosine", "nats", "pointwise nats", None)
    assert (known.least_steps is None) == (not known.takes("n_steps"))
    signed = name in {"nib", "nib-zero", "nib-mean", "rise", "mfaba", "fastig"}
    assert (known.unit == "cosine") == signed
    assert known.needs_fit == (name == "infonce") == (known.unit == "pointwise nats")
    assert known.takes("global_layer") == known.needs_fit == hasattr(known.kind, "fit")
    starts = {"nib": "blank", "nib-zero": "zero", "m2ib": "zero"}
    starts |= {"nib-mean": "fitted", "m2ib-prior": "fitted"}
    assert known.start == starts.get(name)
    early = known.start is not None and name != "nib-zero"
    own = {"infonce": (2, 0)}
    assert known.hidden_states == own.get(name, (1, 0) if early else None)


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].unit in ("nats", None)])
def test_numbers_that_are_no_parts_of_the_cosine_are_never_negative(name, clip, pixels):
    assert METHODS[name](*clip).attribute(pixels, target=0).min() >= 0


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].takes("n_steps")])
def test_the_least_number_of_steps(name, clip, pixels):
    known = METHODS[name]
    least = known.least_steps
    known.check_steps(least)
    assert known(*clip).attribute(pixels, target=0, n_steps=least).isfinite().all()
    with pytest.raises(ValueError, match=f"`n_steps` must be at least {least}"):
        known(*clip).attribute(pixels, target=0, n_steps=least - 1)
    words = f"`--steps` must be at least {least} for {name}, got {least - 1}"
    with pytest.raises(ValueError, match=words):
        known.check_steps(least - 1, "`--steps`")


def test_a_method_without_steps_takes_any_number(clip):
    METHODS["chefer"].check_steps(0)
    assert METHODS["chefer"].taken(n_steps=3, start_layer=1) == {"start_layer": 1}


@pytest.mark.parametrize("tower", ["image", "text"])
def test_every_place_is_a_layer_of_the_embedded_model(name, tower, embedded):
    model, _ = embedded
    expected = {
        Place.HIDDEN_STATES: (blocks(model, tower)[1], False),
        Place.IMAGE_HIDDEN_STATE: (blocks(model, tower)[1], False),
        Place.FIRST_HIDDEN_STATES: (blocks(model, tower)[0], True),
        Place.ALL_BLOCKS: (blocks(model, tower), False),
        Place.LAST_BLOCKS: (blocks(model, tower)[-1], False),
        Place.INPUTS: (None if tower == "image" else token_embedding(model), False),
    }
    assert len(expected) == len(Place)
    place = METHODS[name].place
    assert layer_of(place, model, tower, 2) == expected[place]
    assert hidden_state(model, tower, 2) == expected[Place.HIDDEN_STATES]


def test_places_in_words():
    said = {name: known.place.words((3, 1)) for name, known in METHODS.items()}
    at_hidden_states = "hidden states 3 (image) and 1 (text)"
    assert said == {
        **dict.fromkeys(("nib", "nib-zero", "nib-mean", "m2ib-prior"), at_hidden_states),
        "m2ib": at_hidden_states,
        "rise": "the pixels and the words' embeddings",
        "gradcam": at_hidden_states,
        "chefer": "the attention of all blocks",
        "attention": "the attention of the last blocks",
        "mfaba": "hidden states 0",
        "fastig": at_hidden_states,
        "infonce": "hidden state 3 of the image",
    }


@pytest.fixture(scope="module")
def sides(embedded):
    """The embedded model's similarities to a text and to an image, both as they are given, and
    statistics of both."""
    model, processor = embedded
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    pixels = processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
    encoded = tokenize(model, processor, TEXTS[:1])
    to_text = ImageTextSimilarity(model, processor, TEXTS[:1])
    fitted = TowerStatistics.fit(model, processor, scene_pairs(3), (3, 1))
    return to_text, pixels, TextImageSimilarity(model, processor, [image]), encoded, fitted


def doors(name, sides, processor, **options):
    """Every way to explain with a method by its name."""
    to_text, pixels, to_image, encoded, fitted = sides
    layer = "model.vision_model.encoder.layers.2"
    start, given = None, {}
    if METHODS[name].start == "fitted":
        start = fitted
        given = METHODS[name].taken(layer_baselines=fitted.image, prior=fitted.image)

    return {
        "image": lambda: (
            attribute_image(
                name, to_text, processor, pixels, 0, hidden_state=3, start=start, **options
            ).values
        ),
        "text": lambda: (
            attribute_text(
                name, to_image, processor, encoded, 0, hidden_state=1, start=start, **options
            ).values
        ),
        "quantus": lambda: explain(
            to_text, pixels.numpy(), [0], name, layer, **{**given, **options}
        ),
    }


REFUSED = [
    (door, option)
    for door in ("image", "text", "quantus")
    for option in ("n_stepz", "target", "layer", "inputs", "forward_func")
    if door != "quantus" or option not in ("layer", "inputs")  # arguments of `explain` itself
]


@pytest.mark.parametrize(("door", "option"), REFUSED)
@pytest.mark.parametrize("name", ready_methods())
def test_an_option_that_a_method_does_not_take_is_refused(name, door, option, sides, embedded):
    takes = (
        r"RISE takes no argument '{}'; it takes .*n_masks, cells"
        if name == "rise"
        else (METHODS[name].kind.__name__ + r" takes no argument '{}'; it takes device_ids, ")
    )
    with pytest.raises(TypeError, match=takes.format(option)):
        doors(name, sides, embedded[1], **{option: 3})[door]()


@pytest.mark.parametrize("door", ["image", "text"])
@pytest.mark.parametrize("name", ready_methods())
def test_no_steps_are_given_to_a_method_without_steps(name, door, sides, embedded):
    call = doors(name, sides, embedded[1], n_steps=2)[door]
    if METHODS[name].least_steps is None:
        with pytest.raises(TypeError, match="takes no argument 'n_steps'"):
            call()
    else:
        assert call().isfinite().all()


def test_options_reach_the_constructor_and_the_call(sides, embedded):
    to_text, pixels, *_ = sides
    given = to_text, embedded[1], pixels, 0
    last = attribute_image("chefer", *given, start_layer=-1).values
    block = GenericAttention(to_text, blocks(to_text.model, "image"), start_layer=-1)
    torch.testing.assert_close(last, block.attribute(pixels, target=0))
    options = {"hidden_state": 3, "n_steps": 2}
    weighted = attribute_image("nib-zero", *given, **options).values
    gradient = attribute_image("nib-zero", *given, **options, multiply_by_inputs=False).values
    value = hidden_value(to_text, pixels)
    torch.testing.assert_close(weighted, gradient * value, atol=1e-6, rtol=1e-4)


def hidden_value(similarity, pixels):
    values = []
    layer = blocks(similarity.model, "image")[2]
    handle = layer.register_forward_hook(lambda _module, _args, output: values.append(output))
    with torch.no_grad():
        similarity(pixels)
    handle.remove()
    return values[0]


@pytest.mark.parametrize("door", ["image", "text", "quantus"])
def test_what_must_be_fitted_is_told_so_at_every_door(door, sides, embedded):
    words = "`method` infonce must be fitted .* captum-mi fit --method infonce, .* with fit of capt"
    with pytest.raises(ValueError, match=words):
        doors("infonce", sides, embedded[1])[door]()


class Recording(captum.attr.LayerAttribution):
    """An attribution that hands back what it was called with."""

    def __init__(self, forward_func, layer, *, power=1):
        super().__init__(forward_func, layer)
        self.power = power

    def attribute(self, inputs, target=None, *, keep=None, seed=0, **_other):
        return inputs**self.power, target  # as a layer of two tensors


def test_what_is_offered_is_passed_as_far_as_it_is_taken():
    layer, x = nn.Identity(), torch.tensor([2.0])
    assert options_of(Recording) == ["power", "keep", "seed"]
    offered = {"layer": layer, "target": 1, "keep": 2, "channels_last": True}
    found = call_attribute(Recording, layer, x, offered=offered, options={"power": 3, "keep": None})
    assert found[0].tolist() == [8.0]
    assert found[1] is None
    with pytest.raises(TypeError, match="'_other'; it takes power, keep, seed"):
        call_attribute(Recording, layer, x, offered=offered, options={"_other": 1})
    with pytest.raises(TypeError, match="Recording takes no argument 'channels_last'"):
        call_attribute(Recording, layer, x, offered=offered, options={"channels_last": True})


def test_a_method_is_one_entry(sides, embedded, monkeypatch):
    squared = Method("squared", f"{__name__}:Recording", Place.HIDDEN_STATES, "nats")
    monkeypatch.setitem(METHODS, "squared", squared)
    pixels = sides[1]
    found = doors("squared", sides, embedded[1], power=2)
    torch.testing.assert_close(found["image"](), pixels**2)
    assert found["quantus"]().shape == (1, 1, 64, 64)


def test_what_is_asked_for_comes_before_what_is_offered(embedded):
    """The input of the block is explained, though hidden state 3 is its output."""
    clip, processor = embedded
    similarity = ImageTextSimilarity(clip, processor, ["a heart"])
    pixels = torch.randn(1, 3, 64, 64)
    given = "fastig", similarity, processor, pixels, 0
    found = attribute_image(*given, hidden_state=3, attribute_to_layer_input=True).values
    torch.testing.assert_close(found, attribute_image(*given, hidden_state=2).values)
    assert not torch.allclose(found, attribute_image(*given, hidden_state=3).values)
