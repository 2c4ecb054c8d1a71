"""InfoNCEDecomposition: total, decision-related and redundant information of a layer's places."""

import pytest
import torch
from helpers import snapshot
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from captum_mi import InfoNCEDecomposition
from captum_mi.datasets import ColoredPlaces


@pytest.fixture(scope="module")
def places():
    return ColoredPlaces(1, layout=(("label", "noise"), ("partial", "redundant")))


def samples(places, length, seed):
    drawn = ColoredPlaces(length, layout=places.layout, seed=seed)
    images, labels = zip(*(drawn[i] for i in range(length)), strict=True)
    return TensorDataset(torch.stack(images), torch.tensor(labels))


@pytest.fixture(scope="module")
def fitted(places):
    model = places.encoder()
    method = InfoNCEDecomposition(model, model.local, model.pool, hidden=64, beta=0.1)
    before = snapshot(model)
    method.fit(DataLoader(samples(places, 2000, seed=1), 64), epochs=8, learning_rate=1e-2)
    assert snapshot(model) == before
    return method


def test_every_kind_of_place_has_its_nats(places, fitted):
    found = fitted.information(DataLoader(samples(places, 1000, seed=2), 500))
    for name in ("total", "decision", "redundant"):
        actual = getattr(found.places, name)[0, 0]
        expected = torch.tensor(getattr(places, name))
        torch.testing.assert_close(actual.double(), expected, atol=0.2, rtol=0)
        estimate = getattr(found, name)
        torch.testing.assert_close(estimate.value, float(actual.mean()))
        assert estimate.n_samples == 1000


def test_a_saved_one_gives_the_same_maps(places, fitted, tmp_path):
    path = tmp_path / "fitted.safetensors"
    fitted.save(path)
    images = samples(places, 4, seed=3).tensors[0]
    loaded = InfoNCEDecomposition.load(path, fitted.forward_func)
    assert loaded.layer is fitted.layer
    expected, actual = fitted.decompose(images), loaded.decompose(images)
    assert actual.cap == expected.cap
    for name in ("total", "decision", "redundant", "mask"):
        assert torch.equal(getattr(actual, name), getattr(expected, name))


def test_before_fit_it_is_an_error():
    model = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Flatten()).eval()
    method = InfoNCEDecomposition(model, model[0], model[1])
    with pytest.raises(RuntimeError, match=r"is not fitted; call fit\(loader\) first"):
        method.attribute(torch.zeros(1, 3, 8, 8))
