"""Models whose rows see each other: copies of a batch must never meet.

Every method must give the same numbers whatever it runs together, and NIB those of hook and rerun.
"""

import pytest
import torch
from oracles import assert_same, narrowed, run
from torch import nn

from captum_mi.attr import RISE, LayerRISE, MultimodalIB, NarrowingIB


def attention(rows, temperature):
    """Each row's share of the others, which at a low temperature only its likes are given."""
    return (rows @ rows.T / temperature).softmax(-1) @ rows.tanh()


INTERACTIONS = {
    "batch statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "less the mean": lambda: lambda h: h - h.mean(0),
    "by the maximum": lambda: lambda h: h / h.abs().max(),
    "less the last": lambda: lambda h: h - h[-1:],
    "less the first": lambda: lambda h: h - h[:1],
    "attention among rows": lambda: lambda h: attention(h.flatten(1), 12.0),
    "attention among close rows": lambda: lambda h: attention(h.flatten(1), 1.0),
    "attention among the closest": lambda: lambda h: attention(h.flatten(1), 0.05),
    "softmax over the first axis": lambda: lambda h: (3 * h).softmax(0),
}


class Model(nn.Module):
    """A layer, perhaps a normalization, and an interaction of rows with a skip over it."""

    def __init__(self, interaction, *, normalized):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.LayerNorm([4, 6, 6]) if normalized else nn.Tanh()
        self.interaction = INTERACTIONS[interaction]()
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        hidden = self.norm(self.layer(x))
        hidden = hidden + self.interaction(hidden).view_as(hidden)
        return self.head(hidden.square().tanh().mean((2, 3)))


class InBatchContrast(nn.Module):
    """InfoNCE of each row against the batch, and its own logit."""

    def __init__(self, *, normalized):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.LayerNorm([4, 6, 6]) if normalized else nn.Tanh()
        self.query, self.key = nn.Linear(144, 5), nn.Linear(144, 5)

    def forward(self, x):
        hidden = self.norm(self.layer(x)).flatten(1)
        logits = self.query(hidden) @ self.key(hidden).T
        own = logits.diagonal()
        return torch.stack([own, logits.log_softmax(-1).diagonal() + own.tanh()], 1)


KINDS = [*INTERACTIONS, "in-batch contrast"]
BATCHES = [1, 3]


def build(kind, batch, *, normalized=False):
    """Returns (model in evaluation mode, input), of double precision."""
    if kind == "in-batch contrast":
        model = InBatchContrast(normalized=normalized)
    else:
        model = Model(kind, normalized=normalized)
    return model.double().eval(), torch.randn(batch, 3, 6, 6, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_that_meet_are_wrong(kind):
    """The other tests here can fail: the batch and its shadow together give another output."""
    model, x = build(kind, 1)
    apart = torch.cat([run(model, (x,), model.layer, lambda z, s=s: z * s) for s in (0.2, 1.0)])
    together = run(
        model, (x.repeat(2, 1, 1, 1),), model.layer, lambda z: torch.cat([z[:1] * 0.2, z[1:]])
    )
    assert (together - apart).abs().max() > 1e-3


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("kind", KINDS)
def test_narrowing_ib(kind, batch, normalized):
    model, x = build(kind, batch, normalized=normalized)
    method = NarrowingIB(model, model.layer)
    expected = narrowed(model, (x,), model.layer, 1)
    assert_same(method.attribute(x, target=1, n_steps=5, internal_batch_size=1), expected, 1e-6)
    assert_same(method.attribute(x, target=1, n_steps=5), expected, 1e-6)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("kind", KINDS)
def test_multimodal_ib(kind, batch, normalized):
    model, x = build(kind, batch, normalized=normalized)
    method = MultimodalIB(model, model.layer)
    options = {"target": 1, "n_steps": 4, "n_samples": 3, "beta": 0.01}
    expected = method.attribute(x, internal_batch_size=1, **options)
    assert_same(method.attribute(x, **options), expected, 1e-6)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("kind", KINDS)
def test_rise_on_a_layer(kind, batch, normalized):
    model, x = build(kind, batch, normalized=normalized)
    method = LayerRISE(model, model.layer)
    options = {"target": 1, "n_masks": 20, "cells": 3}
    expected = method.attribute(x, internal_batch_size=1, **options)
    assert_same(method.attribute(x, **options), expected, 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_rise_on_the_input(kind):
    model, x = build(kind, 1)
    options = {"target": 1, "n_masks": 20, "cells": 3}
    expected = RISE(model).attribute(x, internal_batch_size=1, **options)
    assert_same(RISE(model).attribute(x, **options), expected, 1e-6)
