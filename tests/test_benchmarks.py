"""The benchmarks' averages and references, on cases whose answer is known."""

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn

from captum_mi.benchmarks.pointing import pointing
from captum_mi.benchmarks.speed import zero_latent_layer_integrated_gradients


def test_pointing_averages_over_both_objects(embedded):
    model, processor = embedded
    row = pointing(model, processor, "nib", hidden_state=3, scenes=3, n_steps=2)
    assert set(row) == {"hit", "wrong", "exact", "mass_inside", "other_negative"}
    assert all(0 <= value <= 1 for value in row.values())
    assert (row["hit"] * 6) % 1 == pytest.approx(0, abs=1e-9)


def test_a_blank_start_points_better_than_the_zero_latent(embedded):
    model, processor = embedded
    zero, blank = (
        pointing(model, processor, "nib", hidden_state=1, scenes=20, start=start)
        for start in ("zero", "blank")
    )
    assert blank["hit"] >= 0.975 > zero["hit"]
    assert blank["mass_inside"] > 1.5 * zero["mass_inside"]
    with pytest.raises(TypeError, match="MultimodalIB takes no argument 'baselines'"):
        pointing(model, processor, "m2ib", hidden_state=1, scenes=1, start="blank")


def test_zero_latent_reference_is_captum_from_zero():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3), nn.Tanh())
    x = torch.randn(2, 4)
    expected = IntegratedGradients(model[2:]).attribute(
        model[:2](x), target=1, n_steps=5, method="riemann_right"
    )
    actual = zero_latent_layer_integrated_gradients(model, model[1], x, 1, 5)
    torch.testing.assert_close(actual, expected)
