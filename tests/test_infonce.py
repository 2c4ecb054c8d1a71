"""InfoNCEDecomposition: total, decision-related and redundant information of a layer's places."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from captum_mi import InfoNCEDecomposition
from captum_mi.datasets import ColoredPlaces

KINDS = (("label", "noise"), ("partial", "redundant"))


def samples(layout, length, seed):
    """Images and labels of colored places."""
    drawn = ColoredPlaces(length, layout=layout, seed=seed)
    images, labels = zip(*(drawn[i] for i in range(length)), strict=True)
    return TensorDataset(torch.stack(images), torch.tensor(labels))


def fit(layout, *, model=None, names=("local", "pool"), **options):
    """A small one, fitted to 1,000 images."""
    model = model or ColoredPlaces(1, layout=layout).encoder()
    layers = [model.get_submodule(name) for name in names]
    method = InfoNCEDecomposition(model, *layers, **({"hidden": 32, "beta": 0.1} | options))
    loader = DataLoader(samples(layout, 1000, seed=1), 64)
    method.fit(loader, epochs=5, learning_rate=1e-2)
    return method


def informed(method, layout, length=500):
    return method.information(DataLoader(samples(layout, length, seed=2), 250))


@pytest.fixture(scope="module")
def places():
    return ColoredPlaces(1, layout=KINDS)


@pytest.fixture(scope="module")
def fitted(places):
    model = places.encoder()
    method = InfoNCEDecomposition(model, model.local, model.pool, hidden=64, beta=0.1)
    loader = DataLoader(samples(KINDS, 2000, seed=1), 64)
    method.fit(loader, epochs=8, learning_rate=1e-2)
    return method


@pytest.fixture
def images():
    return samples(KINDS, 6, seed=3).tensors[0]


def test_every_kind_of_place_has_its_nats(places, fitted):
    found = informed(fitted, KINDS, 1000)
    for name in ("total", "decision", "redundant"):
        actual = getattr(found.places, name)[0, 0]
        expected = torch.tensor(getattr(places, name))
        torch.testing.assert_close(actual.double(), expected, atol=0.2, rtol=0)
        estimate = getattr(found, name)
        torch.testing.assert_close(estimate.value, float(actual.mean()))
        assert estimate.n_samples == 1000


def test_the_cap_is_what_its_negatives_allow(fitted, images):
    maps = fitted.decompose(images)
    assert maps.cap == pytest.approx(math.log(1 + 200 * 4))  # 200 images held out, of 4 places
    assert maps.cap == informed(fitted, KINDS).cap
    assert (maps.total <= maps.cap).all()


def test_total_is_decision_and_redundant_together(fitted, images):
    maps = fitted.decompose(images)
    for name in ("total", "decision", "redundant"):
        assert torch.equal(fitted.attribute(images, component=name), getattr(maps, name))
        assert getattr(maps, name).shape == (6, 1, 2, 2)
    assert torch.equal(maps.redundant, maps.total - maps.decision)
    assert torch.equal(fitted.attribute(images), maps.total)
    assert not maps.total.requires_grad
    assert (maps.mask.amin(), maps.mask.amax()) > (0, 0)
    assert maps.mask.amax() < 1


def test_maps_are_the_bounds_of_the_places_and_of_what_passes_the_mask(fitted, images):
    networks, model = fitted._networks, fitted.forward_func
    with torch.no_grad():
        z = (model[:5](images) - networks.z_mean) / networks.z_std
        x = model.local(images).flatten(2).mT
        masks = networks.masks(x)
        noise = networks.mean + networks.std * torch.randn(500, 1, 4, 3)
        mixed = masks[..., None] * x + (1 - masks[..., None]) * noise
        passed = torch.stack([networks.decision(z, networks.standardized(each)) for each in mixed])
    maps = fitted.decompose(images)
    total = networks.total(z, networks.standardized(x))
    torch.testing.assert_close(maps.total.flatten(1), total)
    torch.testing.assert_close(maps.mask.flatten(1), masks)
    # Of four draws, in the maps, the mean is that of many up to four deviations.
    error = (maps.decision.flatten(1) - passed.mean(0)).abs()
    assert (error < 4 * passed.std(0) / 2 + 1e-4).all()
    assert (passed.std(0) > 1e-3).any()


def test_rows_do_not_depend_on_the_batch_nor_calls_on_chance(fitted, images):
    together = fitted.decompose(images)
    for i in range(len(images)):
        torch.manual_seed(i)
        alone = fitted.decompose(images[i : i + 1])
        for name in ("total", "decision", "mask"):
            one = getattr(together, name)[i : i + 1]
            torch.testing.assert_close(getattr(alone, name), one)
    assert torch.equal(fitted.decompose(images).decision, together.decision)


def test_information_draws_noise_for_each_image_anew(fitted, images):
    same = images[:1].expand(50, -1, -1, -1)
    first, again, other = (fitted.information([same], seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.maps.decision, again.maps.decision)
    assert not torch.equal(first.maps.decision, other.maps.decision)
    assert first.maps.total.std(0).max() < 1e-5
    assert (first.maps.decision.std(0) > 1e-3).any()


def test_of_pairs_that_do_not_belong_together_nothing_is_found():
    class Rolled(nn.Module):
        """Its ``rolled`` is the representation of the image before."""

        def __init__(self):
            super().__init__()
            self.model, self.rolled = ColoredPlaces(1, layout=KINDS).encoder(), nn.Identity()

        def forward(self, images):
            z = self.model[:-1](images)
            self.rolled(z.roll(1, 0))
            return self.model.head(z)

    method = fit(KINDS, model=Rolled().eval(), names=("model.local", "rolled"))
    found = informed(method, KINDS, 1000)
    assert abs(found.total.value) < 0.02
    assert abs(found.decision.value) < 0.02
    assert found.places.total.abs().max() < 0.05


def test_a_critic_that_does_not_know_the_place_misses_one_of_many_alike():
    """With 7 places that look like it, I(Z; X_k) looks like log(1 / 8 * 8 + 7 / 8) = 0.63."""
    layout = (("unread", "unread", "label", "unread"), ("unread",) * 4)
    aware, blind = (
        informed(fit(layout, place_aware=known), layout).places.total[0, 0, 0, 2].item()
        for known in (True, False)
    )
    assert aware > 1.5
    assert blind == pytest.approx(math.log(8 / 8 + 7 / 8), abs=0.2)


def test_the_concat_critic_finds_the_same():
    layout = (("label", "noise"),)
    found = informed(fit(layout, critic="concat", hidden=64), layout).places.total.flatten()
    torch.testing.assert_close(found, torch.tensor([math.log(8), 0.0]), atol=0.2, rtol=0)


def test_the_dearer_the_mask_the_less_passes_and_the_more_is_redundant():
    found = [informed(fit(KINDS, beta=beta), KINDS) for beta in (0.01, 0.3, 30.0)]
    masks = [each.mask for each in found]
    redundant = [each.redundant for each in found]
    assert masks[0] > 0.9 > 0.5 > masks[1] > 0.1 > 0.05 > masks[2]
    assert abs(redundant[0].value) < 3 * redundant[0].std_error + 0.02
    assert redundant[2].value > redundant[1].value + 0.1 > redundant[0].value + 0.3
    assert redundant[2].value == pytest.approx(found[2].total.value, abs=0.02)
    # What the critic of X finds does not depend on the mask's price: they share nothing.
    assert found[0].total == found[1].total == found[2].total


class Gate(nn.Module):
    """Two places, -1 or 1 each: the label is the first if the second is 1, else it is -1.

    The representation is the second place alone, so that the first shares nothing with it.
    """

    def __init__(self):
        super().__init__()
        self.local, self.pool = nn.Conv2d(1, 1, 1, bias=False), nn.Identity()
        nn.init.ones_(self.local.weight)

    def forward(self, images):
        first, second = self.local(images).flatten(1).unbind(1)
        open_gate = (6 * self.pool(second[:, None])[:, 0]).sigmoid()
        margin = 3 * (open_gate * first - (1 - open_gate))
        return torch.stack([-margin, margin], dim=1)


@pytest.mark.parametrize("mask", ["pointwise", "conv3x3"])
def test_a_mask_that_sees_neighbors_carries_what_they_hold(mask):
    """The task needs the first place where the second is 1: a mask that knows it tells it."""
    images = torch.randint(2, (4000, 1, 1, 2)) * 2.0 - 1 + 0.05 * torch.randn(4000, 1, 1, 2)
    model = Gate().eval()
    method = InfoNCEDecomposition(model, model.local, model.pool, hidden=32, beta=0.2, mask=mask)
    method.fit(images[:2000].split(50), epochs=12, learning_rate=2e-2)
    found = method.information([images[2000:]])
    total, decision = found.places.total.flatten(), found.places.decision.flatten()
    assert total[0].item() == pytest.approx(0, abs=0.1)
    assert total[1].item() == pytest.approx(math.log(2), abs=0.1)
    if mask == "conv3x3":
        assert decision[0] > 0.12
        assert decision[0] > total[0] + 0.12
    else:
        assert decision[0] < 0.06
        assert decision[0] < total[0] + 0.06
        assert found.redundant.value > -3 * found.redundant.std_error


def test_a_saved_one_gives_the_same_maps(fitted, images, tmp_path):
    path = tmp_path / "fitted.safetensors"
    fitted.save(path)
    loaded = InfoNCEDecomposition.load(path, fitted.forward_func)
    assert loaded.layer is fitted.layer
    assert loaded.global_layer is fitted.global_layer
    assert (loaded.hidden, loaded.beta, loaded.critic) == (64, 0.1, "separable")
    expected, actual = fitted.decompose(images), loaded.decompose(images)
    assert actual.cap == expected.cap
    for name in ("total", "decision", "redundant", "mask"):
        assert torch.equal(getattr(actual, name), getattr(expected, name))


def test_a_file_of_another_thing_or_model_is_refused(fitted, images, tmp_path):
    path = tmp_path / "fitted.safetensors"
    with pytest.raises(FileNotFoundError, match=r"fitted.safetensors' is no file; fit and save"):
        InfoNCEDecomposition.load(path, fitted.forward_func)
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"fitted.safetensors' holds no fitted decomposition"):
        InfoNCEDecomposition.load(path, fitted.forward_func)
    fitted.save(path)
    model = nn.Sequential(nn.Conv2d(3, 5, 8, 8), nn.Flatten()).eval()
    with pytest.raises(ValueError, match=r"Sequential has no module 'local', on which this was"):
        InfoNCEDecomposition.load(path, model)
    loaded = InfoNCEDecomposition.load(path, model, *model)
    with pytest.raises(ValueError, match=r"`layer` has \(5, 2, 2\) .* fitted on \(3, 2, 2\)"):
        loaded.attribute(images)


def test_of_a_model_that_is_a_function_the_layers_are_given_again(fitted, images, tmp_path):
    path, model = tmp_path / "fitted.safetensors", fitted.forward_func

    def run(images):
        return model(images)

    method = InfoNCEDecomposition(run, model.local, model.pool, hidden=8)
    method.fit(list(images.split(2)), epochs=1, validation=0.4)
    method.save(path)
    with pytest.raises(ValueError, match=r"function has no module '', .*give .* `layer` and"):
        InfoNCEDecomposition.load(path, run)
    loaded = InfoNCEDecomposition.load(path, run, model.local, model.pool)
    assert torch.equal(loaded.attribute(images), method.attribute(images))
