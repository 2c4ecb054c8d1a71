"""Values that a narrow type made equal: told apart, where rounding explains them."""

import math
import warnings

import numpy as np
import pytest
import torch

from captum_mi.estimators import KSG, KozachenkoLeonenko, WeightedKozachenkoLeonenko
from captum_mi.estimators._rounding import unrounded
from captum_mi.estimators._samples import as_samples

NARROW = [torch.float32, torch.float16, torch.bfloat16]
ENTROPY = 0.5 * math.log(2 * math.pi * math.e)  # of a standard normal


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def repetitions(samples):
    return len(samples) - len(torch.unique(samples, dim=0))


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("columns", [1, 2, 5])
def test_no_sample_of_a_hundred_thousand_repeats(dtype, columns):
    x = drawn(100_000, columns).to(dtype)
    assert min(repetitions(column) for column in x.T) > 0
    found = as_samples("x", x)
    assert max(repetitions(column) for column in found.T) == 0
    step = (torch.finfo(dtype).eps * x.double().abs()).clamp(min=1e-6)
    assert ((found - x).abs() <= step / 2).all()


@pytest.mark.parametrize(
    "estimator", [KozachenkoLeonenko(), WeightedKozachenkoLeonenko(), KSG()], ids=repr
)
def test_no_estimator_refuses_or_warns(estimator):
    x, noise = drawn(2, 50_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate = estimator.estimate(x, x + noise)
    assert estimate.value == pytest.approx(math.log(2) / 2, abs=4 * estimate.std_error)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("shift", [0, 30])
def test_entropies_are_those_of_the_values_before_rounding(dtype, shift):
    x = (drawn(5000) + shift).to(dtype)
    for estimator in (KozachenkoLeonenko(), WeightedKozachenkoLeonenko()):
        estimate = estimator.entropy(x)
        assert estimate.value == pytest.approx(ENTROPY, abs=4 * estimate.std_error)


def test_single_values_between_repeated_ones_are_no_grid():
    generator = torch.Generator().manual_seed(0)
    draws = (torch.rand(30, 500, generator=generator) + 1).half()  # two of 1,024 values, on average
    entropies = [KozachenkoLeonenko().entropy(x).value for x in draws]
    assert sum(entropies) / 30 == pytest.approx(0, abs=0.03)


def test_small_values_of_a_common_step():
    shares = torch.randint(256, (4000,), generator=torch.Generator().manual_seed(0)) / 256
    noise = unrounded(shares.double()[:, None])[:, 0] - shares
    for part in (noise[shares < 0.1], noise[shares > 0.9]):
        assert part.min() < -0.49 / 256
        assert part.max() > 0.49 / 256


def test_columns_are_told_apart_independently():
    halves = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0)) * 0.99 + 1
    halves = halves.bfloat16().double()  # of 128 values
    noise = unrounded(halves) - halves
    assert noise.abs().max() <= 2**-8
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.03
    assert noise.std(dim=0) * 2**7 == pytest.approx([12**-0.5] * 2, rel=0.02)
    again = unrounded(halves.flip(1)).flip(1)
    assert torch.equal(again, halves + noise)
    estimate = KSG().estimate(*halves.T)
    assert estimate.value == pytest.approx(0, abs=4 * estimate.std_error)


def test_few_repetitions_leave_the_other_samples():
    x = drawn(100_000, 1).double()
    found = unrounded(x)
    values, counts = x.unique(return_counts=True)
    single = torch.isin(x, values[counts == 1])
    assert torch.equal(found[single], x[single])
    assert (found != x)[~single].all()


DISCRETE = {
    "halves": drawn(1000).mul(4).round() / 2,
    "integers": drawn(100_000).mul(1e5).round(),
    "hundredths": (drawn(1000) * 50).round() / 100,
    "double precision": (drawn(1000).double() * 50).round() / 100,
    "given twice": drawn(500).repeat(2),
    "behind a ReLU": drawn(2000).relu(),
    "half behind a ReLU": (drawn(2000) + 1.5).relu().bfloat16(),
    "quarter hours": torch.arange(96).repeat(20) / 4,
}


@pytest.mark.parametrize("case", DISCRETE)
def test_discrete_values_stay(case):
    x = DISCRETE[case].double()[:, None]
    atoms = x if case != "half behind a ReLU" else x[x == 0]
    found = unrounded(x)
    assert torch.equal(found if case != "half behind a ReLU" else found[x == 0], atoms)
    assert repetitions(atoms) > 30


def test_nothing_is_copied_where_nothing_repeats():
    x = drawn(300, 3).double()
    assert unrounded(x) is x


def test_a_column_that_others_determine_is_still_found():
    x = drawn(50_000, 2)
    doubled = torch.cat([x, x @ torch.tensor([[2.0], [-3.0]])], dim=1)
    with pytest.raises(ValueError, match=r"covariance of `x` is degenerate: its 3 .* rank 2"):
        KozachenkoLeonenko().entropy(doubled)


def test_the_input_stays():
    x = drawn(100_000, 1).double()
    before = x.clone()
    assert unrounded(x) is not x
    assert torch.equal(x, before)
