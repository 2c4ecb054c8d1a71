"""How codes are judged: probes, decoder, dependence, the table and ``captum-mi infomax``."""

import json
import math
import re

import numpy as np
import pytest
import torch
from helpers import snapshot
from scipy.stats import kstest
from torch import nn
from torch.nn.functional import avg_pool2d

from captum_mi import infomax as package
from captum_mi.cli import main
from captum_mi.estimators import Estimate
from captum_mi.infomax import (
    Decoder,
    NetworkProbe,
    Row,
    Training,
    distance_to_uniform,
    fit_decoder,
    judge,
    multi_scale_ssim,
    neural_dependency,
    probe,
    reconstruction,
    table,
)
from captum_mi.infomax.dependency import SHUFFLES, independent
from captum_mi.infoplane import classifier
from captum_mi.infoplane.classifier import Images, read_images


def rings(count):
    """Points of two rings, which no line tells apart."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 2
    angles = 2 * math.pi * torch.rand(count, generator=generator)
    radius = 1 + 3 * labels + 0.3 * torch.rand(count, generator=generator)
    return torch.stack([angles.cos(), angles.sin()], 1) * radius[:, None], labels


def test_probes_tell_what_they_can():
    labels = torch.arange(300) % 3
    codes = 8 * torch.eye(3)[labels] + torch.randn(300, 3)
    found = probe(codes[:200], labels[:200], codes[200:], labels[200:])
    assert found == {"linear": 1.0, "svm": 1.0, "network": 1.0}
    moved = probe(codes[:200], labels[:200], codes[200:], (labels[200:] + 1) % 3)
    assert max(moved.values()) == 0  # judged on the test images' labels
    codes, labels = rings(600)
    found = probe(codes[:400], labels[:400], codes[400:], labels[400:])
    assert found["linear"] < 0.7
    assert found["svm"] < 0.7
    assert found["network"] > 0.95


def test_the_network_probe_is_the_papers_and_scales_its_features():
    codes, labels = rings(200)
    training = Training(epochs=15, batch_size=40, learning_rate=1e-2)
    found = NetworkProbe(training).fit(1000 * codes + 7, labels)
    kinds = [type(part).__name__ for part in found._network]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear"]
    assert found._network[0].out_features == 200
    assert found._network[3].p == 0.1
    torch.manual_seed(9)
    again = NetworkProbe(training).fit(1000 * codes + 7, labels)
    assert torch.equal(found.predict(codes), again.predict(codes))
    assert found.score(1000 * codes + 7, labels) > 0.9


def test_decoder_and_its_scores():
    torch.manual_seed(0)
    images = torch.rand(200, 1, 1, 1).expand(-1, 1, 9, 7).contiguous()  # sides that do not halve
    codes = torch.cat([5 * images.mean((1, 2, 3))[:, None], torch.randn(200, 1)], 1)
    decoder = fit_decoder(codes, images, epochs=25)
    assert not decoder.training
    found = reconstruction(decoder, codes, images)
    assert found.squared_error < 0.02 < float(images.var())
    assert math.isnan(found.ms_ssim)
    noise = reconstruction(decoder, torch.randn(200, 2), images)
    assert noise.squared_error > 2 * found.squared_error
    with torch.no_grad():
        expected = float((decoder(codes) - images).square().mean())
    assert found.squared_error == pytest.approx(expected)
    assert Decoder(3, (3, 32, 32))(torch.randn(2, 3)).shape == (2, 3, 32, 32)


def by_hand(x, y, weights):
    """Multi-scale SSIM of two images from its definition, with reflected borders."""
    offsets = torch.arange(11.0).double() - 5
    one = (-(offsets**2) / (2 * 1.5**2)).exp()
    window = (one[:, None] * one / one.sum() ** 2)[None, None]

    def blurred(image):
        return nn.functional.conv2d(nn.functional.pad(image, (5,) * 4, mode="reflect"), window)

    total = 1.0
    for scale, weight in enumerate(weights):
        mean_x, mean_y = blurred(x), blurred(y)
        var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
        structure = 2 * (blurred(x * y) - mean_x * mean_y) + 0.03**2
        structure = structure / (var_x + var_y + 0.03**2)
        if scale < len(weights) - 1:
            inner = structure[..., 5:-5, 5:-5]
            total *= float(inner.mean()) ** weight
        else:
            light = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
            total *= float((light * structure).mean()) ** weight
        x, y = avg_pool2d(x, 2), avg_pool2d(y, 2)
    return total


def test_multi_scale_ssim():
    images = torch.rand(3, 1, 28, 28)
    assert multi_scale_ssim(images, images) == pytest.approx(1)
    other = (0.8 * images + 0.1 * torch.rand_like(images)).double()
    expected = [
        by_hand(a[None].double(), b[None], (0.0448 / 0.3304, 0.2856 / 0.3304))
        for a, b in zip(images, other, strict=True)
    ]
    found = multi_scale_ssim(images.double(), other)
    assert found == pytest.approx(sum(expected) / 3, abs=1e-4)
    large = torch.rand(1, 3, 176, 176)
    assert multi_scale_ssim(large, large) == pytest.approx(1)
    with pytest.raises(ValueError, match="`x` must be images of at least 11 pixels, got a tensor"):
        multi_scale_ssim(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="`y` must have the shape of `x`"):
        multi_scale_ssim(images, images[:2])


def test_dependency_is_the_total_correlation_of_normal_codes():
    mixing = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.5, 0.3, 0.7]]).double()
    covariance = mixing @ mixing.T
    truth = 0.5 * float(covariance.diagonal().log().sum() - covariance.logdet())
    assert truth == pytest.approx(0.78, abs=0.03)
    codes = (torch.randn(6000, 3).double() @ mixing.T).float()
    codes = codes * torch.tensor([1.0, 100.0, 1e-2]) + 5  # scale and place change nothing
    found = neural_dependency(codes[:4000], codes[4000:], steps=60)
    assert found.value == pytest.approx(truth, abs=0.08)
    assert 0.005 < found.std_error < 0.05
    assert found.n_samples == 2000
    free = torch.randn(3000, 3)
    none = neural_dependency(free[:2000], free[2000:], steps=20)
    assert abs(none.value) < 0.03
    same = free[:, :1].repeat(1, 3)
    most = neural_dependency(same[:2000], same[2000:], steps=40)
    assert 3 < most.value <= math.log(1 + SHUFFLES * 1000)
    with pytest.raises(ValueError, match="`codes` must be at least 50"):
        neural_dependency(free[:20], free)


def test_shuffles_keep_each_feature_and_break_the_rows():
    codes = torch.randn(500, 2).repeat(1, 2)  # the last two columns are the first two
    found = independent(codes, 3, torch.Generator().manual_seed(0))
    assert found.shape == (1500, 4)
    for part in found.split(500):
        assert torch.equal(part.sort(dim=0).values, codes.sort(dim=0).values)
    assert np.corrcoef(found.T.numpy())[0, 2] < 0.1
    assert not torch.equal(found[:500], found[500:1000])


def test_the_distance_is_that_of_scipy_in_the_mean():
    codes = torch.randn(300, 3) * torch.tensor([0.1, 1.0, 9.0])
    expected = [kstest(one.double().sigmoid().numpy(), "uniform").statistic for one in codes.T]
    assert distance_to_uniform(codes) == pytest.approx(sum(expected) / 3)


class Known:
    """An estimator that tells what it was given."""

    def estimate(self, x, y):
        self.shapes = tuple(x.shape), tuple(y.shape)
        return Estimate(1.25, 0.5, len(x))


class Refuses:
    def estimate(self, x, y):
        raise ValueError("the critic diverged")


@pytest.fixture
def quick(monkeypatch):
    """Judges by short trainings."""
    home = "captum_mi.infomax.report."
    monkeypatch.setattr(home + "fit_decoder", lambda c, x, seed: fit_decoder(c, x, epochs=1))
    monkeypatch.setattr(
        home + "neural_dependency", lambda a, b, seed: neural_dependency(a, b, steps=2)
    )


def test_judging_leaves_the_encoder_and_reads_the_test_images(quick):
    torch.manual_seed(3)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))
    state = {name: one.clone() for name, one in encoder.state_dict().items()}
    before = snapshot(encoder)
    train, test = read_images("digits")
    train, test = (Images(part.images[:120], part.labels[:120]) for part in (train, test))
    estimator = Known()
    row = judge("a", encoder, ["1", "3"], train, test, estimator=estimator, extra={"global": 1.0})
    assert all(torch.equal(state[name], one) for name, one in encoder.state_dict().items())
    assert snapshot(encoder) == before
    varies = torch.cat([train.images, test.images]).flatten(1).std(0) > 0
    assert estimator.shapes == ((240, int(varies.sum())), (240, 4))
    assert row.information == (1.25, 0.5)
    encoder.eval()
    with torch.no_grad():
        codes = [encoder(part.images) for part in (train, test)]
    assert row.accuracy["3"] == probe(codes[0], train.labels, codes[1], test.labels)
    assert row.distance == pytest.approx(distance_to_uniform(codes[1]))
    assert row.accuracy.keys() == {"1", "3"}
    assert Row.of_record(json.loads(json.dumps(row.record()))).accuracy == row.accuracy
    with pytest.warns(UserWarning, match="b: no information of image and code: the critic div"):
        refused = judge("b", encoder, ["3"], train, test, estimator=Refuses())
    assert refused.information is None


def test_the_table_lines_up():
    row = Row(
        "DIM(L) jsd",
        {"fc": dict.fromkeys(("linear", "svm", "network"), 0.5)}
        | {"code": {"linear": 0.876, "svm": 0.1, "network": 1.0}},
        (3.456, 0.1),
        0.01234,
        0.9876,
        (1.5, 0.1),
        0.25,
        {},
    )
    first, second, third = table([row]).splitlines()
    assert first.split() == ["fc", "code"]
    assert second.split()[-5:] == ["I(X;E)", "L2", "MS-SSIM", "NDM", "KS"]
    cells = third.split()[2:]
    assert cells[:6] == ["50.0", "50.0", "50.0", "87.6", "10.0", "100.0"]
    assert cells[6:] == ["3.46", "0.0123", "0.988", "1.50", "0.250"]
    assert second.index("KS") == third.index("0.250")


@pytest.fixture
def few(monkeypatch, quick):
    train, test = read_images("digits")
    few = Images(*(part[:96] for part in train)), Images(*(part[:60] for part in test))
    read = classifier.read_images
    monkeypatch.setattr(
        classifier, "read_images", lambda name, root: few if name == "digits" else read(name, root)
    )


OWN = """
from torch import nn
def small(): return nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.Flatten(), nn.Linear(36, 5))
"""


def test_the_command_trains_resumes_and_adds_rows(few, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_encoders.py").write_text(OWN)
    own = ["--model", "my_encoders:small", "--layer", "0", "--global-layer", "2"]
    given = ["infomax", *own, "--epochs", "1", "--method", "none", "--units", "8"]
    assert main([*given, "--dim", "0,1,0.1:jsd"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [re.split("  +", line)[0] for line in lines[2:5]] == [
        "random weights",
        "supervised",
        "DIM(L) jsd",
    ]
    out = tmp_path / "infomax"
    names = ["dim-l-jsd.safetensors", "records-0.jsonl", "settings.json", "supervised.safetensors"]
    assert sorted(path.name for path in out.iterdir()) == [*names, "table.json", "table.txt"]
    found = json.loads((out / "table.json").read_text())["rows"]
    assert found[2]["extra"].keys() == {"local", "told_apart"}
    network = torch.nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.Flatten(), nn.Linear(36, 5))
    loaded = package.DeepInfoMax.load(out / names[0], network)
    train, test = classifier.read_images("digits", None)
    codes = [loaded.transform(part.images) for part in (train, test)]
    assert found[2]["accuracy"]["2"] == probe(codes[0], train.labels, codes[1], test.labels)

    def forbidden(*_args, **_kwargs):
        raise AssertionError

    monkeypatch.setattr("captum_mi.infomax.train_supervised", forbidden)
    assert main([*given, "--dim", "1,0,1:infonce:concat"]) == 0
    again = json.loads((out / "table.json").read_text())["rows"]
    assert again[:3] == found
    assert again[3]["name"] == "DIM(G) infonce concat"
    assert main([*given, "--rate", "0.1"]) == 2
    assert "holds a run with learning_rate 0.001, not 0.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset", "mnist"], "`--dataset` needs `--data`"),
        (["--data", "nowhere"], "`--data` must be the folder that holds the images"),
        (["--layer", "conv1"], "`--model`, `--layer` and `--global-layer` need each other"),
        (["--dim", "1,2"], r"`--dim` must be ALPHA,BETA,GAMMA:BOUND\[:CRITIC\], got '1,2'"),
        (["--dim", "0,1,0:x"], "`--dim` must be one of 'dv', 'jsd', 'infonce', got 'x'"),
        (["--dim", "0,-1,0"], "`--dim` must be finite and not negative, got -1"),
        (["--method", "x"], "`--method` must be one of 'mine', 'smile', 'infonce', 'none', got"),
        (["--units", "0"], "`--units` must be at least 1"),
        (["--epochs", "0"], "`--epochs` must be at least 1"),
        (["--batch-size", "1"], "`--batch-size` must be at least 2"),
        (["--device", "abacus"], "`--device` 'abacus' cannot be used"),
        (["--out", "file"], "`--out` must be a folder, 'file' is a file"),
    ],
)
def test_bad_input_is_one_line_and_status_2(few, arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["infomax", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(words, line)
    assert not (tmp_path / "infomax").exists()
