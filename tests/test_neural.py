"""Neural estimators: what they report, on what, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from captum_mi.datasets import CorrelatedNormals
from captum_mi.estimators import (
    JSD,
    MINE,
    NWJ,
    PCA,
    SMILE,
    Compressed,
    InfoNCE,
    Training,
    donsker_varadhan,
    info_nce,
    jensen_shannon,
    log_mean_exp,
    neural,
    nwj,
    pointwise_terms,
    smile,
    tuba,
)
from captum_mi.estimators._standardized import Standardization, vectors_or_images
from captum_mi.estimators.neural import MovingAverageBound
from captum_mi.infoplane import InformationPlane

CLASSES = {
    MINE: donsker_varadhan,
    NWJ: nwj,
    JSD: jensen_shannon,
    InfoNCE: info_nce,
    SMILE: smile,
}
every = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)


def short(kind, **options):
    return kind(hidden=(8,), training=Training(**{"steps": 20, "batch_size": 16} | options))


def pairs(nats=1.0, n_samples=60, dim=2):
    return CorrelatedNormals(nats, dim, dim).sample(n_samples, seed=5)


def held_out(n_samples, training):
    """Rows to stop on and rows to judge by, a third and two thirds of the last ones drawn."""
    generator = torch.Generator().manual_seed(training.seed)
    rows = torch.randperm(n_samples, generator=generator)
    rows = rows[: math.ceil(training.held_out * n_samples)]
    n_stopping = math.ceil(len(rows) / 3)
    return rows[:n_stopping], rows[n_stopping:]


@every
def test_the_value_is_of_pairs_on_which_nothing_was_chosen(kind):
    x, y = pairs(n_samples=100)
    estimator = short(kind, held_out=0.45, seed=3, steps=40)
    before = dict(vars(estimator))
    fitted = estimator.fit(x, y)
    assert vars(estimator) == before
    stopping, judging = held_out(100, estimator.training)
    assert (len(stopping), len(judging)) == (15, 30)
    terms = pointwise_terms(CLASSES[kind], fitted.scores(x[judging], y[judging]))
    assert fitted.estimate.value == pytest.approx(terms.mean().item(), abs=1e-5)
    assert fitted.estimate.std_error == pytest.approx(terms.std().item() / 30**0.5, rel=1e-4)
    assert fitted.estimate.n_samples == 30
    # The best state is kept, by the bound that is trained on.
    bound = jensen_shannon if kind is SMILE else CLASSES[kind]
    kept = bound(fitted.scores(x[stopping], y[stopping])).item()
    assert kept == pytest.approx(-min(check.error for check in fitted.history), abs=1e-5)
    assert [check.step for check in fitted.history] == [20, 40]
    assert estimator.estimate(x, y) == fitted.estimate


@every
def test_a_little_training_finds_what_two_normals_share(kind):
    """One nat for every bound; twice the Jensen-Shannon divergence is 0.508."""
    x, y = CorrelatedNormals(1.0, 1, 1).sample(3000, seed=1)
    options = Training(steps=200, batch_size=128, learning_rate=4e-3)
    found = kind(hidden=(32,), training=options).estimate(x, y)
    truth = 0.508 if kind is JSD else 1.0
    assert found.value == pytest.approx(truth, abs=0.1)
    assert 0.01 < found.std_error < 0.06


@every
def test_inputs_and_random_state_stay(kind):
    x, y = pairs()
    before = x.copy(), y.copy()
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = short(kind).estimate(x, y)
    short(kind).estimate_discrete(x, x[:, 0] > 0)
    np.testing.assert_array_equal((x, y), before)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    torch.manual_seed(99)
    assert short(kind).estimate(x, y) == first
    assert short(kind, seed=1).estimate(x, y) != first


@every
def test_arrays_tensors_and_lists_agree(kind):
    x, y = pairs(dim=1)
    estimator = short(kind)
    expected = estimator.estimate(x, y)
    assert estimator.estimate(torch.from_numpy(x), y) == expected
    assert estimator.estimate(x[:, 0], y.ravel().tolist()) == expected
    single = estimator.estimate(torch.from_numpy(x).float().requires_grad_(), y.astype("float32"))
    assert single.value == pytest.approx(expected.value, abs=1e-3)
    labels = (x[:, 0] > 0).astype(int)
    discrete = estimator.estimate_discrete(x, labels)
    assert estimator.estimate_discrete(torch.from_numpy(x), torch.from_numpy(labels)) == discrete
    assert estimator.estimate_discrete(x, np.array(["no", "yes"])[labels]) == discrete


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.uint8])
def test_samples_of_any_type(dtype):
    x, y = pairs()
    rounded = (10 * torch.from_numpy(x).abs()).to(dtype)
    assert short(MINE).estimate(rounded, y) == short(MINE).estimate(rounded.double(), y)


def test_scales_and_shifts_do_not_matter():
    x, y = pairs()
    expected = short(MINE).estimate(x, y).value
    moved = short(MINE).estimate(1e-5 * x + 3e3, y * [1e6, -1.0] - 7).value
    shared = short(MINE).estimate(x, y * [1.0, -1.0]).value
    assert moved == pytest.approx(shared, abs=1e-4)
    assert expected == pytest.approx(short(MINE).estimate(5 * x, y).value, abs=1e-5)


def test_labels():
    x = np.random.default_rng(0).standard_normal((2000, 2))
    quarter = 2 * (x[:, 0] > 0) + (x[:, 1] > 0)
    options = Training(steps=100, batch_size=128, learning_rate=1e-2)
    estimator = InfoNCE(hidden=(32,), training=options)
    found = estimator.estimate_discrete(x, np.array(["a", "b", "c", "d"])[quarter])
    assert found.value == pytest.approx(math.log(4), abs=0.12)
    drawn = np.random.default_rng(1).permutation(quarter)
    assert estimator.estimate_discrete(x, drawn).value == pytest.approx(0, abs=0.06)
    assert short(MINE).estimate_discrete(x[:60], np.zeros(60)).value == pytest.approx(0, abs=0.3)


@pytest.mark.parametrize("critic", ["separable", "concat"])
def test_images(critic):
    """Of one channel or several, of one size or two, and beside vectors and labels."""
    rng = np.random.default_rng(0)
    level = rng.standard_normal(1000)
    images = level[:, None, None] + 0.2 * rng.standard_normal((1000, 9, 7))
    options = Training(steps=60, batch_size=32, learning_rate=1e-2)
    estimator = InfoNCE(critic, (16,), options)
    truth = math.log(math.hypot(1, 0.7) / 0.7)
    y = level + 0.7 * rng.standard_normal(1000)
    colored = np.stack([images, -images, 9 * images], axis=1)
    both = estimator.estimate(torch.from_numpy(colored), np.tile(y[:, None, None], (1, 5, 5)))
    assert both.value == pytest.approx(truth, abs=0.12)
    labels = estimator.estimate_discrete(images, level > 0)
    assert labels.value == pytest.approx(math.log(2), abs=0.15)
    few = images[:60], y[:60]
    found = short(InfoNCE).estimate(*few)
    assert short(InfoNCE).estimate(few[0][:, None], few[1]) == found


def test_vectors_pass_a_concat_critic():
    x, y = CorrelatedNormals(1.0, 2, 2).sample(1000, seed=1)
    options = Training(steps=120, batch_size=64, learning_rate=5e-3)
    found = MINE("concat", (32, 16), options).estimate(x, y)
    assert found.value == pytest.approx(1.0, abs=0.2)


def test_the_critic_is_as_wide_as_asked_for():
    x, y = pairs()
    options = Training(steps=20, batch_size=16)
    critic = MINE("concat", (7, 5), options).fit(x, y).critic
    assert [len(weight) for weight in critic.parameters() if weight.ndim == 2] == [7, 7, 5, 1]


def test_images_are_standardized_by_channel():
    images = vectors_or_images(
        "x", torch.rand(50, 2, 3, 3) * torch.tensor([1.0, 9.0])[:, None, None]
    )
    found = Standardization.of(images)(images)
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.std((0, 2, 3)), torch.ones(2))
    brightest = images[:, :, 0, 0].mean(0) / images.std((0, 2, 3))
    lift = found[:, :, 0, 0].mean(0).double() + images.mean((0, 2, 3)) / images.std((0, 2, 3))
    torch.testing.assert_close(lift, brightest, rtol=1e-5, atol=0)  # pixels keep their own means


def test_a_moving_average_in_log_space():
    bound = MovingAverageBound()
    first, second = (3 * torch.randn(6, 6).double() + 2000 for _ in range(2))
    torch.testing.assert_close(bound(first), donsker_varadhan(first))
    torch.testing.assert_close(bound.log_average, log_mean_exp(first))
    averaged = 0.99 * (log_mean_exp(first) - 2000).exp()
    averaged = (averaged + 0.01 * (log_mean_exp(second) - 2000).exp()).log() + 2000
    torch.testing.assert_close(bound(second), tuba(second, log_baseline=averaged))
    torch.testing.assert_close(bound.log_average, averaged)
    learned = second.requires_grad_()
    bound(learned).backward()
    assert not bound.log_average.requires_grad


def test_mine_trains_with_the_average_and_stops_by_the_bound(monkeypatch):
    seen = []

    class Watched(MovingAverageBound):
        def __call__(self, scores):
            value = super().__call__(scores)
            seen.append(-value.item())
            return value

    monkeypatch.setattr(neural, "MovingAverageBound", Watched)
    fitted = short(MINE).fit(*pairs())
    assert len(seen) == 20
    assert fitted.history[0].loss == pytest.approx(np.mean(seen), abs=1e-5)


def test_smile_is_another_value_of_the_critic_of_jsd():
    x, y = pairs()
    smiling, judged = short(SMILE).fit(x, y), short(JSD).fit(x, y)
    assert smiling.history == judged.history
    assert torch.equal(smiling.scores(x, y), judged.scores(x, y))
    _, judging = held_out(60, Training())
    scores = judged.scores(x[judging], y[judging])
    found = SMILE(0.3, hidden=(8,), training=short(JSD).training).estimate(x, y).value
    assert found == pytest.approx(smile(scores, clip=0.3).item(), abs=1e-5)


@every
def test_it_stops_when_the_bound_no_longer_rises(kind):
    x, y = pairs(nats=0.0)
    history = short(kind, steps=5000, patience=2, learning_rate=5e-3).fit(x, y).history
    errors = [check.error for check in history]
    assert len(errors) < 100
    assert len(errors) == int(np.argmin(errors)) + 3


def test_many_held_out_pairs_are_scored_in_blocks(monkeypatch):
    from captum_mi.estimators import neural_training

    monkeypatch.setattr(neural_training, "BLOCK", 8)
    x, y = pairs(n_samples=100)
    fitted = short(InfoNCE).fit(x, y)
    rows = held_out(100, Training())
    judging = torch.cat(rows)[8:]  # 8 are enough to stop by
    terms = [
        pointwise_terms(info_nce, fitted.scores(x[part], y[part]))
        for part in torch.tensor_split(judging, 3)
    ]
    assert fitted.estimate.n_samples == 22
    assert fitted.estimate.value == pytest.approx(torch.cat(terms).mean().item(), abs=1e-5)


def test_no_sample_stands_in_a_batch_twice():
    from captum_mi.estimators.neural_training import _batches

    rows = torch.arange(100, 110)
    batches = _batches(rows, 4, torch.Generator().manual_seed(0))
    epochs = [torch.cat([next(batches), next(batches)]) for _ in range(3)]
    for epoch in epochs:
        assert len(epoch.unique()) == 8
        assert set(epoch.tolist()) <= set(rows.tolist())
    assert not torch.equal(epochs[0], epochs[1])


def test_they_go_where_estimators_go():
    x, y = pairs(n_samples=80, dim=3)
    found = Compressed(short(MINE), x=PCA(2), y=PCA(2)).estimate(x, y)
    codes = PCA(2).fit(x).transform(x), PCA(2).fit(y).transform(y)
    assert found.value == short(MINE).estimate(*codes).value
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
    plane = InformationPlane(model, ["1"], short(InfoNCE), layer_compressor=PCA(2))
    (row,) = plane.record(torch.from_numpy(x).float(), torch.arange(80) % 2, epoch=0)
    assert math.isfinite(row.of_input)
    assert math.isfinite(row.of_target)


@every
def test_repr_rebuilds(kind):
    names = {each.__name__: each for each in (*CLASSES, Training)}
    estimator = kind(critic="concat", hidden=(5, 7), training=Training(seed=4, patience=None))
    assert vars(eval(repr(estimator), names)) == vars(estimator)
    assert vars(eval(repr(kind()), names)) == vars(kind())


def test_a_diverging_critic_is_an_error():
    x, y = pairs(n_samples=200)
    with pytest.raises(ValueError, match=r"diverged at `learning_rate` 1e\+30"):
        NWJ(training=Training(learning_rate=1e30, steps=60)).estimate(x, y)
    with pytest.raises(ValueError, match=r"diverged at `learning_rate` 1e\+30"):
        MINE(training=Training(learning_rate=1e30, steps=60)).estimate(x, y)


@pytest.mark.parametrize("kind", [MINE, NWJ])
@pytest.mark.parametrize("axis", ["row", "column"])
def test_a_mean_of_one_sample_is_an_error(kind, axis, monkeypatch):
    def trained(*_args, **_options):
        scores = torch.zeros(40, 40, dtype=torch.float64)
        scores[3] = math.log(height)
        scores.fill_diagonal_(500.0)
        return None, [], [torch.zeros(5, 5).double(), scores if axis == "row" else scores.T]

    monkeypatch.setattr("captum_mi.estimators.neural_base.train", trained)
    height = 38.0  # 39 pairs of it beside 39 * 39 of 1: 49 %
    kind().estimate(*pairs())
    height = 41.0
    words = r"more than 40 held-out samples can show: 51% .* smaller `learning_rate`, or take `Inf"
    with pytest.raises(ValueError, match=words):
        kind().estimate(*pairs())


BAD_PAIRS = {
    "lengths": (lambda x: (x, x[:-1]), "same number of samples, got 40 and 39"),
    "nan": (lambda x: (x, np.where(x > 2, np.nan, x)), "`y` must be finite, got .* of 40 rows"),
    "constant": (lambda x: (x, x * [1, 0]), "`y` has constant columns, 1; drop"),
    "axes": (lambda x: (x[:, :, None, None, None], x), r"`x` must be \(N, d\).*got shape"),
    "words": (lambda x: (x, ["a"] * 40), "`y` must hold numbers"),
    "complex": (lambda x: (x, x + 1j), "`y` must be real"),
    "one image": (lambda x: (x[None], x), "`x` must hold at least 2 samples, got 1"),
    "black": (
        lambda x: (np.stack([x[..., None], 0 * x[..., None]], 1), x),
        "`x` has constant channels, 1; drop",
    ),
    "broken": (
        lambda x: (x, np.where(np.arange(40)[:, None, None] == 7, np.inf, x[:, None])),
        "`y` must be finite, got NaN or infinity in 1 of 40 images, the first is image 7",
    ),
    "few": (lambda x: (x[:19], x[:19]), "at least 20 samples to train on, got 19"),
}


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_bad_pairs(case):
    spoil, words = BAD_PAIRS[case]
    with pytest.raises(ValueError, match=words):
        short(MINE).estimate(*spoil(np.random.default_rng(0).standard_normal((40, 2))))


def test_bad_labels():
    x = np.random.default_rng(0).standard_normal((40, 2))
    with pytest.raises(ValueError, match=r"`labels` must be \(40,\).*got shape \(39,\)"):
        short(MINE).estimate_discrete(x, np.arange(39) % 2)
    with pytest.raises(ValueError, match="`labels` must not be missing, got 40 NaN or None"):
        short(MINE).estimate_discrete(x, np.full(40, np.nan))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MINE("dot"), "`critic` must be one of 'separable', 'concat', got 'dot'"),
        (lambda: MINE(hidden=()), "`hidden` must name the units of at least one layer"),
        (lambda: MINE(hidden=(8, 0)), "`hidden` must be at least 1, got 0"),
        (lambda: SMILE(0), "`clip` must be positive, got 0"),
        (lambda: Training(steps=0), "`steps` must be at least 1, got 0"),
        (lambda: Training(batch_size=1), "`batch_size` must be at least 2, got 1"),
        (lambda: Training(learning_rate=0), "`learning_rate` must be positive, got 0"),
        (lambda: Training(held_out=1), "`held_out` must lie between 0 and 1, got 1"),
        (lambda: Training(patience=0), "`patience` must be at least 1, got 0"),
        (
            lambda: MINE(training=Training(held_out=0.05)).estimate(*pairs(n_samples=40)),
            "`held_out` leaves 38 of 40 samples to train on, 1 to stop on and 1 to judge by",
        ),
    ],
)
def test_bad_options(make, words):
    with pytest.raises(ValueError, match=words):
        make()
