"""Information of photographs: the network's end, crops, groups and the command, on a small one."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from captum_mi import InfoNCEDecomposition
from captum_mi.benchmarks import __main__ as commands
from captum_mi.benchmarks import photographs_information as benchmark

PREPARE = v2.Compose(
    [v2.ToImage(), v2.Resize(16), v2.CenterCrop(12), v2.ToDtype(torch.float32, scale=True)]
)


class Network(nn.Module):
    """What EfficientNet-Lite0 is, in small."""

    def __init__(self):
        super().__init__()
        self._blocks = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self._conv_head, self._bn1 = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)
        self._swish, self._avg_pooling = nn.ReLU6(), nn.AdaptiveAvgPool2d(1)
        self._fc = nn.Linear(8, 4)

    def forward(self, x):
        for block in self._blocks:
            x = block(x)
        x = self._swish(self._bn1(self._conv_head(x)))
        return self._fc(self._avg_pooling(x).flatten(1))


@pytest.fixture
def network():
    model = Network()
    model(torch.randn(8, 3, 6, 6))  # running moments other than those it begins with
    return model.eval()


def photograph(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("block", [0, 2])
def test_behind_a_block_the_network_goes_on_as_it_does(network, block):
    x = torch.randn(2, 3, 6, 6)
    tail = benchmark.behind(network, block)
    before = nn.Sequential(*network._blocks[: block + 1])
    torch.testing.assert_close(tail(before(x)), network(x))
    assert not tail.training


def test_crops_depend_on_the_seed_alone():
    torch.manual_seed(1)
    drawn = benchmark.crops(photograph(0), PREPARE, 3, seed=5)
    assert drawn.shape == (3, 3, 12, 12)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(benchmark.crops(photograph(0), PREPARE, 3, seed=5), drawn)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(drawn[0], drawn[1])


def test_each_photograph_has_one_part():
    known, choosing, held_out = benchmark.divided(37, seed=0)
    assert (len(known), len(choosing), len(held_out)) == (23, 7, 7)
    assert sorted(known + choosing + held_out) == list(range(37))
    assert benchmark.divided(37, seed=1)[2] != held_out
    with pytest.raises(ValueError, match="`photographs` must hold enough to make 10 in all, got 9"):
        benchmark.divided(9, seed=0)


def test_correlations_are_those_of_numpy():
    first, second = torch.randn(3, 1, 4, 5), torch.randn(3, 1, 4, 5)
    second[2] = 7.0
    expected = [
        np.corrcoef(a.flatten(), b.flatten())[0, 1]
        for a, b in zip(first[:2], second[:2], strict=True)
    ]
    found = benchmark.correlations(first, second)
    assert found.tolist() == pytest.approx([*expected, 0.0], abs=1e-6)


def test_crops_of_one_photograph_count_as_one():
    values = torch.tensor([1.0, 5.0, 3.0, 7.0, 2.0, 6.0])  # of two photographs in turn
    found = benchmark.over_photographs(values, 2)
    assert (found.value, found.std_error, found.n_samples) == (4.0, pytest.approx(2.0), 2)


def test_no_batch_has_a_single_row(monkeypatch):
    monkeypatch.setattr(benchmark, "BATCH", 4)
    parts = benchmark.batches(torch.arange(9))
    assert [len(part) for part in parts] == [3, 3, 3]
    assert torch.equal(torch.cat(parts), torch.arange(9))


def test_a_mask_that_keeps_all_keeps_the_decision_and_one_that_keeps_none_does_not(network):
    tail = benchmark.behind(network, 2)
    layer = torch.randn(40, 3, 3, 4) * torch.tensor([1.0, 9.0]).repeat(20)[:, None, None, None]
    method = InfoNCEDecomposition(tail, tail.local, tail.pool, hidden=8)
    method.fit(list(layer.split(8)), epochs=1)
    agreement = []
    for logit in (50.0, -50.0):
        state = method._networks.mask.last
        state.weight.data.zero_()
        state.bias.data.fill_(logit)
        found = benchmark.measure(method, tail, layer, layer)
        assert set(found) == set(benchmark.MEASURES)
        assert {values.shape for values in found.values()} == {(40,)}
        torch.testing.assert_close(found["total"] - found["decision"], found["redundant"])
        agreement.append(float(found["agreement"].mean()))
    assert agreement[0] == 1
    assert agreement[1] < 0.9


def test_photographs_information_command(network, monkeypatch, capsys, tmp_path):
    images = [photograph(seed) for seed in range(8)]
    monkeypatch.setattr(benchmark, "read_photographs", lambda source: images)
    monkeypatch.setattr(benchmark, "load_efficientnet", lambda: (network, PREPARE))
    for name, value in {"BLOCK": 1, "BATCH": 8, "HIDDEN": 8, "SHOWN": 1}.items():
        monkeypatch.setattr(benchmark, name, value)
    out = tmp_path / "parts.png"
    arguments = f"photographs-information --photographs some.whl --crops 3 --out {out}".split()
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments, "--others", "2", "--epochs", "1"])
    commands.main()
    printed = capsys.readouterr().out
    assert printed.startswith("10 photographs, 3 crops of each; fitted on 6 of them")
    rows = [line for line in printed.splitlines() if line.count("±") == 2]
    assert [row[:23].strip() for row in rows] == list(benchmark.MEASURES)
    assert Image.open(out).size[0] > 500
