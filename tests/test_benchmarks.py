"""The benchmarks' averages and references, on cases whose answer is known."""

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn

from captum_mi.benchmarks.pointing import judge_scene, pointing
from captum_mi.benchmarks.speed import zero_latent_layer_integrated_gradients
from captum_mi.datasets import Scenes
from captum_mi.evaluation.pointing import SEED


def test_pointing_averages_over_both_objects(embedded):
    model, processor = embedded
    row = pointing(model, processor, "nib", hidden_state=3, scenes=3, n_steps=2)
    assert set(row) == {"hit", "wrong", "exact", "mass_inside", "other_negative", "gap"}
    assert all(0 <= value <= 1 for value in row.values())
    assert (row["hit"] * 6) % 1 == pytest.approx(0, abs=1e-9)
    scene = Scenes(3, seed=SEED, objects=2)
    judged = [judge_scene(model, processor, one, "nib", hidden_state=3, n_steps=2) for one in scene]
    assert row["gap"] == pytest.approx(np.median([gaps for _, gaps in judged]))
    assert row["mass_inside"] == pytest.approx(
        np.mean([verdict.mass_inside for verdicts, _ in judged for verdict in verdicts])
    )


def test_informed_starts_point_better_than_the_zero_latent(embedded):
    """At the same hidden state, with the same ten steps."""
    zero, blank, mean = (
        pointing(*embedded, name, hidden_state=1, scenes=20)
        for name in ("nib-zero", "nib", "nib-mean")
    )
    assert min(blank["hit"], mean["hit"]) >= 0.975 > zero["hit"]
    assert min(blank["mass_inside"], mean["mass_inside"]) > 1.5 * zero["mass_inside"]
    assert max(blank["gap"], mean["gap"]) < 0.03 < 0.2 < zero["gap"]


def test_zero_latent_reference_is_captum_from_zero():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3), nn.Tanh())
    x = torch.randn(2, 4)
    expected = IntegratedGradients(model[2:]).attribute(
        model[:2](x), target=1, n_steps=5, method="riemann_right"
    )
    actual = zero_latent_layer_integrated_gradients(model, model[1], x, 1, 5)
    torch.testing.assert_close(actual, expected)
