"""Places of known information with the representation, checked by counting and correlation."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score
from torch import nn
from torch.utils.data import DataLoader

from captum_mi.datasets import ColoredPlaces, GaussianPlaces, KnownPlaces
from captum_mi.estimators import KSG

KINDS = ["redundant", "copy", "partial", "unread", "noise"]
PLACES = [ColoredPlaces(300, seed=3), GaussianPlaces(300, seed=3)]
COUNT = 6000


@cache
def drawn(places):
    return next(iter(DataLoader(places, batch_size=len(places))))


@torch.no_grad()
def global_of(places, images):
    """The output of ``pool``, as a hook on that layer sees it."""
    encoder, seen = places.encoder(), []
    encoder.pool.register_forward_hook(lambda _, inputs, output: seen.append(output))
    encoder(images)
    return seen[0]


def place_means(images):
    """(n, channels, h, w), from the pixels alone."""
    n, channels, height, width = images.shape
    return images.double().reshape(n, channels, height // 8, 8, width // 8, 8).mean((3, 5)).numpy()


def colors_of(images):
    """(n, h, w): red, green and blue are bits 0, 1 and 2."""
    return np.einsum("nchw,c->nhw", place_means(images) > 0.5, [1, 2, 4])


def categories(z):
    """Numbers of the distinct rows of Z."""
    return np.unique(z.numpy().round(4), axis=0, return_inverse=True)[1].ravel()


def of_kind(kind):
    """The label, and one place of this kind, or two copies."""
    return ColoredPlaces(COUNT, layout=(("label", kind), (kind, "noise"))[: 1 + (kind == "copy")])


@pytest.mark.parametrize("kind", KINDS)
def test_counted_information_of_colors(kind):
    """Plug-in estimates, of which (|x| - 1)(|z| - 1) / 2n is the bias where there is none."""
    places = of_kind(kind)
    images, labels = drawn(places)
    colors, z = colors_of(images), categories(global_of(places, images))
    tolerance = 1.5 * 7 * z.max() / (2 * COUNT)
    assert tolerance < 0.06
    for row, column in np.ndindex(places.kinds.shape):
        color = colors[:, row, column]
        assert mutual_info_score(color, z) == pytest.approx(
            places.total[row, column], abs=tolerance
        )
        assert mutual_info_score(color, labels) == pytest.approx(
            places.decision[row, column], abs=0.01
        )
    whole = {"redundant": 64, "copy": 64, "partial": 32, "unread": 8, "noise": 8}[kind]
    assert z.max() + 1 == whole


def test_the_default_layout_has_every_kind():
    places = ColoredPlaces(1)
    truth = {kind: (math.log(8), 0) for kind in ("redundant", "copy")}
    truth |= {"label": (math.log(8), math.log(8)), "partial": (math.log(4), 0)}
    truth |= {"unread": (0, 0), "noise": (0, 0)}
    assert set(places.kinds.flat) == set(truth)
    for kind, total, decision, redundant in zip(
        *(map(np.ravel, (places.kinds, places.total, places.decision, places.redundant))),
        strict=True,
    ):
        assert (total, decision) == pytest.approx(truth[kind])
        assert redundant == total - decision


def test_neighbors_count_the_same_nats():
    """Nearest neighbors in ``local`` itself, which know nothing of eight colors."""
    places = ColoredPlaces(3000, layout=(("label", "partial"), ("unread", "noise")))
    images, _ = drawn(places)
    z = categories(global_of(places, images))
    local = places.encoder().local(images).detach()
    for row, column in np.ndindex(places.kinds.shape):
        found = KSG().estimate_discrete(local[:, :, row, column], z).value
        assert found == pytest.approx(places.total[row, column], abs=0.05)


def test_copies_share_log_8_together():
    places = of_kind("copy")
    images, _ = drawn(places)
    colors, z = colors_of(images), categories(global_of(places, images))
    first, second = colors[:, 0, 1], colors[:, 1, 0]
    assert np.array_equal(first, second)
    assert mutual_info_score(8 * first + second, z) == pytest.approx(math.log(8), abs=0.01)


def test_a_partial_place_shares_its_color_modulo_4():
    places = of_kind("partial")
    images, _ = drawn(places)
    z = categories(global_of(places, images))
    rest = colors_of(images)[:, 0, 1] % 4
    assert mutual_info_score(rest, z) == pytest.approx(math.log(4), abs=0.01)


def test_colors_are_independent_but_for_copies():
    """Every pair of colors at every pair of places has its share of 1 in 64."""
    places, count = PLACES[0], 2000
    colors = colors_of(drawn(ColoredPlaces(count))[0])
    kinds = places.kinds[places.kinds != "noise"]
    shown = np.eye(8)[colors[:, places.kinds != "noise"]].reshape(count, -1)
    shares = (shown.T @ shown / count).reshape(len(kinds), 8, len(kinds), 8)
    for i, j in zip(*np.triu_indices(len(kinds), 1), strict=True):
        expected = np.eye(8) / 8 if kinds[i] == kinds[j] == "copy" else 1 / 64
        error = np.sqrt(expected * (1 - expected) / count)
        assert (abs(shares[i, :, j] - expected) <= 5 * error).all()


@pytest.mark.parametrize("places", PLACES, ids=repr)
def test_every_label_is_given(places):
    images, labels = drawn(places)
    encoder = places.encoder()
    assert not any(module.training for module in encoder.modules())
    assert encoder(images).argmax(1).equal(labels)
    assert len(labels.unique()) == encoder(images[:1]).shape[1]


def test_labels_are_given_with_confidence():
    images, labels = drawn(PLACES[0])
    likelihood = PLACES[0].encoder()(images).log_softmax(1).gather(1, labels[:, None])
    assert likelihood.exp().min() > 0.98


def test_z_holds_no_grain():
    """Other pixels of the same colors give the same Z to the last bit."""
    images, _ = drawn(PLACES[0])
    colors = torch.from_numpy(colors_of(images))
    bits = (colors[:, None] >> torch.arange(3)[:, None, None]) & 1
    clean = (0.2 + 0.6 * bits).float().repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert not torch.equal(clean, images)
    assert torch.equal(global_of(PLACES[0], clean), global_of(PLACES[0], images))


def test_z_is_linear_in_the_colors_and_mixes_the_places():
    """Least squares on one-hot colors: nothing is left, and every coordinate reads each place."""
    images, _ = drawn(ColoredPlaces(1000, seed=3))
    z = global_of(PLACES[0], images).double().numpy()
    read = PLACES[0].total > 0
    colors = np.eye(8)[colors_of(images)[:, read]].reshape(1000, -1)
    weights, *_ = np.linalg.lstsq(colors, z, rcond=1e-8)
    assert z.shape[1] == 8 * 4 + 4 * 2
    assert abs(colors @ weights - z).max() < 1e-5
    assert np.ptp(weights.reshape(read.sum(), 8, -1), axis=1).min() > 0.01


def test_local_is_the_color_in_signs():
    images, _ = drawn(PLACES[0])
    local = PLACES[0].encoder().local(images).detach().numpy()
    colored = PLACES[0].kinds != "noise"
    signs = np.where(colors_of(images)[:, None] >> np.arange(3)[:, None, None] & 1, 1, -1)
    assert local[:, :, colored] == pytest.approx(signs[:, :, colored], abs=0.15)
    assert abs(local[:, :, ~colored]).max() < 1.2
    assert local[:, :, ~colored].std() == pytest.approx(1 / math.sqrt(12) / 8 / 0.3, abs=0.02)


@pytest.mark.parametrize("places", PLACES, ids=repr)
def test_local_sees_its_own_pixels(places):
    images, _ = drawn(places)
    local = places.encoder().local
    before = local(images)
    for row, column in np.ndindex(places.total.shape):
        changed = images.clone()
        changed[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 0.5
        moved = (local(changed) - before).abs().amax((0, 1)) > 1e-3
        assert moved.nonzero().tolist() == [[row, column]]


@pytest.fixture(scope="module")
def split():
    """Local values, noise of their mean and deviation, labels and the layers behind."""
    images, labels = drawn(PLACES[0])
    encoder = PLACES[0].encoder()
    local = encoder.local(images).detach()
    noise = torch.randn(local.shape, generator=torch.Generator().manual_seed(0))
    return local, local.mean(0) + local.std(0) * noise, labels, encoder[1:]


def test_only_the_label_place_decides(split):
    local, noise, labels, rest = split
    label = torch.from_numpy(PLACES[0].kinds == "label")
    assert rest(torch.where(label, local, noise)).argmax(1).equal(labels)
    right = (rest(torch.where(label, noise, local)).argmax(1) == labels).double().mean()
    assert abs(right - 1 / 8) < 4 * math.sqrt(1 / 8 * 7 / 8 / 300)


MOVED = {"label": 7 / 8, "redundant": 7 / 8, "copy": 7 / 8, "partial": 3 / 4}


def test_noise_at_a_place_moves_z_where_it_is_read(split):
    """It stands for another color, or another half color, as often as chance has it."""
    local, noise, _, rest = split
    z = rest[:-1](local)
    for row, column in np.ndindex(PLACES[0].kinds.shape):
        masked = local.clone()
        masked[:, :, row, column] = noise[:, :, row, column]
        moved = ((rest[:-1](masked) - z).abs().amax(1) > 1e-3).double().mean()
        share = MOVED.get(str(PLACES[0].kinds[row, column]), 0)
        assert moved == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 300))


def test_the_gradient_of_a_mask_reaches_the_label_place_alone(split):
    local, noise, labels, rest = split
    mask = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    loss = nn.functional.cross_entropy(rest(mask * local + (1 - mask) * noise), labels)
    (gradient,) = torch.autograd.grad(loss, mask)
    label = torch.from_numpy(PLACES[0].kinds == "label")
    assert gradient[0, 0][label].item() < -0.5
    assert gradient[0, 0][~label].abs().max() < 1e-6


def test_the_gradient_is_that_of_a_softmax():
    read = PLACES[0].encoder().read
    scores = torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(1))
    (hard,) = torch.autograd.grad((read(scores) * weights).sum(), scores)
    (soft,) = torch.autograd.grad((scores.softmax(1) * weights).sum(), scores)
    assert torch.equal(hard, soft)


def test_pixels_stay_in_range():
    images, _ = drawn(PLACES[0])
    assert images.dtype == torch.float32
    assert images.shape == (300, 3, 32, 32)
    assert (images.min() >= 0, images.max() <= 1) == (True, True)
    noise = images.reshape(300, 3, 4, 8, 4, 8).transpose(3, 4)[:, :, PLACES[0].kinds == "noise"]
    assert noise.std() == pytest.approx(1 / math.sqrt(12), abs=0.005)


GAUSSIAN = GaussianPlaces(
    COUNT,
    strengths=((0.0, 0.5, 1.0), (-2.0, 1.0, 0.0)),
    place_variance=0.4,
    global_variance=0.2,
)


def test_gaussian_information_by_its_formula():
    a = np.array(GAUSSIAN.strengths)
    rho = a / np.sqrt((a**2 + 0.4) * (1 + 0.2))
    assert GAUSSIAN.total == pytest.approx(-0.5 * np.log(1 - rho**2))
    assert (GAUSSIAN.total[a == 0] == 0).all()


def test_covariance_of_gaussian_places():
    images, _ = drawn(GAUSSIAN)
    z = global_of(GAUSSIAN, images)
    x = place_means(images)[:, 0].reshape(COUNT, 6)
    found = np.cov(np.hstack([x, z.double()]), rowvar=False)
    a = np.append(np.ravel(GAUSSIAN.strengths), 1.0)
    expected = np.outer(a, a) + np.diag([0.4] * 6 + [0.2])
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert abs((found - expected) / scale).max() < 5 / math.sqrt(COUNT)
    correlations = np.corrcoef(x, z, rowvar=False)[-1, :-1]
    counted = -0.5 * np.log(1 - correlations**2).reshape(2, 3)
    assert counted == pytest.approx(GAUSSIAN.total, abs=4 / math.sqrt(COUNT))
    encoder = GAUSSIAN.encoder()
    assert encoder.local(images).detach().numpy().reshape(COUNT, 6) == pytest.approx(x, abs=1e-5)


def test_neighbors_count_the_same_nats_of_gaussian_places():
    images, _ = drawn(GAUSSIAN)
    z = global_of(GAUSSIAN, images)
    local = GAUSSIAN.encoder().local(images).detach()
    for row, column in np.ndindex(GAUSSIAN.total.shape):
        found = KSG(jitter=1e-5).estimate(local[:, :, row, column], z)
        assert found.value == pytest.approx(GAUSSIAN.total[row, column], abs=4 * found.std_error)


def test_masked_gaussian_places_move_z():
    """By the strength of the place, and not at all where it is 0."""
    images, _ = drawn(GAUSSIAN)
    z = global_of(GAUSSIAN, images)
    a = np.array(GAUSSIAN.strengths)
    for row, column in np.ndindex(a.shape):
        changed = images.clone()
        changed[:, 0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 1
        shift = a[row, column] / (a**2).sum()
        assert (global_of(GAUSSIAN, changed) - z).numpy() == pytest.approx(shift, abs=1e-5)


@pytest.mark.parametrize("places", PLACES, ids=repr)
def test_an_item_depends_on_seed_and_number_alone(places):
    kind = type(places)
    image, label = places[17]
    longer, same = kind(1000, seed=3)[17]
    assert torch.equal(image, longer)
    assert label == same
    assert torch.equal(places[17 - 300][0], image)
    assert not torch.equal(places[18][0], image)
    assert not torch.equal(kind(300, seed=4)[17][0], image)
    images, labels = drawn(places)
    assert torch.equal(images[17], image)
    assert labels[17] == label
    assert (labels.dtype, type(label)) == (torch.int64, int)


@pytest.mark.parametrize("places", PLACES, ids=repr)
def test_encoders_are_alike_and_draw_no_numbers(places):
    state = torch.get_rng_state()
    first, second = places.encoder().state_dict(), places.encoder().state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {value.dtype for value in first.values()} == {torch.float32}


@pytest.mark.parametrize("places", PLACES, ids=repr)
def test_repr_rebuilds(places):
    assert eval(repr(places)) == places
    assert isinstance(places, KnownPlaces)


@pytest.mark.parametrize("kind", [ColoredPlaces, GaussianPlaces])
def test_no_images_outside(kind):
    with pytest.raises(ValueError, match="`length` must be at least 1, got 0"):
        kind(0)
    with pytest.raises(IndexError, match="image 2 of 2"):
        kind(2)[2]
    with pytest.raises(IndexError, match="image -3 of 2"):
        kind(2)[-3]
    assert len(list(kind(2))) == len(kind(2)) == 2


@pytest.mark.parametrize(
    ("layout", "error"),
    [
        ((("label", "noise"), ("noise",)), r"`layout` must be rows of one length, got .*\[2, 1\]"),
        ((), r"`layout` must be rows of one length, got lengths \[\]"),
        (((),), r"`layout` must be rows of one length, got lengths \[0\]"),
        ((("label", "blue"),), "`layout` must be one of 'label', .*'noise', got 'blue'"),
        ((("noise",),), "`layout` must have exactly one 'label', got 0"),
        ((("label", "label"),), "`layout` must have exactly one 'label', got 2"),
        ((("label", "copy"),), "`layout` must have two 'copy' or more, got 1: call it 'redundant'"),
    ],
)
def test_bad_layouts(layout, error):
    with pytest.raises(ValueError, match=error):
        ColoredPlaces(1, layout=layout)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"strengths": ((1.0, 1.0), (1.0,))}, "`strengths` must be rows of one length"),
        ({"strengths": ((0.0, 0.0),)}, r"`strengths` must be finite and not all 0, got \(\(0.0, 0"),
        ({"strengths": ((math.nan, 1.0),)}, "`strengths` must be finite and not all 0"),
        ({"place_variance": 0.0}, "`place_variance` must be positive, got 0.0"),
        ({"global_variance": -1.0}, "`global_variance` must be positive, got -1.0"),
    ],
)
def test_bad_gaussian_places(arguments, error):
    with pytest.raises(ValueError, match=error):
        GaussianPlaces(1, **arguments)
