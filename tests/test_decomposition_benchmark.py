"""The benchmark of decompositions: its figures, on maps whose answers are known, and its path."""

import argparse

import pytest
import torch
from helpers import latent_of, replaced
from torch import nn

from captum_mi.attr import InfoNCEDecomposition, LayerStatistics
from captum_mi.attr.decomposition import Decomposition
from captum_mi.benchmarks import decomposition
from captum_mi.benchmarks.decomposition import (
    NAMED,
    TEXTS,
    Figures,
    draw,
    inside,
    judge,
    masked_scores,
    positive_share,
    report,
)
from captum_mi.datasets import Scenes
from captum_mi.evaluation.pointing import SEED
from captum_mi.models import ImageTextSimilarity
from captum_mi.models.tiny_clip import FOLDER
from captum_mi.models.towers import hidden_state

AREAS = torch.tensor([[[[0.5, 0.0]], [[0.0, 0.25]], [[0.5, 0.75]]]])
"""Of two patches: half of one is named, a quarter of the other is of the other object."""


@pytest.fixture(scope="module")
def similarity(embedded):
    return ImageTextSimilarity(*embedded, TEXTS)


@pytest.fixture(scope="module")
def drawn(embedded):
    return draw(*embedded, 6, seed=0)


def test_regions_have_the_values_of_their_pixels():
    maps = torch.tensor([[[[4.0, -2.0]]]])
    torch.testing.assert_close(inside(maps, AREAS), torch.tensor([[4.0, -2.0, 0.4, 1.0]]))
    torch.testing.assert_close(positive_share(maps, AREAS), torch.tensor([[0.5, 0.0, 0.5]]))
    torch.testing.assert_close(positive_share(-maps, AREAS), torch.tensor([[0.0, 0.25, 0.75]]))
    assert not positive_share(-maps.abs(), AREAS).any()


def test_one_object_decides(drawn):
    scenes = Scenes(6, seed=0, objects=2, first_colors=NAMED)
    for scene, label, areas in zip(scenes, drawn.labels, drawn.areas, strict=True):
        assert scene.texts[0] == TEXTS[label]
        assert scene.texts[1] not in TEXTS
        named, other = torch.from_numpy(scene.masks)
        assert float(areas[0, 2, 3]) == float(named[16:24, 24:32].float().mean())
        assert float(areas[1].sum()) == pytest.approx(float(other.sum()) / 64)
        torch.testing.assert_close(areas.sum(0), torch.ones(8, 8))


def test_what_does_not_pass_is_noise_and_the_first_token_is_the_mean(similarity, drawn):
    layer, _ = hidden_state(similarity, "image", 2)
    latent = latent_of(similarity, layer, drawn.pixels)
    method = argparse.Namespace(forward_func=similarity, layer=layer)
    prior = LayerStatistics(latent.mean(0), latent.std(0), latent[0], 6)
    mask = torch.ones(6, 1, 8, 8)
    mask[:, :, 1, 2] = 0
    mask[:, :, 5, 5] = 0.25
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(4))
    noise = prior.mean + prior.std * noise
    expected = latent.clone()
    expected[:, 0] = prior.mean[0]
    expected[:, 1 + 8 + 2] = noise[:, 1 + 8 + 2]
    expected[:, 1 + 45] = 0.25 * latent[:, 1 + 45] + 0.75 * noise[:, 1 + 45]
    torch.manual_seed(4)
    actual = masked_scores(method, drawn.pixels, mask, prior)
    torch.testing.assert_close(actual, replaced(similarity, layer, (drawn.pixels,), expected))


class Known:
    """A decomposition that knows the objects: 2 nats of each, of which the named one's decide."""

    def __init__(self, similarity, areas):
        self.forward_func = similarity
        self.layer, _ = hidden_state(similarity, "image", 1)
        self.areas = nn.functional.pad(areas.flatten(2), (1, 0))[..., None]

    def decompose(self, _pixels):
        named, other = (self.areas[:, i : i + 1, :, 0].movedim(1, -1) > 0 for i in (0, 1))
        return Decomposition(
            total=2.0 * (named | other), decision=2.0 * named, mask=1.0 * named, cap=6.0
        )


def test_judging_maps_that_know_the_objects(similarity, drawn):
    found = judge(Known(similarity, drawn.areas), drawn)
    assert torch.equal(found.nats["decision"][:, 0], torch.full((6,), 2.0))
    assert torch.equal(found.nats["total"][:, 1], torch.full((6,), 2.0))
    more = found.nats["redundant"][:, 1] - found.nats["redundant"][:, 0]
    assert (more > 1).all()  # not 2: a patch may hold both
    torch.testing.assert_close(found.area[:, 0], drawn.areas[:, 0].mean((1, 2)))
    kept = drawn.areas[:, 0] > 0
    expected = drawn.areas[:, 0].sum((1, 2)) / kept.sum((1, 2))
    torch.testing.assert_close(found.share[:, 0], expected)
    torch.testing.assert_close(found.mask[:, 3], kept.float().mean((1, 2)))
    assert torch.equal(found.right, torch.ones(6))
    assert torch.equal(found.right_masked, torch.ones(6))
    mistaken = judge(Known(similarity, drawn.areas[:, [1, 0, 2]]), drawn)
    assert float(mistaken.right_masked.mean()) < 0.5
    assert torch.equal(mistaken.right, torch.ones(6))


def test_the_shipped_one_finds_the_object_that_decides(embedded, similarity):
    path = FOLDER / "infonce.safetensors"
    assert path.stat().st_size < 2_000_000
    found = judge(InfoNCEDecomposition.load(path, similarity), draw(*embedded, 100, seed=SEED))
    assert found.share[:, 0].mean() > 2 * found.area[:, 0].mean()
    named, other = found.nats["redundant"][:, :2].mean(0)
    assert other > named + 0.3
    assert found.right_masked.mean() > found.right.mean() - 0.03
    assert found.mask[:, 3].mean() < 0.5


def test_report():
    zeros = torch.zeros(2, 4)
    redundant = torch.tensor([[0.1, 0.5, 0.0, 0.0], [0.1, 0.7, 0.0, 0.0]])
    share, area = (torch.tensor([[a, 0, 0], [b, 0, 0]]) for a, b in ((0.2, 0.4), (0.08, 0.12)))
    right, masked = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])
    nats = {"total": 2 * redundant, "decision": redundant, "redundant": redundant}
    lines = report(Figures(nats, zeros, share, area, right, masked)).splitlines()
    assert lines[1].split() == ["named", "object", "other", "object", "ground", "all"]
    found = " ".join(lines[4].split())
    assert found == "redundant 0.10 ± 0.00 0.60 ± 0.10 0.00 ± 0.00 0.00 ± 0.00"
    assert [line.rsplit("  ", 1)[1].strip() for line in lines[7:]] == [
        "0.300 ± 0.100",
        "0.100 ± 0.020",
        "3.0 ± 0.4",
        "0.50 ± 0.10",
        "50.0 ± 50.0",
        "50.0 ± 50.0",
    ]


def test_the_command_writes_what_it_judges(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(decomposition, "HIDDEN", 8)
    monkeypatch.setattr(decomposition, "RUNS", 1)
    parser = argparse.ArgumentParser()
    decomposition.add_arguments(parser)
    path = str(tmp_path / "fitted.safetensors")
    fit = ["--images", "40", "--epochs", "1", "--hidden-state", "5", "--out", path]
    decomposition.run(parser.parse_args(["--scenes", "6", *fit]))
    title, fitted, *figures, last = capsys.readouterr().out.splitlines()
    assert title.endswith("the text of the red, green, blue or yellow one decides")
    assert fitted.startswith("hidden state 5, beta 2: 40 scenes, 1 epochs in ")
    assert figures[0].startswith("6 scenes that were not fitted to; at most ")
    assert last.startswith("attribute takes the time of ")
    decomposition.run(parser.parse_args(["--scenes", "6", "--fitted", path]))
    assert capsys.readouterr().out.splitlines()[:-1] == [title, *figures]
    with pytest.raises(ValueError, match="`--hidden-state` must be at least 1, got 0"):
        decomposition.run(parser.parse_args(["--images", "2", "--hidden-state", "0"]))
