"""Averages over the same samples, and their differences, against values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from captum_mi.benchmarks._paired import mean, middle, table
from captum_mi.explanation.attribution import completeness_gap


def test_means_and_paired_differences_have_their_standard_errors():
    found = {"zero": np.array([[1.0], [4.0], [7.0]]), "blank": np.array([[2.0], [4.0], [9.0]])}
    assert mean(found["zero"][:, 0]) == pytest.approx((4, math.sqrt(9 / 3)))
    lines = table("title", found, ["place"], reference="zero", digits=3).splitlines()
    assert lines[0] == "title"
    assert lines[1].split() == ["place"]
    assert lines[2].split() == ["zero", "4.000", "±", "1.732"]
    assert lines[3].split() == ["blank", "5.000", "±", "2.082"]
    # The differences are 1, 0 and 2: their mean is 1, their deviation 1.
    assert lines[4].split() == ["less", "zero", "+1.000", "±", f"{1 / math.sqrt(3):.3f}"]
    assert len({len(line) for line in lines[1:]}) == 1
    assert len(lines) == 5


def test_median_has_the_standard_error_of_normal_samples():
    values = np.random.default_rng(1).normal(size=2000)
    value, error = middle(values)
    assert value == np.median(values)
    assert error == pytest.approx(math.sqrt(math.pi / 2 / 2000), rel=0.15)


def test_completeness_gap_is_a_share_of_the_rise():
    attribution = torch.tensor([[[1.0, 1.0]], [[-3.0, 1.0]]])  # of rises of 4 and of -4
    assert completeness_gap(attribution, torch.tensor([-2.0, 2.0])).tolist() == [0.5, 0.5]
