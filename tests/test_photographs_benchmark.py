"""Starts judged on photographs: areas against brute force, on a network of random weights."""

import io
import re
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captum_mi import NarrowingIB
from captum_mi.attr import LayerStatistics
from captum_mi.benchmarks import __main__ as commands
from captum_mi.benchmarks import photographs


@pytest.fixture
def network():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self._blocks = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))

        def forward(self, x):
            for block in self._blocks:
                x = block(x).relu()
            return 9 * x.mean((2, 3))

    return Network().eval()


def test_exchange_area_of_a_brute_force_rewriting():
    images, others = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    maps = torch.stack([torch.randperm(20).reshape(1, 4, 5) for _ in range(2)]).float()

    def score(pixels):
        return pixels[:, 0].square().mean((1, 2)) + pixels[:, 1, 0, 0]

    expected = []
    for image, other, heat in zip(images, others, maps, strict=True):
        now, curve = image.clone(), [float(score(image[None]))]
        places = sorted(np.ndindex(4, 5), key=lambda place: -heat[0][place])
        for count, (row, column) in enumerate(places, start=1):
            now[:, row, column] = other[:, row, column]
            if count % 5 == 0:  # a quarter of the pixels
                curve.append(float(score(now[None])))
        expected.append(np.trapezoid(curve, dx=0.25))
    found = photographs.exchange_area(score, images, others, maps, 4)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_means_of_all_photographs_but_one(network):
    images = torch.randn(4, 3, 6, 6)
    means = photographs.means_of_others(network, network._blocks[0], images)
    expected = LayerStatistics.fit(network, network._blocks[0], [images[[0, 1, 3]]]).mean
    torch.testing.assert_close(means[2], expected)


def test_photographs_are_judged_at_every_start_and_layer(network):
    images = torch.randn(3, 3, 12, 12)
    found = photographs.photographs(network, list(network._blocks), images, exchanges=3)
    shapes = {name: array.shape for name, array in found.items()}
    names = ("zero", "zero, middles", "blank", "mean of others")
    assert shapes == dict.fromkeys(names, (3, 2, 5))
    assert np.ptp([array[:, 1, -1] for array in found.values()]) > 0
    with torch.no_grad():
        classes = network(images).argmax(1)
        before = network(images).softmax(1).amax(1)
    others = torch.stack([images[[1, 2]], images[[0, 2]], images[[0, 1]]])
    with torch.no_grad():
        means = network._blocks[0](others.flatten(0, 1)).unflatten(0, (3, 2)).mean(1)
    starts = {
        ("blank", 1): {"baselines": torch.zeros_like(images)},
        ("mean of others", 0): {"layer_baselines": means},
    }
    for (name, layer), start in starts.items():
        attribution = NarrowingIB(network, network._blocks[layer]).attribute(
            images, target=classes, n_steps=10, **start
        )
        heat = attribution.sum(1, keepdim=True)
        heat -= heat.amin((2, 3), keepdim=True)
        heat /= heat.amax((2, 3), keepdim=True)
        with torch.no_grad():
            after = network(images * heat).softmax(1)[torch.arange(3), classes]
        lost = 100 * (before - after)
        expected = torch.stack([lost.clamp(min=0), 100.0 * (lost < 0)], dim=1)
        np.testing.assert_allclose(found[name][:, layer, :2], expected, atol=1e-3)
        assert lost.abs().min() > 0.1


def test_insertion_shows_the_highest_pixel_first_and_deletion_hides_it():
    images = torch.rand(2, 3, 8, 8)
    maps = torch.zeros(2, 1, 8, 8)
    maps[:, :, 2, 5] = 1.0

    def score(pixels):
        return (pixels == images)[:, :, 2, 5].all(1).float()

    *_, insertion, deletion = photographs.judge(score, images, maps, exchanges=4)
    assert insertion.tolist() == [0.875, 0.875]  # all but half of the first of four parts
    assert deletion.tolist() == [0.125, 0.125]


def test_photographs_come_from_a_folder_or_a_wheel(tmp_path):
    pytest.importorskip("skimage")
    file = io.BytesIO()
    Image.new("L", (4, 3), 200).save(file, "JPEG")
    (tmp_path / "b.JPEG").write_bytes(file.getvalue())
    (tmp_path / "notes.txt").write_text("no photograph")
    wheel = tmp_path / "some.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("deep/inside/a.jpg", file.getvalue())
        archive.writestr("METADATA", "no photograph")
    own = photographs.read_photographs()
    for source in (tmp_path, wheel):
        found = photographs.read_photographs(source)
        assert len(found) == len(own) + 1 == 5
        assert (found[-1].size, found[-1].mode) == ((4, 3), "RGB")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"`photographs` must hold .* holds none"):
        photographs.read_photographs(tmp_path / "empty")
    with pytest.raises(ValueError, match="must be a folder or a zip file"):
        photographs.read_photographs(tmp_path / "notes.txt")
    with pytest.raises(FileNotFoundError):
        photographs.read_photographs(tmp_path / "absent")


def test_photographs_command(network, monkeypatch, capsys):
    def shrink(photograph):
        return torch.tensor(np.array(photograph.resize((12, 12))) / 255 - 0.5).permute(2, 0, 1)

    drawn = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), dtype=np.uint8)
    images = [Image.fromarray(pixels) for pixels in drawn]
    monkeypatch.setattr(photographs, "read_photographs", lambda source: images)
    monkeypatch.setattr(photographs, "BLOCKS", (0, 1))
    monkeypatch.setattr(
        photographs, "load_efficientnet", lambda: (network, lambda one: shrink(one).float())
    )
    monkeypatch.setattr(sys, "argv", ["benchmarks", "photographs"])
    commands.main()
    out = capsys.readouterr().out
    assert out.startswith("4 photographs")
    assert len(re.findall("^  less zero", out, re.MULTILINE)) == 3 * 5


def test_photographs_has_help(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "photographs", "--help"])
    with pytest.raises(SystemExit, match="0"):
        commands.main()
    assert "usage: python -m captum_mi.benchmarks photographs" in capsys.readouterr().out
