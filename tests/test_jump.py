"""The jump next to the zero latent, on a LayerNorm of which it is known."""

import re
import sys

import numpy as np
import pytest
import torch
from torch import nn

from captum_mi.benchmarks import __main__ as commands
from captum_mi.benchmarks import jump


@pytest.fixture
def case():
    """A score that a LayerNorm makes jump at the zero latent, of images of two pixels."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(6, 8), nn.LayerNorm(8, eps=1e-12), nn.Linear(8, 3)
    )
    pixels = torch.randn(5, 3, 1, 2)
    target = torch.tensor([0, 1, 2, 0, 1])
    return jump.Case(model, model[1], pixels, torch.zeros_like(pixels), target)


def test_behind_a_layer_norm_the_rise_lies_next_to_zero(case):
    found = jump.shares(case, from_blank=False)
    np.testing.assert_allclose(found, [[1, 1, 1, 1, 1, 0]] * 5, atol=1e-3)


def test_shares_of_the_path_from_a_blank_image(case):
    embed, suffix = case.score[:2], case.score[2:]
    with torch.no_grad():
        z, start = embed(case.pixels), embed(case.blank)
        rows = torch.arange(5), case.target
        low, high = suffix(start)[rows], suffix(z)[rows]
        expected = [
            (suffix(start + part * (z - start))[rows] - low) / (high - low)
            for part in (1, 0.1, 0.01, 0.001, 0.0001, 0)
        ]
    found = jump.shares(case, from_blank=True)
    np.testing.assert_allclose(found, torch.stack(expected, dim=1).abs(), atol=1e-4)


def test_steps_close_the_gap_of_a_path_from_a_blank_image(case):
    blank = jump.gaps(case, "riemann_middle", from_blank=True)
    zero = jump.gaps(case, "riemann_right", from_blank=False)
    assert blank.shape == zero.shape == (5, 3)
    assert (blank[:, -1] < 1e-3).all()
    np.testing.assert_allclose(zero, 1, atol=1e-4)  # no step sees the jump


def test_jump_command(case, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(jump, "random_clip", lambda images: seen.append(images) or case)
    monkeypatch.setattr(jump, "STEPS", (2, 3))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "jump", "--images", "2", "--scenes", "3"])
    commands.main()
    out = capsys.readouterr().out
    assert seen == [2]
    assert "embedded CLIP, scenes of two objects: 3" in out
    assert len(re.findall("^(?:zero latent|blank image)", out, re.MULTILINE)) == 2 * (2 + 6)


def test_the_large_clip_has_twelve_blocks_and_explains_the_ninth(monkeypatch):
    from transformers import CLIPConfig

    class Small(CLIPConfig):
        def __init__(self):
            sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
            super().__init__(text_config=sizes, vision_config=sizes, projection_dim=8)

    monkeypatch.setattr("transformers.CLIPConfig", Small)
    case = jump.random_clip(2)
    assert case.pixels.shape == case.blank.shape == (2, 3, 224, 224)
    assert not case.blank.any()
    with torch.no_grad():
        assert case.score(case.pixels).diagonal().tolist() == pytest.approx([1, 1])
    rises = jump.shares(case, from_blank=True)
    assert rises[:, 0].tolist() == [1, 1]


def test_jump_has_help(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "jump", "--help"])
    with pytest.raises(SystemExit, match="0"):
        commands.main()
    assert "usage: python -m captum_mi.benchmarks jump" in capsys.readouterr().out
