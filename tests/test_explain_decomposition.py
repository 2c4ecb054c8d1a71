"""Decompositions of image towers: fitted on images, and what they say of one."""

import json

import pytest
import torch
from families import FAMILIES, build
from PIL import Image

from captum_mi.attr import InfoNCEDecomposition
from captum_mi.datasets import Pair
from captum_mi.explanation import decompose_image, fit_decomposition, load_decomposition
from captum_mi.models import ImageTextSimilarity, blocks
from captum_mi.models.clip import image_features, preprocess

TEXTS = ["a red circle", "a blue square", "a heart"]
QUICK = {"epochs": 1, "hidden": 8}


def image(number):
    pixels = torch.randint(0, 256, (32, 32, 3), generator=torch.Generator().manual_seed(number))
    return Image.fromarray(pixels.to(torch.uint8).numpy())


def pairs(count=30):
    return [Pair(str(i), TEXTS[i % 3], image(i)) for i in range(count)]


@pytest.fixture(scope="module")
def clip():
    return build("clip")


@pytest.fixture(scope="module")
def fitted(clip):
    return fit_decomposition(*clip, pairs(), **QUICK)


@pytest.fixture
def loaders(monkeypatch):
    """What the fit and the held-out means would go through."""
    seen = {}
    monkeypatch.setattr(
        InfoNCEDecomposition, "fit", lambda _self, loader, *_, **__: seen.update(fit=loader)
    )
    monkeypatch.setattr(
        InfoNCEDecomposition, "information", lambda _self, loader: seen.update(judged=loader)
    )
    return seen


def test_images_come_with_the_numbers_of_their_texts_and_some_are_kept_apart(clip, loaders):
    found = fit_decomposition(*clip, pairs())
    assert found.method.forward_func.texts == TEXTS
    assert (found.hidden_state, found.n_images) == (2, 27)
    fit, judged = loaders["fit"].dataset, loaders["judged"].dataset
    assert list(judged.indices) == [0, 10, 20]
    assert sorted({*fit.indices, *judged.indices}) == list(range(30))
    for subset in (fit, judged):
        for (pixels, label), number in zip(subset, subset.indices, strict=True):
            assert label == number % 3
            assert torch.equal(pixels, preprocess(*clip, [image(number)])[0])
    (batch,) = loaders["fit"]
    assert batch[1].tolist() == [i % 3 for i in fit.indices]


def test_among_given_texts_the_model_decides(clip, loaders):
    found = fit_decomposition(*clip, pairs(), ["a circle", "a heart"], hidden_state=3)
    assert found.method.forward_func.texts == ["a circle", "a heart"]
    assert found.method.layer is blocks(clip[0], "image")[2]
    assert found.hidden_state == 3
    (batch,) = loaders["fit"]
    assert batch.shape == (27, 3, 32, 32)


def test_what_cannot_be_read_is_left_out_and_told(clip, loaders):
    broken = Pair("broken", "a heart", b"no image")
    with pytest.warns(
        UserWarning, match="2 of 32 images are left out, the first for: 'broken' cannot"
    ):
        fit_decomposition(*clip, [broken, *pairs(), broken])
    pixels, label = loaders["fit"].dataset[0]
    assert label == 1
    assert torch.equal(pixels, preprocess(*clip, [image(1)])[0])
    assert len(loaders["fit"].dataset) == 27
    with (
        pytest.warns(UserWarning, match="1 of 24 images"),
        pytest.raises(ValueError, match=r"`pairs` must hold 24 images at least .* got 23"),
    ):
        fit_decomposition(*clip, [broken, *pairs(23)])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"hidden_state": 0}, "`hidden_state` must be at least 1, the places behind a block"),
        ({"hidden_state": 6}, "`hidden_state` must be 0 to 5"),
        ({"texts": ["a heart"]}, r"`texts` must be two at least, to choose among, got \['a heart"),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_images_are_read(arguments, words, clip):
    class Unread(Pair):
        def load(self):
            raise AssertionError

    with pytest.raises(ValueError, match=words):
        fit_decomposition(*clip, [Unread("", "", b"")] * 30, **arguments)


def test_the_texts_of_the_data_must_be_two(clip):
    same = [Pair(pair.name, "a heart", pair.source) for pair in pairs()]
    with pytest.raises(ValueError, match=r"`texts` must be two at least, .* got \['a heart'\]"):
        fit_decomposition(*clip, same)


def test_an_image_is_decomposed_patch_by_patch(clip, fitted):
    found = decompose_image(fitted.method, clip[1], image(99))
    maps = fitted.method.decompose(preprocess(*clip, [image(99)]))
    for name in ("total", "decision", "redundant", "mask"):
        expected = getattr(maps, name)[:, 1:, 0].reshape(1, 1, 4, 4)
        torch.testing.assert_close(getattr(found.parts, name), expected)
    assert found.parts.total.std() > 0
    assert found.pixels.shape == (32, 32, 3)
    said = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert said["cap"] == pytest.approx(fitted.information.cap)
    assert said["places"]["mask"] == pytest.approx(found.parts.mask[0, 0].numpy(), abs=1e-6)
    assert said["means"]["total"] == pytest.approx(float(maps.total[:, 1:].mean()), abs=1e-6)


def test_a_file_explains_what_was_fitted(clip, fitted, tmp_path):
    fitted.method.save(tmp_path / "fitted")
    loaded = load_decomposition(tmp_path / "fitted", *clip)
    expected = decompose_image(fitted.method, clip[1], image(7)).parts
    actual = decompose_image(loaded, clip[1], image(7)).parts
    assert torch.equal(actual.total, expected.total)
    assert torch.equal(actual.decision, expected.decision)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "clip"])
def test_every_family_is_decomposed(family):
    model, processor = build(family)
    method = fit_decomposition(model, processor, pairs(24), **QUICK).method
    parts = decompose_image(method, processor, image(1)).parts
    assert parts.total.shape == (1, 1, 4, 4)
    assert parts.total.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_embedding_is_a_layer_of_every_family(family):
    model, processor = build(family)
    similarity, seen = ImageTextSimilarity(model, processor, TEXTS), []
    similarity.embedding.register_forward_hook(lambda _m, _a, output: seen.append(output))
    pixels = torch.randn(2, 3, 32, 32)
    cosines = similarity(pixels)
    features = image_features(model, pixels)
    torch.testing.assert_close(seen[0], features / features.norm(dim=1, keepdim=True))
    torch.testing.assert_close(cosines, seen[0] @ similarity.text_embeddings.T)
