"""Confidence drop and increase against other libraries, and what must hold for any map."""

import contextlib

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torchcam.metrics import ClassificationMetric

from captum_mi.maps import min_max
from captum_mi.metrics import confidence, confidence_drop, confidence_increase


@pytest.fixture
def model():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2),
        nn.Tanh(),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()


@pytest.fixture
def images():
    return torch.randn(6, 3, 20, 20)


@pytest.fixture
def maps():
    return torch.rand(6, 1, 20, 20)


def score_of(model, target):
    return lambda x: model(x)[:, target]


def test_agrees_with_pytorch_grad_cam(model, images, maps):
    targets = [ClassifierOutputTarget(2)] * len(images)
    cams = maps[:, 0].numpy()
    expected_drop = 100 * DropInConfidence()(images, cams, targets, model)
    expected_increase = 100 * IncreaseInConfidence()(images, cams, targets, model)
    assert 0 < expected_increase.mean() < 100
    drop = confidence_drop(score_of(model, 2), images, maps)
    np.testing.assert_allclose(drop, expected_drop, atol=1e-4)
    increase = confidence_increase(score_of(model, 2), images, maps)
    np.testing.assert_array_equal(increase, expected_increase)


class FixedMaps:
    """What torch-cam's metric needs of an extractor, with maps that are given."""

    def __init__(self, model, maps):
        self.model = model
        self.maps = maps

    def __call__(self, class_idx=None, scores=None):
        return [self.maps]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return contextlib.nullcontext()


def test_relative_agrees_with_torchcam(model, images, maps):
    metric = ClassificationMetric(
        FixedMaps(model, maps[:, 0]), lambda logits: torch.softmax(logits, dim=-1)
    )
    metric.update(images, class_idx=1)
    expected = metric.summary()

    def probability(x):
        return model(x).softmax(-1)[:, 1]

    drop = confidence_drop(probability, images, maps, relative=True)
    assert float(drop.mean()) == pytest.approx(100 * expected["avg_drop"], abs=1e-4)
    increase = confidence_increase(probability, images, maps)
    assert float(increase.mean()) == pytest.approx(100 * expected["conf_increase"], abs=1e-4)
    assert 0 < expected["conf_increase"] < 1


def test_a_map_of_ones_changes_nothing(model, images):
    ones = torch.ones(6, 1, 20, 20)
    assert not confidence_drop(score_of(model, 0), images, ones).any()
    assert not confidence_increase(score_of(model, 0), images, ones).any()


def test_a_map_of_zeros_leaves_the_score_of_zero(model, images):
    found = confidence(score_of(model, 0), images, torch.zeros(6, 1, 20, 20))
    with torch.no_grad():
        empty = model(torch.zeros_like(images))[:, 0]
        lost = 100 * (model(images)[:, 0] - empty).clamp(min=0)
    torch.testing.assert_close(found.after, empty)
    torch.testing.assert_close(found.drop(), lost)


def test_drop_and_increase_exclude_each_other(model, images, maps):
    found = confidence(score_of(model, 1), images, maps)
    assert not ((found.drop() > 0) & (found.increase() > 0)).any()


def test_relative_times_the_score_is_absolute(model, images, maps):
    def probability(x):
        return model(x).softmax(-1)[:, 1]

    found = confidence(probability, images, maps)
    torch.testing.assert_close(found.drop(relative=True) * found.before, found.drop())


def test_a_closed_example():
    x = torch.tensor([[[[0.4, 0.6]]], [[[0.2, -0.1]]]])
    maps = torch.tensor([[[[1.0, 0.5]]], [[[1.0, 0.0]]]])

    def total(inputs):
        return inputs.sum((1, 2, 3))

    torch.testing.assert_close(confidence_drop(total, x, maps), torch.tensor([30.0, 0.0]))
    torch.testing.assert_close(
        confidence_drop(total, 2 * x, maps, relative=True), torch.tensor([30.0, 0.0])
    )
    assert confidence_increase(total, x, maps).tolist() == [0.0, 100.0]


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        (torch.rand(6, 20, 20), r"`maps` must have shape \(6, 1, 20, 20\)"),
        (torch.rand(6, 3, 20, 20), r"`maps` must have shape"),
        (torch.full((6, 1, 20, 20), 1.5), r"must lie in \[0, 1\], got values from 1.5 to 1.5"),
        (torch.full((6, 1, 20, 20), torch.nan), r"must lie in \[0, 1\], got values from nan"),
    ],
)
def test_maps_that_do_not_fit(model, images, maps, words):
    with pytest.raises(ValueError, match=words):
        confidence_drop(score_of(model, 0), images, maps)


def test_relative_needs_positive_scores(images, maps):
    def negative(x):
        return -torch.ones(len(x))

    with pytest.raises(ValueError, match="`relative` drop needs positive scores, row 0 has -1"):
        confidence_drop(negative, images, maps, relative=True)


def test_constant_maps_stay_finite():
    assert not min_max(torch.full((2, 1, 3, 3), 4.0)).any()
