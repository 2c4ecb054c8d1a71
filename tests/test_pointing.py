"""The judge of one map, on cases whose answer is known."""

import pytest
import torch

from captum_mi.evaluation.pointing import Pointing, judge


def masks():
    named, other = torch.zeros(2, 8, 8, dtype=torch.bool)
    named[1:3, 1:3] = True
    other[5:7, 5:7] = True
    return named, other


def test_a_perfect_map():
    named, other = masks()
    heat = named.float() - other.float()
    assert judge(heat, named, other) == Pointing(1.0, 0.0, 1.0, 1.0, 1.0)
    assert judge(heat, other, named) == Pointing(0.0, 1.0, 0.0, 0.0, 0.0)


def test_tolerance_is_the_distance_to_the_object():
    named, other = masks()
    heat = torch.zeros(8, 8)
    heat[2, 4] = 1.0  # two columns right of the object
    assert judge(heat, named, other, tolerance=1.9).hit == 0.0
    assert judge(heat, named, other, tolerance=2.0).hit == 1.0
    assert judge(heat, named, other, tolerance=2.0).exact == 0.0
    assert judge(heat, named, other, tolerance=1.9).wrong == 0.0
    assert judge(heat, other, named, tolerance=2.0).wrong == 1.0


def test_tolerance_reaches_along_both_axes_at_once():
    named, other = masks()
    heat = torch.zeros(8, 8)
    heat[4, 4] = 1.0  # two rows below and two columns right of the object
    assert judge(heat, named, other, tolerance=2.0) == Pointing(1.0, 0.0, 0.0, 0.0, 0.0)
    assert judge(heat, named, other, tolerance=1.0) == Pointing(0.0, 1.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("rounding", [0.0, 1e-7, -1e-7])
def test_tied_maxima_share_the_verdict(rounding):
    named, other = masks()
    heat = torch.full((8, 8), -1.0)
    heat[1, 0:4] = 3.0  # two of four on the object, all within a pixel of it
    heat[5, 5] = 3.0 * (1 + rounding)  # one on the other object
    heat[7, 0] = 2.999  # clearly less
    exact = judge(heat, named, other)
    assert (exact.hit, exact.wrong, exact.exact) == pytest.approx((2 / 5, 1 / 5, 2 / 5))
    near = judge(heat, named, other, tolerance=1.0)
    assert (near.hit, near.wrong, near.exact) == pytest.approx((4 / 5, 1 / 5, 2 / 5))


def test_a_map_that_says_nothing_points_by_chance():
    named, other = masks()
    judged = judge(torch.full((8, 8), 0.5), named, other, tolerance=1.0)
    assert (judged.hit, judged.wrong, judged.exact) == (16 / 64, 16 / 64, 4 / 64)


def test_mass_and_sign():
    named, other = masks()
    heat = torch.full((8, 8), 0.5)
    heat[other] = -1.0
    judged = judge(heat, named, other)
    assert judged.mass_inside == pytest.approx(4 / 60)
    assert judged.other_negative == 1.0
    assert judge(torch.zeros(8, 8), named, other).mass_inside == 0.0
