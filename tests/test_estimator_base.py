"""What all estimators share: results, checks, whitening, jitter and paired errors."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from captum_mi.estimators import (
    KSG,
    Estimate,
    KernelDensity,
    KozachenkoLeonenko,
    MutualInformationEstimator,
    WeightedKozachenkoLeonenko,
)
from captum_mi.estimators._samples import as_samples, jittered, label_rows, whitened

ENTROPY_ESTIMATORS = [
    KozachenkoLeonenko(),
    WeightedKozachenkoLeonenko(),
    KernelDensity(0.4),
    KernelDensity(),
]
EVERY = [*ENTROPY_ESTIMATORS, KSG()]
every = pytest.mark.parametrize("estimator", EVERY, ids=repr)
every_entropy = pytest.mark.parametrize("estimator", ENTROPY_ESTIMATORS, ids=repr)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def normals(rng, n_samples, nats, dim=2):
    """X and Y of ``dim`` independent pairs that share ``nats`` of information."""
    rho = math.sqrt(1 - math.exp(-2 * nats / dim))
    x, noise = rng.standard_normal((2, n_samples, dim))
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def test_interval():
    estimate = Estimate(value=2.0, std_error=0.5, n_samples=100)
    assert estimate.interval() == pytest.approx((2 - 0.979982, 2 + 0.979982), abs=1e-6)
    assert estimate.interval(0.6826895) == pytest.approx((1.5, 2.5), abs=1e-6)
    with pytest.raises(dataclasses.FrozenInstanceError):
        estimate.value = 1.0


@pytest.mark.parametrize("level", [0, 1, 95])
def test_interval_level(level):
    with pytest.raises(ValueError, match=f"`level` must lie between 0 and 1, got {level}"):
        Estimate(0.0, 1.0, 2).interval(level)


def test_estimate_of_terms():
    estimate = Estimate.of(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert estimate == Estimate(3.0, pytest.approx(math.sqrt(14 / 3 / 4)), 4)


@every
def test_repr_rebuilds(estimator):
    names = {type(each).__name__: type(each) for each in EVERY}
    rebuilt = eval(repr(estimator), names)
    assert type(rebuilt) is type(estimator)
    assert vars(rebuilt) == vars(estimator)


def test_an_estimator_must_say_how():
    with pytest.raises(TypeError, match="abstract"):
        MutualInformationEstimator()


@every
def test_arrays_tensors_and_lists_agree(estimator, rng):
    x, y = normals(rng, 60, 1.0, dim=1)
    expected = estimator.estimate(x, y)
    assert expected.n_samples == 60
    assert estimator.estimate(torch.from_numpy(x), y) == expected
    assert estimator.estimate(x[:, 0], y.ravel().tolist()) == expected
    single = estimator.estimate(torch.from_numpy(x).float().requires_grad_(), y.astype("float32"))
    assert single.value == pytest.approx(expected.value, abs=1e-4)
    labels = (x[:, 0] > 0).astype(int)
    discrete = estimator.estimate_discrete(x, labels)
    assert estimator.estimate_discrete(torch.from_numpy(x), torch.from_numpy(labels)) == discrete
    assert estimator.estimate_discrete(x, np.array(["no", "yes"])[labels][:, None]) == discrete


@every
def test_inputs_and_random_state_stay(estimator, rng):
    x, y = normals(rng, 50, 1.0)
    before = x.copy(), y.copy()
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    estimator.estimate(x, y)
    estimator.estimate_discrete(x, x[:, 0] > 0)
    np.testing.assert_array_equal((x, y), before)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def spoiled(x, value):
    x = x.copy()
    x[3, 1] = x[7, 0] = value
    return x


BAD_PAIRS = {
    "lengths": (lambda x: (x, x[:-1]), "same number of samples, got 40 and 39"),
    "nan": (lambda x: (spoiled(x, np.nan), x), "`x` must be finite, got .* in 2 of 40 rows.* 3;"),
    "infinite": (lambda x: (x, spoiled(x, np.inf)), "`y` must be finite"),
    "constant": (lambda x: (x, x * [1, 0]), "`y` has constant columns, 1; drop"),
    "axes": (lambda x: (x[None], x), r"`x` must be \(N, d\).*got shape \(1, 40, 2\); flatten"),
    "no columns": (lambda x: (x[:, :0], x), "`x` must be .*got shape"),
    "words": (lambda x: (x, ["a"] * 40), "`y` must hold numbers"),
    "complex": (lambda x: (x, x + 1j), "`y` must be real"),
    "one sample": (lambda x: (x[:1], x[:1]), "`x` must hold at least 2 samples, got 1"),
}


@every
@pytest.mark.parametrize("case", BAD_PAIRS)
def test_bad_pairs(estimator, case, rng):
    spoil, words = BAD_PAIRS[case]
    with pytest.raises(ValueError, match=words):
        estimator.estimate(*spoil(rng.standard_normal((40, 2))))


@every
def test_bad_labels(estimator, rng):
    x = rng.standard_normal((40, 2))
    with pytest.raises(ValueError, match=r"`labels` must be \(40,\).*got shape \(39,\)"):
        estimator.estimate_discrete(x, np.arange(39) % 2)
    with pytest.raises(ValueError, match=r"`labels` must be \(40,\).*got shape \(40, 2\)"):
        estimator.estimate_discrete(x, x)
    with pytest.raises(ValueError, match="`labels` must not be missing, got 40 NaN or None"):
        estimator.estimate_discrete(x, np.full(40, np.nan))
    rare = np.array(["rare"] + ["common"] * 39)
    with pytest.raises(ValueError, match=r"`x of label 'rare'` must hold at least .*got 1;"):
        estimator.estimate_discrete(x, rare)


@every_entropy
def test_constant_within_a_label(estimator, rng):
    labels = np.arange(40) % 2
    x = rng.standard_normal((40, 2))
    x[labels == 1, 0] = 5.0
    with pytest.raises(ValueError, match=r"`x of label 1` has constant columns, 0; drop"):
        estimator.estimate_discrete(x, labels)


@pytest.mark.parametrize(
    ("estimator", "least"),
    [
        (KozachenkoLeonenko(7), 8),
        (WeightedKozachenkoLeonenko(6), 7),
        (WeightedKozachenkoLeonenko(), 6),
        (KSG(4), 5),
        (KernelDensity(), 3),
    ],
    ids=repr,
)
def test_too_few_samples(estimator, least, rng):
    x, y = rng.standard_normal((2, least - 1))
    with pytest.raises(ValueError, match=f"at least {least} samples for .*got {least - 1}"):
        estimator.estimate(x, y)
    if isinstance(estimator, KSG):
        return  # takes fewer neighbors of a rare label
    rows = np.arange(20 + least - 1)
    with pytest.raises(ValueError, match=rf"`x of label 1` must hold at least {least}"):
        estimator.estimate_discrete(rng.standard_normal(len(rows)), (rows < least - 1).astype(int))


@every_entropy
def test_degenerate_covariance(estimator, rng):
    x = rng.standard_normal((50, 2))
    doubled = np.column_stack([x, x @ [2.0, -3.0]])
    with pytest.raises(ValueError, match=r"covariance of `x` is degenerate: its 3 .* rank 2; drop"):
        estimator.estimate(doubled, rng.standard_normal(50))
    with pytest.raises(ValueError, match="compress to 2 or fewer with `PCA`"):
        estimator.entropy(doubled.astype(np.float32))
    with pytest.raises(ValueError, match="compress to 2 or fewer with `PCA`"):
        estimator.entropy(doubled + 1e6)
    with pytest.raises(ValueError, match=r"covariance of `\(x, y\)` is degenerate"):
        estimator.estimate(x, x[:, :1] + 5)
    with pytest.raises(ValueError, match=r"50.* give more"):
        estimator.entropy(rng.standard_normal((50, 60)))


def test_strong_dependence_is_not_degenerate(rng):
    x, noise = rng.standard_normal((2, 1000, 1))
    estimate = KozachenkoLeonenko().estimate(x, x + 1e-8 * noise)  # the truth is log 1e8
    assert estimate.value == pytest.approx(8 * math.log(10), abs=4 * estimate.std_error)


def test_whitening(rng):
    mixing = rng.standard_normal((4, 4)) * [1e-6, 1, 1, 1e6]
    samples = torch.from_numpy(rng.standard_normal((300, 4)) @ mixing + 100)
    white, half_log_det = whitened("x", samples)
    torch.testing.assert_close(white.T.cov(), torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(4, dtype=torch.float64))
    assert half_log_det == pytest.approx(float(samples.T.cov().logdet()) / 2, abs=1e-6)


@every_entropy
def test_linear_maps_change_nothing(estimator, rng):
    x, y = normals(rng, 300, 2.0)
    x_map = np.eye(2) + 0.4 * rng.standard_normal((2, 2))
    y_map = np.diag([1e4, 1]) + rng.standard_normal((2, 2))
    expected = estimator.estimate(x, y)
    mapped = estimator.estimate(x @ x_map + 5, y @ y_map - 7)
    assert mapped.value == pytest.approx(expected.value, abs=1e-6)
    assert mapped.std_error == pytest.approx(expected.std_error, abs=1e-6)
    labels = x[:, 0] > 0
    discrete = estimator.estimate_discrete(x @ x_map, labels).value
    assert discrete == pytest.approx(estimator.estimate_discrete(x, labels).value, abs=1e-6)
    change = math.log(abs(np.linalg.det(x_map)))
    entropy = estimator.entropy(x @ x_map).value
    assert entropy == pytest.approx(estimator.entropy(x).value + change, abs=1e-6)


def test_without_whitening_maps_matter(rng):
    x, y = normals(rng, 300, 2.0)
    estimator = KozachenkoLeonenko(whiten=False)
    plain, stretched = estimator.estimate(x, y), estimator.estimate(x * [1, 50], y)
    assert abs(plain.value - stretched.value) > 0.1


def test_ksg_does_not_see_scales(rng):
    x, y = normals(rng, 300, 2.0)
    expected = KSG().estimate(x, y).value
    assert KSG().estimate(x * [1e-9, 1e3] + 4, 100 * y).value == pytest.approx(expected, abs=1e-6)


@every_entropy
def test_standard_error_is_paired(estimator, rng):
    x, y = (
        normals(rng, 2000, 3.0)
        if not isinstance(estimator, KernelDensity)
        else normals(rng, 500, 3.0)
    )
    parts = [estimator.entropy(part).std_error for part in (x, y, np.hstack([x, y]))]
    paired = estimator.estimate(x, y).std_error
    assert paired < math.hypot(*parts) < sum(parts)


@every
def test_one_label_says_nothing(estimator, rng):
    x = rng.standard_normal((50, 2))
    estimate = estimator.estimate_discrete(x, np.zeros(50))
    assert abs(estimate.value) < 0.3
    if estimator in ENTROPY_ESTIMATORS:
        assert (estimate.value, estimate.std_error) == (0.0, 0.0)


@pytest.mark.parametrize("nats", [0, 2, 5])
def test_intervals_cover(nats):
    rng = np.random.default_rng(0)
    estimator = WeightedKozachenkoLeonenko()
    intervals = [estimator.estimate(*normals(rng, 2000, nats)).interval() for _ in range(100)]
    assert 90 <= sum(low <= nats <= high for low, high in intervals) <= 100


def test_jitter(rng):
    samples = torch.from_numpy(rng.standard_normal((1000, 2)) * [1.0, 100.0])
    assert jittered(samples, 0.0) is samples
    noise = jittered(samples, 1e-3) - samples
    torch.testing.assert_close(noise.std(dim=0), 1e-3 * samples.std(dim=0), rtol=0.1, atol=0)
    torch.testing.assert_close(jittered(samples, 1e-3) - samples, noise, rtol=0, atol=0)


def test_label_rows():
    rows = label_rows(torch.tensor([[2], [0], [2]]), 3)
    assert {label: members.tolist() for label, members in rows.items()} == {0: [1], 2: [0, 2]}


def test_as_samples_copies_nothing_it_can_share():
    tensor = torch.randn(4, 2, dtype=torch.float64)
    assert as_samples("x", tensor).data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("labels", [["a", None], ["a", math.nan], ["2020-01-01", "NaT"]])
def test_missing_labels(labels):
    kind = "datetime64[D]" if "NaT" in labels else object
    with pytest.raises(ValueError, match="`labels` must not be missing, got 20 NaN or None"):
        label_rows(np.array(labels * 20, dtype=kind), 40)


def test_labels_of_several_kinds():
    with pytest.raises(ValueError, match="`labels` must be of one kind that sorts"):
        label_rows(np.array(["a", 1] * 20, dtype=object), 40)


def test_masked_entries(rng):
    x = np.ma.masked_greater(rng.standard_normal(50), 1)
    with pytest.raises(ValueError, match="`x` must not have masked entries; drop such rows"):
        as_samples("x", x)


def test_jitter_is_no_stream_of_the_callers():
    torch.manual_seed(0)
    x, y = torch.randn(2000, 2, dtype=torch.float64).unbind(dim=1)
    found = jittered(torch.stack([x, y], dim=1), 1.0)
    noise = found - torch.stack([x - x.mean(), y - y.mean()], dim=1)
    assert abs(np.corrcoef(x, noise[:, 0])[0, 1]) < 0.1


@pytest.mark.parametrize("estimator", ENTROPY_ESTIMATORS, ids=repr)
@pytest.mark.parametrize(
    "tie",
    [lambda column: column > 0, lambda column: column.clip(0), lambda column: (3 * column).round()],
)
def test_a_tied_column_warns_beside_others(estimator, tie, rng):
    x = rng.standard_normal((400, 2))
    y = x[:, 1] + rng.standard_normal(400)
    x[:, 0] = tie(x[:, 0])
    match = "`x` has columns of few or often repeated values, 0, which have no density"
    with pytest.warns(UserWarning, match=match):
        estimator.estimate(x, y)
    with pytest.warns(UserWarning, match=match):
        estimator.estimate_discrete(x, y > 0)


def test_values_rounded_finely_do_not_warn(rng, recwarn):
    x = rng.standard_normal((2000, 2)).round(3)
    WeightedKozachenkoLeonenko().estimate(x, x + rng.standard_normal((2000, 2)))
    assert not recwarn.list


class Given(MutualInformationEstimator):
    """Estimates what it is given."""

    def __init__(self, value, std_error):
        self.value, self.std_error = value, std_error

    def estimate(self, x, y):
        return self._reported(Estimate(self.value, self.std_error, len(x)))

    def estimate_discrete(self, x, labels):
        return self._reported(Estimate(self.value, self.std_error, len(x)), math.log(2))


@pytest.mark.parametrize("impossible", [(-0.4, 0.1), (-0.06, 0.001)])
def test_values_below_zero_are_doubted(impossible):
    with pytest.warns(UserWarning, match="far below 0, which no mutual information is"):
        Given(*impossible).estimate([0], [0])


def test_values_above_the_entropy_of_the_labels_are_doubted():
    with pytest.warns(UserWarning, match="far above 0.693 nats, the entropy of the labels"):
        Given(1.0, 0.1).estimate_discrete([0], [0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("possible", [(-0.29, 0.1), (-0.04, 0.001), (0.73, 0.001)])
def test_values_near_what_is_possible_are_not(possible):
    found = Given(*possible).estimate_discrete([0], [0])
    assert (found.value, found.std_error) == possible
    assert found.estimator == repr(Given(*possible))
