"""RISE against linear scorers, full enumeration and the published formula."""

import itertools

import numpy as np
import pytest
import torch
from captum.attr._utils.attribution import Attribution
from families import build
from torch import nn

from captum_mi.attr import RISE
from captum_mi.attr.rise import _Masks
from captum_mi.maps import special_tokens
from captum_mi.models import TextImageSimilarity, tokenize
from captum_mi.models.clip import token_embedding


class Linear(nn.Module):
    """f(x) = sum of w * x over everything but the batch, plus an offset."""

    def __init__(self, weight, offset=0.0):
        super().__init__()
        self.weight = weight
        self.offset = offset

    def forward(self, x):
        return (x * self.weight).flatten(1).sum(1) + self.offset


def test_tokens_of_a_linear_scorer_are_recovered():
    # With independent masks E[f | m_j = 1] - E[f] = (1 - p) w_j . x_j.
    weight, x = torch.randn(2, 1, 12, 5)
    expected = (weight * x).sum(-1, keepdim=True)
    found = RISE(Linear(weight, offset=30.0)).attribute(x, n_masks=20_000, probability=0.3)
    assert found.shape == (1, 12, 1)
    torch.testing.assert_close(found, 0.7 * expected, atol=0.2, rtol=0)


def test_the_ranking_of_a_linear_scorer_at_4000_masks():
    weight = torch.tensor([5.0, -3.0, 1.0, 0.0, 8.0, -6.0]).reshape(1, 6, 1)
    found = RISE(Linear(weight)).attribute(torch.ones(1, 6, 1))
    assert found.flatten().argsort().tolist() == weight.flatten().argsort().tolist()


def test_tokens_equal_the_enumeration_of_all_masks():
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    x, p = torch.randn(1, 6, 3, dtype=torch.float64), 0.4
    masks = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6)), dtype=torch.float64)
    chance = (p**masks * (1 - p) ** (1 - masks)).prod(1)
    with torch.no_grad():
        scores = model(x * masks[..., None])[:, 1]
    shown = (chance * scores) @ masks / (chance @ masks)
    expected = shown - (chance * scores).sum()
    found = RISE(model).attribute(x, target=1, n_masks=50_000, probability=p)
    error = scores.std() / (50_000 * p) ** 0.5
    torch.testing.assert_close(found.flatten(), expected, atol=4 * float(error), rtol=0)


def test_kept_tokens_score_zero_and_are_never_masked():
    seen = []

    def score(x):
        seen.append(x[:, 1].clone())
        return x.sum((1, 2))

    keep = torch.tensor([False, True, False, False])
    found = RISE(score).attribute(torch.ones(2, 4, 3), n_masks=50, keep=keep)
    assert all((part == 1).all() for part in seen)
    assert found[:, 1].abs().max() < 1e-6
    assert found[:, 0].abs().min() > 0.01


def test_maps_find_a_planted_patch():
    weight = torch.zeros(1, 3, 28, 28)
    weight[:, :, 8:14, 16:22] = 1.0
    found = RISE(Linear(weight)).attribute(torch.ones(1, 3, 28, 28), n_masks=2000)
    row, column = divmod(int(found[0, 0].argmax()), 28)
    assert 8 <= row < 14
    assert 16 <= column < 22


def test_the_published_estimate_on_the_same_masks():
    x = torch.rand(2, 3, 20, 20)
    model = Linear(torch.randn(1, 3, 20, 20), offset=5.0)
    options = {"n_masks": 40, "cells": 8, "probability": 0.1, "seed": 3}
    masks = _Masks(x, 40, 8, 0.1, None, 3).draw(40)[:, 0].numpy()
    expected = np.zeros((2, 20, 20))
    for mask in masks:
        for i in range(2):
            expected[i] += float(model(x[i : i + 1] * mask)) * mask / (40 * 0.1)
    found = RISE(model).attribute(x, center=False, **options)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4)


@pytest.mark.parametrize("size", [(28, 28), (30, 41), (5, 3)])
def test_masks(size):
    masks = _Masks(torch.zeros(1, 3, *size), 3000, 7, 0.3, None, 0).draw(3000)
    assert masks.shape == (3000, 1, *size)
    assert masks.min() >= 0
    assert masks.max() <= 1
    coverage = masks.mean(0)[0]
    torch.testing.assert_close(coverage, torch.full(size, 0.3), atol=0.05, rtol=0)


def test_masks_do_not_depend_on_how_many_are_drawn_at_once():
    together = _Masks(torch.zeros(1, 3, 20, 20), 10, 7, 0.3, None, 5).draw(10)
    parts = _Masks(torch.zeros(1, 3, 20, 20), 10, 7, 0.3, None, 5)
    assert torch.equal(together, torch.cat([parts.draw(3), parts.draw(7)]))


def test_masking_the_input_is_masking_an_identity_layer():
    model = nn.Sequential(
        nn.Identity(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)
    )
    x = torch.randn(3, 3, 16, 16)
    model(x)
    options = {"target": [0, 1, 1], "n_masks": 60}
    torch.testing.assert_close(
        RISE(model).attribute(x, **options), RISE(model, model[0]).attribute(x, **options)
    )


def test_texts_are_masked_by_position_and_the_weights_stay():
    model, processor = build("clip")
    similarity = TextImageSimilarity(model, processor, [torch.zeros(3, 32, 32, dtype=torch.uint8)])
    encoded = tokenize(model, processor, ["a heart and a heart"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    keep = special_tokens(processor, encoded["input_ids"])
    found = RISE(similarity, token_embedding(model)).attribute(
        encoded["input_ids"], target=0, keep=keep, n_masks=4000
    )
    assert found.shape == (1, 7, 1)
    scores = found.flatten()
    assert abs(scores[1] - scores[4]) > 1e-3  # "a" twice
    assert abs(scores[2] - scores[5]) > 1e-3  # "heart" twice
    assert scores[[0, 6]].abs().max() < 1e-6
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

    embeddings = token_embedding(model)(encoded["input_ids"])
    masks = torch.tensor(list(itertools.product((0.0, 1.0), repeat=5)))
    masks = torch.cat([torch.ones(32, 1), masks, torch.ones(32, 1)], dim=1)
    handle = token_embedding(model).register_forward_hook(lambda *_: embeddings * masks[..., None])
    with torch.no_grad():
        exact = similarity(encoded["input_ids"].expand(32, -1))[:, 0]
    handle.remove()
    expected = (exact @ masks) / masks.sum(0) - exact.mean()
    torch.testing.assert_close(scores, expected, atol=0.02, rtol=0)


def test_it_is_a_captum_method():
    assert isinstance(RISE(nn.Identity()), Attribution)
    assert RISE(nn.Identity()).multiplies_by_inputs is False


@pytest.mark.parametrize(
    ("inputs", "options", "error", "words"),
    [
        (torch.ones(1, 4, dtype=torch.long), {}, TypeError, "must be floating-point to be masked"),
        ((torch.ones(1, 4), torch.ones(1, 4)), {}, ValueError, "must be one tensor.* got 2"),
        (torch.full((1, 4), torch.nan), {}, ValueError, "`inputs` holds NaN"),
        (torch.ones(1, 4), {"probability": 1.0}, ValueError, "`probability` must be between 0"),
        (torch.ones(1, 4), {"n_masks": 0}, ValueError, "`n_masks` must be at least 1, got 0"),
        (
            torch.ones(1, 4, 2),
            {"keep": torch.ones(5)},
            ValueError,
            r"`keep` must have shape \(1, 4\)",
        ),
        (torch.ones(1, 2, 3, 4, 5), {}, ValueError, "RISE masks maps"),
    ],
)
def test_bad_arguments(inputs, options, error, words):
    with pytest.raises(error, match=words):
        RISE(lambda *parts: parts[0].flatten(1).float().sum(1)).attribute(inputs, **options)
