"""When one token carries so much that the map should not be believed."""

import warnings

import pytest
import torch

from captum_mi.attr._base import warn_if_degenerate


def one_token_and(others):
    """(2, 5, 3): the magnitudes of token 2 sum to one, those of the others together to a share."""
    attribution = torch.zeros(2, 5, 3, dtype=torch.float64)
    attribution[:, 2] = torch.tensor([0.5, -0.25, 0.25])
    attribution[0, :, 0] += torch.tensor([others, 0, 0, 0, 0])
    attribution[1, :, 1] -= torch.tensor([0, others / 2, 0, 0, others / 2])
    return attribution


@pytest.mark.parametrize("others", [0.0, 1e-6, 0.9e-4])
def test_a_share_below_a_ten_thousandth_warns(others):
    with pytest.warns(UserWarning, match="only one token of layer 'block' carries attribution"):
        warn_if_degenerate((one_token_and(others),), "'block'")


@pytest.mark.parametrize("others", [1.2e-4, 1e-3, 0.5])
def test_a_share_above_does_not(others):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_degenerate((one_token_and(others),), "'block'")


def test_one_row_that_is_spread_is_enough():
    attribution = one_token_and(0.0)
    attribution[1] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_degenerate((attribution,), "'block'")
