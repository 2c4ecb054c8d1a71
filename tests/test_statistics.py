"""Fitted statistics of both towers, and the starts of paths that they and blank inputs give."""

import pytest
import torch
from families import FAMILIES, build
from PIL import Image

from captum_mi import MultimodalIB, NarrowingIB
from captum_mi.attr import LayerStatistics
from captum_mi.datasets import Pair, scene_pairs
from captum_mi.explanation import (
    TokenStatistics,
    TowerStatistics,
    attribute_image,
    attribute_text,
    explain_pairs,
)
from captum_mi.models import (
    ImageTextSimilarity,
    TextImageSimilarity,
    blank_ids,
    blank_pixels,
    blocks,
    tokenize,
)
from captum_mi.models.clip import image_features, preprocess, text_features

WORD = -1
CAPTIONS = ["a red circle", "a blue square and a green heart", "a heart", "a green circle"]


def picture(seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (40, 40, 3), dtype=torch.uint8, generator=generator)
    return Image.fromarray(pixels.numpy())


def pairs():
    return [Pair(str(i), text, picture(i)) for i, text in enumerate(CAPTIONS)]


def value_of(layer, run, *, at_input):
    values = []
    if at_input:
        handle = layer.register_forward_pre_hook(lambda _, args: values.append(args[0]))
    else:
        handle = layer.register_forward_hook(lambda _, __, output: values.append(output))
    with torch.no_grad():
        run()
    handle.remove()
    (value,) = values
    return value if isinstance(value, torch.Tensor) else value[0]


def test_tokens_are_grouped_by_kind_and_place():
    texts = [
        ([0, WORD, WORD, 9], torch.tensor([[1.0], [2.0], [4.0], [6.0]])),
        ([0, WORD, 9], torch.tensor([[3.0], [8.0], [0.0]])),
        ([5, 0, WORD, 9], torch.tensor([[7.0], [7.0], [7.0], [5.0]])),
    ]
    fitted = TokenStatistics.fit(texts)
    assert fitted.count == 3
    found = fitted.of([0, WORD, WORD, WORD, 9])
    # At the fourth place is no word, at the fifth no end: those anywhere stand in.
    anywhere = torch.tensor([2.0, 4.0, 8.0, 7.0])
    ends = torch.tensor([6.0, 0.0, 5.0])
    mean = [2, 5, 5.5, anywhere.mean(), ends.mean()]
    torch.testing.assert_close(found.mean[:, 0], torch.tensor(mean))
    spread = [2**0.5, 18**0.5, 4.5**0.5, anywhere.std(), ends.std()]
    torch.testing.assert_close(found.std[:, 0], torch.tensor(spread))
    torch.testing.assert_close(found.active[:, 0], torch.tensor([1, 1, 1, 1, 2 / 3]))
    # Where two texts have the end at the place, it is no other text's.
    torch.testing.assert_close(fitted.of([0, WORD, WORD, 9]).mean[-1], torch.tensor([5.5]))
    with pytest.raises(ValueError, match="know no special token 5; fit them on more texts"):
        fitted.of([5, WORD, 9])
    with pytest.raises(ValueError, match="must be those of two texts or more, got 1"):
        TokenStatistics.fit([([0, WORD, WORD], torch.zeros(3, 1))])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("states", [(1, 0), (2, 1)])
def test_they_are_those_of_the_hidden_states(family, states, tmp_path):
    model, processor = build(family)
    fitted = TowerStatistics.fit(model, processor, pairs(), states)
    at_input = states[1] == 0
    layer = blocks(model, "image")[states[0] - 1]
    pixels = [preprocess(model, processor, [pair.load()]) for pair in pairs()]
    images = value_of(layer, lambda: image_features(model, torch.cat(pixels)), at_input=False)
    torch.testing.assert_close(fitted.image.mean, images.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fitted.image.std, images.std(0), atol=1e-5, rtol=1e-3)
    layer = blocks(model, "text")[max(states[1] - 1, 0)]
    encoded = [tokenize(model, processor, [text]) for text in CAPTIONS]
    texts = [
        value_of(layer, lambda one=one: text_features(model, one), at_input=at_input)[0]
        for one in encoded
    ]
    own = fitted.of_text(states[1], processor, encoded[0]["input_ids"])
    first = torch.stack([text[1] for text in texts])  # the first word of each
    torch.testing.assert_close(own.mean[1], first.mean(0), atol=1e-5, rtol=1e-4)
    begins = torch.stack([text[0] for text in texts])
    torch.testing.assert_close(own.mean[0], begins.mean(0), atol=1e-5, rtol=1e-4)
    fitted.save(tmp_path / "statistics.safetensors")
    loaded = TowerStatistics.load(tmp_path / "statistics.safetensors")
    assert loaded.hidden_states == states
    assert (loaded.image.count, loaded.text.count) == (4, 4)
    for one, other in ((loaded.image, fitted.image), (loaded.text, fitted.text)):
        for name in ("mean", "std", "active"):
            assert torch.equal(getattr(one, name), getattr(other, name))
    assert torch.equal(loaded.text.keys, fitted.text.keys)


def test_what_cannot_be_read_is_left_out(embedded):
    good = list(scene_pairs(3))
    bad = [Pair("gone", "a heart", good[0].source, problem="no such file"), Pair("none", "", None)]
    fitted = TowerStatistics.fit(*embedded, [*good, *bad])
    assert (fitted.image.count, fitted.text.count) == (3, 4)
    with pytest.raises(ValueError, match="two samples, got 0; the first was left out for: no such"):
        TowerStatistics.fit(*embedded, bad)
    long = Pair("long", "a " * 99, good[0].source)
    with pytest.raises(ValueError, match=r"two texts or more, got 1; the first .* for: a text has"):
        TowerStatistics.fit(*embedded, [long, good[0]])


def test_pairs_may_be_an_iterator(embedded):
    fitted = TowerStatistics.fit(*embedded, iter(scene_pairs(3)))
    assert (fitted.image.count, fitted.text.count) == (3, 3)


def test_a_file_of_something_else_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there are no statistics"):
        TowerStatistics.load(tmp_path / "absent")
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(ValueError, match=r"text' holds no statistics of two towers"):
        TowerStatistics.load(tmp_path / "text")
    one = LayerStatistics(torch.zeros(2), torch.ones(2), torch.ones(2), 3)
    one.save(tmp_path / "one")
    with pytest.raises(ValueError, match=r"one' holds no statistics of two towers"):
        TowerStatistics.load(tmp_path / "one")


@pytest.fixture(scope="module")
def given(embedded):
    model, processor = embedded
    pair = scene_pairs(1, seed=3)[0]
    pixels = preprocess(model, processor, [pair.load()])
    to_text = ImageTextSimilarity(model, processor, [pair.text])
    to_image = TextImageSimilarity(model, processor, [pair.load()])
    encoded = tokenize(model, processor, [pair.text])
    fitted = TowerStatistics.fit(model, processor, scene_pairs(8), (2, 1))
    return model, processor, to_text, pixels, to_image, encoded, fitted


def starts_of(kind, image, text, given, **of_nib):
    """What the class gives from a start, in the image and in the text."""
    model, _, to_text, pixels, to_image, encoded, _ = given
    mask = encoded["attention_mask"]
    return (
        kind(to_text, blocks(model)[1]).attribute(pixels, target=0, **image, **of_nib),
        kind(to_image, blocks(model, "text")[0]).attribute(
            encoded["input_ids"], target=0, additional_forward_args=mask, **text, **of_nib
        ),
    )


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("nib", None),
        ("nib", "zero"),
        ("nib-zero", None),
        ("nib-zero", "blank"),
        ("nib-mean", "fitted"),
        ("nib", "fitted"),
        ("m2ib", None),
        ("m2ib", "fitted"),
        ("m2ib-prior", "fitted"),
        ("m2ib-prior", "zero"),
    ],
)
def test_starts(name, start, given):
    _, processor, to_text, pixels, to_image, encoded, fitted = given
    options = {"start": fitted if start == "fitted" else start, "n_steps": 3}
    in_image = attribute_image(name, to_text, processor, pixels, 0, hidden_state=2, **options)
    in_text = attribute_text(name, to_image, processor, encoded, 0, hidden_state=1, **options)
    kind = NarrowingIB if name.startswith("nib") else MultimodalIB
    of_text = fitted.of_text(1, processor, encoded["input_ids"])
    argument = "layer_baselines" if kind is NarrowingIB else "prior"
    expected = {
        "zero": ({}, {}),
        "blank": (
            {"baselines": blank_pixels(processor, pixels)},
            {"baselines": blank_ids(processor, encoded["input_ids"])},
        ),
        "fitted": ({argument: fitted.image}, {argument: of_text}),
    }[start or {"nib": "blank"}.get(name, "zero")]
    image, text = starts_of(kind, *expected, given, n_steps=3)
    torch.testing.assert_close(in_image.values, image)
    torch.testing.assert_close(in_text.values, text)
    assert (in_image.delta is None) == (kind is MultimodalIB) == (in_image.gap is None)


def test_the_gap_is_a_share_of_what_the_score_gains(given):
    _, processor, to_text, pixels, *_ = given
    found = attribute_image("nib", to_text, processor, pixels, 0, n_steps=2)
    with torch.no_grad():
        gained = to_text(pixels) - to_text(blank_pixels(processor, pixels))
    share = (found.values.sum() - gained).abs() / gained.abs()
    torch.testing.assert_close(found.gap, share[0], atol=1e-4, rtol=1e-3)


def test_a_mask_and_what_is_to_be_kept_reach_the_method(given):
    """Padding behind a text changes nothing, and RISE masks words alone."""
    model, processor, _, _, to_image, _, _ = given
    both = tokenize(model, processor, ["a heart", "a blue square and a red heart"])
    short = tokenize(model, processor, ["a heart"])
    width = short["input_ids"].shape[1]
    seen = []
    handle = model.text_model.register_forward_pre_hook(
        lambda _, args, given: seen.append(given["attention_mask"]), with_kwargs=True
    )
    try:
        found = attribute_text("nib", to_image, processor, both, [0, 0], n_steps=2)
    finally:
        handle.remove()
    assert seen
    assert all(mask is not None for mask in seen)
    alone = attribute_text("nib", to_image, processor, short, 0, n_steps=2)
    torch.testing.assert_close(found.values[0, :width], alone.values[0], atol=1e-5, rtol=1e-3)
    words = attribute_text("rise", to_image, processor, short, 0, n_masks=20).values.sum(-1)
    assert words[0, [0, -1]].abs().max() == 0 < words.abs().max()


def test_defaults_are_early_for_an_informed_start(given):
    _, processor, to_text, pixels, to_image, encoded, _ = given
    options = {"n_steps": 2}
    early = attribute_image("nib", to_text, processor, pixels, 0, hidden_state=1, **options)
    late = attribute_image("nib-zero", to_text, processor, pixels, 0, hidden_state=3, **options)
    for name, expected in (("nib", early), ("nib-zero", late)):
        found = attribute_image(name, to_text, processor, pixels, 0, **options)
        assert torch.equal(found.values, expected.values)
    first = attribute_text("nib", to_image, processor, encoded, 0, hidden_state=0, **options)
    found = attribute_text("nib", to_image, processor, encoded, 0, **options)
    assert torch.equal(found.values, first.values)


@pytest.mark.parametrize(
    ("name", "start", "words"),
    [
        ("m2ib-prior", None, "`start` of m2ib-prior must be statistics .* captum-mi fit"),
        ("m2ib", "blank", r"`start` of m2ib must be 'zero', .* or statistics, got 'blank'"),
        ("gradcam", "zero", "`start` is for nib, .* and m2ib-prior; gradcam has no start"),
        ("nib", "mean", "`start` must be one of 'zero', 'blank', got 'mean'"),
        ("nib", "fitted", "of hidden state 2 of the image tower, not of 1; fit them there, or set"),
    ],
)
def test_starts_that_are_refused(name, start, words, given):
    _, processor, to_text, pixels, *_, fitted = given
    start = fitted if start == "fitted" else start
    with pytest.raises(ValueError, match=words):
        attribute_image(name, to_text, processor, pixels, 0, start=start, hidden_state=1)


def test_statistics_are_explained_where_they_were_fitted(given):
    model, processor, to_text, pixels, to_image, encoded, fitted = given
    options = {"start": fitted, "n_steps": 2}
    in_image = attribute_image("nib", to_text, processor, pixels, 0, **options)
    expected = attribute_image("nib", to_text, processor, pixels, 0, hidden_state=2, **options)
    assert torch.equal(in_image.values, expected.values)
    in_text = attribute_text("nib-zero", to_image, processor, encoded, 0, **options)
    expected = attribute_text(
        "nib-zero", to_image, processor, encoded, 0, hidden_state=1, **options
    )
    assert torch.equal(in_text.values, expected.values)
    found = explain_pairs(model, processor, picture(0), ["a heart"], **options)
    assert found.hidden_states == (2, 1)
    half = explain_pairs(
        model, processor, picture(0), ["a heart"], hidden_states=(2, None), **options
    )
    assert half.hidden_states == (2, 1)


def test_an_option_comes_before_the_start(given):
    _, processor, to_text, pixels, *_ = given
    options = {"hidden_state": 2, "n_steps": 2}
    zero = attribute_image("nib-zero", to_text, processor, pixels, 0, **options)
    found = attribute_image(
        "nib", to_text, processor, pixels, 0, **options, layer_baselines=0.0, method="riemann_right"
    )
    torch.testing.assert_close(found.values, zero.values)


def test_texts_of_two_lengths_have_no_common_statistics(given):
    model, processor, *_, fitted = given
    ids = tokenize(model, processor, ["a heart", "a red heart"])["input_ids"]
    with pytest.raises(ValueError, match="`input_ids` must be texts of one length"):
        fitted.of_text(1, processor, ids)
    same = tokenize(model, processor, ["a blue circle", "a red heart"])["input_ids"]
    assert fitted.of_text(1, processor, same).mean.shape == (5, 96)
