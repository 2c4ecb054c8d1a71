"""MFABA: completeness, its published variant, and a rewriting."""

import pytest
import torch
from families import build
from torch import nn

from captum_mi._intervention.split import split_at
from captum_mi.attr import MFABA
from captum_mi.models import ImageTextSimilarity, blocks


@pytest.fixture
def model():
    return nn.Sequential(
        nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)
    ).double()


@pytest.fixture
def x():
    return torch.randn(3, 4, dtype=torch.float64)


def attack(model, z, target, *, n_steps, step_size, step, rule):
    """The paper's loop for one row, with plain autograd."""
    total, path = torch.zeros_like(z), [z]
    for _ in range(n_steps):
        gradients = []
        here = path[-1].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model(here)[0, target], here)
        gradients.append(gradient)
        move = gradient.sign() if step == "sign" else gradient / gradient.norm()
        there = (here - step_size * move).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model(there)[0, target], there)
        gradients.append(gradient)
        weight = gradients[0] if rule == "left" else (gradients[0] + gradients[1]) / 2
        total = total - (there - here).detach() * weight
        path.append(there.detach())
    return total, path[-1]


@pytest.mark.parametrize("n_steps", [1, 7])
@pytest.mark.parametrize("step", ["sign", "gradient"])
@pytest.mark.parametrize("rule", ["trapezoid", "left"])
def test_equals_the_loop_of_the_paper(model, x, step, rule, n_steps):
    settings = {"n_steps": n_steps, "step_size": 0.05, "step": step}
    found = MFABA(model, model[1]).attribute(x, target=[0, 1, 2], method=rule, **settings)
    for i in range(3):
        latent = model[:2](x[i : i + 1]).detach()
        expected, _ = attack(model[2:], latent, i, rule=rule, **settings)
        torch.testing.assert_close(found[i : i + 1], expected)


def gap(model, x, rule, steps):
    settings = {"n_steps": steps, "step_size": 0.4 / steps, "step": "gradient"}
    found = MFABA(model, model[1]).attribute(x[:1], target=1, method=rule, **settings)
    latent = model[:2](x[:1]).detach()
    _, end = attack(model[2:], latent, 1, rule=rule, **settings)
    fall = model[2:](latent)[0, 1] - model[2:](end)[0, 1]
    return abs(float(found.sum() - fall))


def test_sums_to_the_fall_of_the_score(model, x):
    gaps = {rule: [gap(model, x, rule, n) for n in (20, 40, 80)] for rule in ("trapezoid", "left")}
    assert gaps["trapezoid"][-1] < 1e-5
    for coarse, fine in zip(gaps["trapezoid"], gaps["trapezoid"][1:], strict=False):
        assert coarse / fine == pytest.approx(4, rel=0.1)
    for coarse, fine in zip(gaps["left"], gaps["left"][1:], strict=False):
        assert coarse / fine == pytest.approx(2, rel=0.1)


def test_the_published_variant_shows_no_evidence_against(model, x):
    found = MFABA(model, model[1]).attribute(x, target=0, method="left")
    assert (found >= 0).all()
    assert found.sum() > 0


def test_rows_of_the_gradient_step_are_normalized_alone(model, x):
    together = MFABA(model, model[1]).attribute(x, target=0, step="gradient")
    for i in range(3):
        alone = MFABA(model, model[1]).attribute(x[i : i + 1], target=0, step="gradient")
        torch.testing.assert_close(together[i : i + 1], alone)


def test_on_clip_it_sums_to_the_fall():
    clip, processor = build("clip")
    similarity = ImageTextSimilarity(clip, processor, ["a red circle"]).double()
    layer = blocks(clip)[2]
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    settings = {"n_steps": 20, "step_size": 1e-3, "step": "gradient"}
    found = MFABA(similarity, layer).attribute(pixels, target=0, **settings)
    for i in range(2):
        (suffix,) = split_at(similarity, [layer], pixels[i : i + 1])
        (latent,) = suffix.latent
        expected, end = attack(suffix, latent, 0, rule="trapezoid", **settings)
        torch.testing.assert_close(found[i : i + 1], expected, atol=1e-9, rtol=1e-5)
        fall = float(suffix(latent)[0, 0] - suffix(end)[0, 0])
        assert fall > 0
        assert float(found[i].sum()) == pytest.approx(fall, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_steps": 0}, "`n_steps` must be at least 1, got 0"),
        ({"step_size": 0.0}, "`step_size` must be positive, got 0.0"),
        ({"step": "random"}, "`step` must be one of 'sign', 'gradient', got 'random'"),
        ({"method": "right"}, "`method` must be one of 'trapezoid', 'left', got 'right'"),
    ],
)
def test_bad_arguments(model, x, options, words):
    with pytest.raises(ValueError, match=words):
        MFABA(model, model[1]).attribute(x, target=0, **options)


def test_a_gradient_step_is_never_longer_than_asked():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.seen = nn.Linear(3, 4), []

        def forward(self, x):
            z = self.layer(x)
            self.seen.append(z.detach())
            return 1e-24 * z.tanh().sum(1)

    model = Model()
    MFABA(model, model.layer).attribute(torch.randn(2, 3), step="gradient", n_steps=2)
    moved = max((z - model.seen[0]).norm(dim=1).max().item() for z in model.seen)
    assert moved <= 2 * 0.01 * (1 + 1e-4)
