"""The networks of the decomposition, one at a time: bounds, statistics, noise and masks."""

import math

import pytest
import torch

from captum_mi.attr._local_information import LocalInformation, Networks
from captum_mi.attr.layer_statistics import LayerStatistics, Moments
from captum_mi.attr.places import Places
from captum_mi.estimators import local_info_nce
from captum_mi.estimators.critics import SeparableCritic

IMAGES, COUNT, CHANNELS, Z = 200, 35, 3, 4
PLACES = Places((CHANNELS, 5, 7), axis=1)


def networks(places=PLACES, **options):
    options = {"critic": "separable", "mask": "pointwise", "place_aware": True} | options
    return Networks(places, Z, hidden=8, scores_at_once=2**20, **options)


def drawn():
    """A layer's value whose mean and deviation differ from element to element, and Z."""
    scale, shift = torch.rand(2, 1, CHANNELS, 5, 7) * 4
    return torch.randn(IMAGES, CHANNELS, 5, 7) * scale + shift, torch.randn(IMAGES, Z) * 5 - 2


def with_statistics(latent, z, places=PLACES, **options):
    found, moments = networks(places, **options), []
    for values in (latent, z):
        moments.append(Moments())
        for part in values.double().split(7):
            moments[-1].add(part)
    found.set_statistics(*(each.statistics() for each in moments))
    return found


@pytest.fixture
def information():
    return LocalInformation(SeparableCritic(Z, CHANNELS, 8, COUNT), 8, 0, 2**20)


def test_in_a_batch_the_other_images_are_the_negatives(information):
    z, x = torch.randn(6, Z), torch.randn(6, COUNT, CHANNELS)
    first, second = information.critic.embed_global(z), information.critic.embed_local(x)
    scores = information.critic.crossed(first, second.flatten(0, 1)).reshape(6, 6, COUNT)
    torch.testing.assert_close(information.in_batch(z, x), local_info_nce(scores))


def test_with_kept_places_these_are_the_negatives(information):
    others = torch.randn(50, COUNT, CHANNELS)
    information.keep(others, 4, torch.Generator().manual_seed(0))
    assert information.cap == pytest.approx(math.log(1 + 4 * COUNT))
    kept = information.negatives
    assert kept.shape == (4 * COUNT, 8)
    assert not kept.requires_grad
    z, x = torch.randn(3, Z), torch.randn(3, COUNT, CHANNELS)
    first = information.critic.embed_global(z)
    matched = information.critic.matched(first, information.critic.embed_local(x)).exp()
    others = information.critic.crossed(first, kept).exp().sum(1, keepdim=True)
    expected = (matched / ((matched + others) / (1 + 4 * COUNT))).log()
    torch.testing.assert_close(information(z, x), expected)


def test_of_each_place_as_many_are_kept_and_of_no_image_two(information):
    others = torch.randn(10, COUNT, CHANNELS)
    information.keep(others, 6, torch.Generator().manual_seed(0))
    known = information.critic.embed_local(others)
    images = set()
    for k in range(COUNT):
        kept = information.negatives.reshape(6, COUNT, 8)[:, k]
        distances = (kept[:, None] - known[None, :, k]).abs().amax(-1)
        assert (distances.amin(1) < 1e-6).all()
        images.add(tuple(distances.argmin(1).tolist()))
        assert len(set(distances.argmin(1).tolist())) == 6
    assert len(images) > COUNT // 2  # drawn for each place anew
    information.keep(others, 99, torch.Generator().manual_seed(0))
    assert len(information.negatives) == 10 * COUNT  # no more than there are


def test_values_are_standardized_over_all_places_and_z_by_itself():
    latent, z = drawn()
    found = with_statistics(latent, z)
    x, z_read = found.read(latent, z)
    assert torch.equal(x, PLACES.values(latent))
    values = found.standardized(x).flatten(0, 1)
    torch.testing.assert_close(values.mean(0), torch.zeros(CHANNELS), atol=1e-4, rtol=0)
    torch.testing.assert_close(values.std(0), torch.ones(CHANNELS), atol=5e-3, rtol=0)
    torch.testing.assert_close(z_read.mean(0), torch.zeros(Z), atol=1e-4, rtol=0)
    torch.testing.assert_close(z_read.std(0), torch.ones(Z), atol=1e-4, rtol=0)


def test_rounding_is_no_deviation():
    found, mean = networks(), torch.full(PLACES.shape, 0.1)
    latent = LayerStatistics(mean, torch.full(PLACES.shape, 1e-10), mean, 9)
    mean, std = torch.tensor([[3.0, 3.0, 0.0, 0.0], [1e-7, 1e-3, 1e-7, 0.0]])
    z = LayerStatistics(mean, std, mean, 9)
    found.set_statistics(latent, z)
    assert found.spread.tolist() == [1.0] * CHANNELS
    torch.testing.assert_close(found.z_std, torch.tensor([1.0, 1e-3, 1e-7, 1.0]))


def test_noise_has_each_elements_mean_and_deviation():
    latent, z = drawn()
    found = with_statistics(latent, z)
    x, _ = found.read(latent, z)
    closed, open_, half = (torch.full((IMAGES, COUNT), share) for share in (0.0, 1.0, 0.25))
    noise = torch.randn(x.shape)
    noise = (noise - noise.mean(0)) / noise.std(0)
    made = found.masked(x, closed, noise)
    torch.testing.assert_close(made.mean(0), x.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made.std(0), x.std(0), atol=1e-4, rtol=1e-4)
    assert torch.equal(found.masked(x, open_, noise), x)
    torch.testing.assert_close(found.masked(x, half, noise), 0.25 * x + 0.75 * made)
    each = closed.clone()
    each[3, 2] = 1.0
    expected = made.clone()
    expected[3, 2] = x[3, 2]
    assert torch.equal(found.masked(x, each, noise), expected)
    one = found.masked(x, closed, noise[:1])
    assert torch.equal(one, made[:1].expand_as(x))


def reach(found, x, place):
    """The places whose mask depends on what lies at one."""
    changed = x.clone()
    changed[:, place] += 3
    difference = (found.masks(changed) - found.masks(x)).abs().amax(0)
    return (difference > 1e-7).reshape(5, 7)


def test_a_pointwise_mask_sees_its_own_place_alone():
    latent, z = drawn()
    found = with_statistics(latent, z)
    x, _ = found.read(latent, z)
    expected = torch.zeros(5, 7, dtype=torch.bool)
    expected[2, 3] = True
    assert torch.equal(reach(found, x, 2 * 7 + 3), expected)


def test_the_papers_mask_sees_five_by_five():
    latent, z = drawn()
    found = with_statistics(latent, z, mask="conv3x3")
    x, _ = found.read(latent, z)
    expected = torch.zeros(5, 7, dtype=torch.bool)
    expected[:, 1:6] = True
    assert torch.equal(reach(found, x, 2 * 7 + 3), expected)
    corner = torch.zeros(5, 7, dtype=torch.bool)
    corner[:3, :3] = True
    assert torch.equal(reach(found, x, 0), corner)


def test_the_papers_mask_reads_channels_as_channels():
    latent, z = drawn()
    found = with_statistics(latent, z, mask="conv3x3")
    x, _ = found.read(latent, z)
    standard = (latent - found.center[:, None, None]) / found.spread[:, None, None]
    logits = found.mask.last(found.mask.first(standard).relu()) + 2
    torch.testing.assert_close(found.masks(x), logits.sigmoid().flatten(1))


@pytest.mark.parametrize("mask", ["pointwise", "conv3x3"])
def test_masks_start_nearly_open(mask):
    latent, z = drawn()
    found = with_statistics(latent, z, mask=mask)
    masks = found.masks(found.read(latent, z)[0])
    assert masks.shape == (IMAGES, COUNT)
    assert masks.mean().item() == pytest.approx(0.88, abs=0.05)
    assert (masks.amin(), 1 - masks.amax()) > (0, 0)


@pytest.mark.parametrize("place_aware", [True, False])
def test_whether_critics_and_mask_know_the_place(place_aware):
    latent, z = drawn()
    found = with_statistics(latent, z, place_aware=place_aware)
    same = torch.randn(2, 1, CHANNELS).expand(-1, COUNT, -1)
    zs = torch.randn(2, Z)
    for each in (
        found.masks(same),
        found.total.in_batch(zs, same),
        found.decision.in_batch(zs, same),
    ):
        assert (each.std(1) > 1e-4).all() == place_aware


def test_total_and_decision_share_nothing():
    found = networks()
    total, decision = (set(map(id, part.parameters())) for part in (found.total, found.decision))
    assert not total & decision
    assert not torch.equal(
        found.total.critic.of_global.weight, found.decision.critic.of_global.weight
    )


def test_other_shapes_are_refused():
    latent, z = drawn()
    found = with_statistics(latent, z)
    with pytest.raises(ValueError, match=r"`layer` has \(3, 7, 5\) .*fitted on \(3, 5, 7\)"):
        found.read(latent.mT, z)
    with pytest.raises(ValueError, match=r"`global_layer` has 3 numbers .* fitted on 4"):
        found.read(latent, z[:, 1:])
