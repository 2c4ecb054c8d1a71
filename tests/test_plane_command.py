"""``captum-mi plane`` and what it trains: the paper's network, its noise, runs that are resumed."""

import json
import math
import multiprocessing
import re
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import cross_entropy, nll_loss

from captum_mi.cli import main
from captum_mi.estimators import KSG, PCA
from captum_mi.infoplane import InformationPlane, Row, read_rows
from captum_mi.infoplane import classifier as experiment
from captum_mi.infoplane.classifier import Classifier, Images, Training, follow, read_images

QUICK = ["--input-code", "pca:4", "--record", "test", "--method", "ksg"]
LAYERS = ("L1", "L2", "L3", "L4", "L5")


@pytest.fixture
def few(monkeypatch):
    """Few digits to train on, and to record with."""
    train, test = read_images("digits")
    few = Images(*(part[:96] for part in train)), Images(*(part[:80] for part in test))
    read = experiment.read_images
    monkeypatch.setattr(
        experiment, "read_images", lambda name, root: few if name == "digits" else read(name, root)
    )
    return few


@pytest.fixture
def small(few, monkeypatch):
    """Few digits, and no pictures."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)
    return few


def plane(folder, *arguments, epochs=2):
    return main(["plane", "--out", str(folder), "--epochs", str(epochs), *QUICK, *arguments])


def images(count=64, size=8):
    generator = torch.Generator().manual_seed(1)
    return Images(torch.rand(count, 1, size, size, generator=generator), torch.arange(count) % 10)


def unsteady():
    """A model with random numbers of its own and with statistics of the batches."""
    torch.manual_seed(5)
    parts = [nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5)]
    return nn.Sequential(*parts, nn.Linear(16, 10))


@pytest.mark.parametrize(
    ("channels", "size", "features"), [(1, 28, 32), (1, 24, 32), (1, 8, 32), (3, 32, 128)]
)
def test_the_network_is_that_of_table_1(channels, size, features):
    network = Classifier(channels, size)
    assert tuple(dict(network.named_children())) == LAYERS
    shapes = [tuple(weight.shape) for weight in network.parameters() if weight.ndim > 1]
    assert shapes == [
        (8, channels, 3, 3),
        (16, 8, 3, 3),
        (32, 16, 3, 3),
        (32, features),
        (10, 32),
    ]
    slopes = [one.negative_slope for one in network.modules() if isinstance(one, nn.LeakyReLU)]
    assert slopes == [0.01] * 4
    found = network(torch.rand(3, channels, size, size))
    torch.testing.assert_close(found.exp().sum(1), torch.ones(3))
    with pytest.raises(ValueError, match="`size` must be at least 8 pixels, got 7"):
        Classifier(1, 7)


def test_digits_are_split_by_class():
    train, test = read_images("digits")
    assert train.images.min() == 0
    assert train.images.max() == 1
    share = torch.bincount(test.labels) / torch.bincount(train.labels)
    assert (share - 0.25).abs().max() < 0.01
    both = train.with_those_of(test)
    assert len(both.images) == len(both.labels) == 1797


def test_mnist_and_cifar_are_read_by_torchvision(tmp_path, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", 5), ("t10k", 3)):
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        head = struct.pack(">HBBIII", 0, 8, 3, count, 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        labels = np.arange(count, dtype=np.uint8)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">HBBI", 0, 8, 1, count) + labels.tobytes()
        )
    train, test = read_images("mnist", tmp_path)
    assert train.images.shape == (5, 1, 28, 28)
    assert test.labels.tolist() == [0, 1, 2]
    np.testing.assert_allclose(test.images[:, 0], pixels / 255, atol=1e-7)

    class Colored:
        data = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        targets = (3, 1, 2, 9)

        def __init__(self, root, *, train):
            self.root, self.train = root, train

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Colored)
    train, _ = read_images("cifar10", tmp_path)
    np.testing.assert_allclose(train.images[:, 2], Colored.data[..., 2] / 255, atol=1e-7)
    assert train.labels.tolist() == [3, 1, 2, 9]
    with pytest.raises(ValueError, match=r"`root` .* holds no MNIST; torchvision.datasets.MNIST\("):
        read_images("mnist", raw)


@pytest.mark.parametrize("model", [unsteady, lambda: Classifier(1, 8)])
def test_a_resumed_training_ends_as_an_uninterrupted_one(model, tmp_path):
    train = images()
    first = model()
    layers = tuple(name for name, _ in first.named_children())
    weights = {}
    training = Training(layers, epochs=4, batch_size=16, noise=0.1)
    start = {name: value.clone() for name, value in first.state_dict().items()}
    for epoch in training.run(first, train):
        weights[epoch] = {name: value.clone() for name, value in first.state_dict().items()}
    assert list(weights) == [0, 1, 2, 3, 4]

    def again():
        other = model()
        other.load_state_dict(start)
        return other

    state = tmp_path / "state.pt"
    second = again()
    stopped = training.run(second, train, state)
    assert [next(stopped) for _ in range(3)] == [0, 1, 2]
    third = again()
    torch.manual_seed(99)  # another process, which has drawn other numbers
    for epoch in training.run(third, train, state):
        for name, value in third.state_dict().items():
            assert torch.equal(value, weights[epoch][name])
    assert epoch == 4
    assert [next(training.run(again(), train, state))] == [4]
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    with pytest.raises(ValueError, match="`epochs` must be at least 4, which are done already"):
        next(Training(layers, epochs=3).run(again(), train, state))
    with pytest.raises(ValueError, match=r"state.pt' holds no state of this model; remove it"):
        next(training.run(nn.Linear(2, 2), train, state))


def test_the_noise_is_at_every_layers_input_and_each_epoch_has_its_own():
    model, x = Classifier(1, 8).eval(), images().images
    training = Training(LAYERS, noise=0.1)
    seen = {}
    for name in LAYERS:
        model.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: seen.setdefault(name, []).append(
                (args[0].detach(), output.detach())
            )
        )

    def passed(epoch, **which):
        seen.clear()
        with torch.no_grad(), training.noisy(model, epoch, **which):
            model(x)
        return {name: calls[0] for name, calls in seen.items()}

    noisy = passed(1)
    before = x
    for name in LAYERS:
        given, output = noisy[name]
        kept = before != 0
        ratio = (given[kept] / before[kept] - 1).double()
        assert float(ratio.std()) == pytest.approx(0.1, rel=0.1)
        before = output
    firsts = [noisy["L1"][0], passed(1, recorded=True)["L1"][0], passed(2)["L1"][0]]
    assert torch.equal(firsts[0], passed(1)["L1"][0])
    for i in range(3):
        assert not torch.equal(firsts[i], firsts[i - 1])


def test_every_epoch_sees_each_image_once_in_an_order_of_its_own():
    train, seen = images(), []
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, 0, 0, 0]))
    list(Training(("1",), epochs=2, batch_size=20).run(model, train))
    assert [len(batch) for batch in seen] == [20, 20, 20, 4] * 2
    first, second = torch.cat(seen[:4]), torch.cat(seen[4:])
    for order in (first, second):
        assert torch.equal(order.sort().values, train.images[:, 0, 0, 0].sort().values)
    assert not torch.equal(first, second)


def test_training_lowers_the_loss_and_leaves_the_random_numbers_alone():
    train, model = images(), unsteady()
    before = torch.get_rng_state()
    with torch.no_grad():
        expected = float(cross_entropy(model.eval()(train.images), train.labels))
    training = Training(("1", "4"), epochs=3, learning_rate=0.02, batch_size=8)
    recorder = InformationPlane(model, ["1"], KSG(), input_code=PCA(4))
    told = []
    follow(
        recorder, training.run(model, train), training, train, train, every=3, report=told.append
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert [row.epoch for row in recorder.rows] == [0, 3]
    assert recorder.rows[0].loss == pytest.approx(expected, abs=0.01)
    assert recorder.rows[1].loss < recorder.rows[0].loss - 0.5
    assert len(told) == 1
    assert re.fullmatch(r"a record of 64 samples and 1 layers takes \d+\.\d s", told[0])


def test_the_command_writes_rows_pictures_and_a_summary(few, tmp_path, capsys):
    folder = tmp_path / "new" / "run"
    assert plane(folder, epochs=2) == 0
    out, err = capsys.readouterr()
    assert re.search("^captum-mi plane: a record of 80 samples and 5 layers takes", err)
    rows = read_rows(folder / "plane.csv", LAYERS)
    assert [row.epoch for row in rows] == [0] * 5 + [1] * 5 + [2] * 5
    assert {row.samples for row in rows} == {80}
    written = json.loads((folder / "plane.json").read_text())
    assert written["settings"]["estimator"] == repr(KSG())
    assert written["settings"]["learning_rate"] == 1e-3
    assert written["log_classes"] == pytest.approx(math.log(10))
    assert 0 < written["seconds_per_record"] < 60
    assert 0 < written["accuracy"] <= 1
    assert list(written["layers"]) == list(LAYERS)
    last = written["layers"]["L5"]["last"]
    assert last["of_target"] == rows[-1].of_target
    assert written["layers"]["L5"]["first"]["epoch"] == 0
    assert f"L5: I(X;L) {rows[4].of_input:.2f} to {rows[-1].of_input:.2f}" in out
    assert "log 10 = 2.303 nats is the most that I(L;Y) can be" in out
    for name in ("plane.png", "epochs.png"):
        pixels = imread(folder / name)[..., :3]
        assert pixels.std() > 0.05
    kept = torch.load(folder / "state.pt", weights_only=True)
    assert kept["epoch"] == 2


def test_the_summary_says_what_a_code_keeps_and_hides():
    row = Row(0, 0.5, "a", 1.0, 0.1, 0.5, 0.1, 0.9, 9)
    begin = "a: I(X;L) 1.00 to 1.00 ± 0.20, I(L;Y) 0.50 to 0.50 ± 0.20 nats"
    for changed, end in (
        ({}, "; code keeps 90 % of variance"),
        ({"hidden": 0.25}, "; code keeps 90 % of variance, hides at most 0.25 nats"),
        ({"kept": math.nan}, ""),
    ):
        first, second = experiment.describe([row._replace(**changed)])
        assert first == begin + end
        assert second == "   no phase: I(X;L) moves less than its 95 % interval"
    numbers = experiment.summarize([row._replace(of_input=math.nan)])["a"]
    assert numbers["first"] == numbers["last"]
    assert numbers["last"]["of_input"] is None
    assert numbers["last"]["of_target"] == 0.5


def test_a_run_that_is_killed_goes_on_to_the_same_rows(small, tmp_path, capsys):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert plane(whole, epochs=6) == 0
    process = multiprocessing.get_context("fork").Process(
        target=plane, args=(killed,), kwargs={"epochs": 6}
    )
    process.start()
    table = killed / "plane.csv"
    while process.is_alive() and not (table.exists() and table.read_text().count("\n") > 5):
        time.sleep(0.01)
    process.kill()
    process.join()
    done = len(read_rows(table))
    assert 5 <= done < 35
    with table.open("a") as file:
        file.write("3,0.5,L1,1.2")  # what a kill leaves of a line
    capsys.readouterr()
    assert plane(killed, epochs=6) == 0
    assert table.read_text() == (whole / "plane.csv").read_text()
    pairs = zip(
        *(torch.load(f / "state.pt")["model"].values() for f in (whole, killed)), strict=True
    )
    assert all(torch.equal(one, other) for one, other in pairs)
    capsys.readouterr()
    assert plane(killed, epochs=6) == 0  # nothing is left to do
    assert "takes" not in capsys.readouterr().err


def test_a_finished_run_is_prolonged_to_the_same_rows(small, tmp_path):
    whole, short = tmp_path / "whole", tmp_path / "short"
    assert plane(whole, "--every", "2", epochs=4) == 0
    assert plane(short, "--every", "2", epochs=3) == 0
    assert {row.epoch for row in read_rows(short / "plane.csv")} == {0, 2}
    assert plane(short, "--every", "2", epochs=4) == 0
    assert (short / "plane.csv").read_text() == (whole / "plane.csv").read_text()


def test_an_interruption_while_it_records_loses_no_training(small, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert plane(whole, epochs=3) == 0
    record = InformationPlane.record

    def interrupted(self, *arguments, epoch, **others):
        if epoch == 2:
            raise KeyboardInterrupt
        return record(self, *arguments, epoch=epoch, **others)

    with monkeypatch.context() as patch:
        patch.setattr(InformationPlane, "record", interrupted)
        assert plane(stopped, epochs=3) == 130
    assert torch.load(stopped / "state.pt")["epoch"] == 2
    assert plane(stopped, epochs=3) == 0
    assert (stopped / "plane.csv").read_text() == (whole / "plane.csv").read_text()


def test_saved_weights_give_the_plane_of_their_training(small, tmp_path, capsys):
    assert plane(tmp_path / "trained", epochs=2) == 0
    torch.manual_seed(0)
    model = Classifier(1, 8)
    training = Training(LAYERS, epochs=2, batch_size=32)
    for epoch in training.run(model, small[0]):
        save_file(model.state_dict(), tmp_path / f"run7_epoch-{epoch}.safetensors")
    pattern = str(tmp_path / "run7_*.safetensors")
    assert plane(tmp_path / "loaded", "--checkpoints", pattern) == 0
    found = [(tmp_path / name / "plane.csv").read_text() for name in ("trained", "loaded")]
    assert found[0] == found[1]
    assert not (tmp_path / "loaded" / "state.pt").exists()
    assert "checkpoints" in json.loads((tmp_path / "loaded" / "plane.json").read_text())["settings"]
    save_file({"x": torch.zeros(1)}, tmp_path / "run7_epoch-3.safetensors")
    assert plane(tmp_path / "loaded", "--checkpoints", pattern) == 2
    words = r"`--checkpoints` names .*epoch-3.safetensors', which holds no weights of this model"
    assert re.search(words, capsys.readouterr().err)


def test_checkpoints_come_in_the_order_of_their_epochs(tmp_path):
    for name in ("v2-epoch10", "v2-epoch9", "v2-epoch100"):
        (tmp_path / f"{name}.safetensors").touch()
    found = experiment.find_checkpoints(f"{tmp_path}/*.safetensors")
    assert list(found) == [9, 10, 100]
    assert found[9].name == "v2-epoch9.safetensors"
    (tmp_path / "v1-epoch9.safetensors").touch()
    with pytest.raises(ValueError, match="`checkpoints` must be of one training, got epoch 9 twic"):
        experiment.find_checkpoints(f"{tmp_path}/*.safetensors")
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(ValueError, match=r"their epoch in their names, got a.safetensors"):
        experiment.find_checkpoints(f"{tmp_path}/a*.safetensors")


def test_the_accuracy_is_that_of_evaluation_and_leaves_every_mode():
    model, train = unsteady(), images()
    with torch.no_grad():
        model.eval()
        right = (model(train.images).argmax(1) == train.labels).float().mean()
        model.train()
        model[2].eval()  # frozen
    before = model[2].running_mean.clone()
    for _ in range(2):
        assert experiment.accuracy(model, train) == pytest.approx(float(right))
    assert [part.training for part in model] == [True, True, False, True, True]
    assert torch.equal(model[2].running_mean, before)


OWN = """
from torch import nn
def small(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10))
def narrow(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
def other(): return nn.Linear(5, 10)
def text(): return "a model"
"""


def test_a_network_of_ones_own(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("networks_of_mine.py").write_text(OWN)
    own = ["--model", "networks_of_mine:small", "--layers", "2", "3"]
    assert plane("out", *own, epochs=1) == 0
    rows = read_rows("out/plane.csv")
    assert [(row.epoch, row.layer) for row in rows] == [(0, "2"), (0, "3"), (1, "2"), (1, "3")]
    assert "small" in Path("out/settings.json").read_text()
    for name, words in (
        ("narrow", r"must return the scores of ten classes, \(B, 10\), got torch.Size\(\[2, 3\]\)"),
        ("other", r"`--model` fails on images of shape \(2, 1, 8, 8\): mat1 and mat2"),
        ("text", "`--model` must return a torch module, got str"),
        ("none", "`--model` names 'networks_of_mine:none', but networks_of_mine has no function"),
        ("", "`--model` must be MODULE:FUNCTION, got 'networks_of_mine:'"),
    ):
        assert plane("new", "--model", f"networks_of_mine:{name}", "--layers", "0") == 2
        assert re.search(words, capsys.readouterr().err)
    assert plane("new", "--model", "no_such_module:f", "--layers", "0") == 2
    assert "No module named 'no_such_module'" in capsys.readouterr().err
    assert plane("new", "--model", "networks_of_mine:small", "--layers", "9") == 2
    assert "`--layers` names '9', which Sequential has not" in capsys.readouterr().err
    assert not Path("new").exists()


def test_the_autoencoder_is_trained_once_and_kept(small, tmp_path, monkeypatch):
    from captum_mi.estimators import Autoencoder

    fitted = []
    fit = Autoencoder.fit

    def short(self, x):
        fitted.append(tuple(x.shape))
        self.steps = 3
        return fit(self, x)

    monkeypatch.setattr(Autoencoder, "fit", short)
    arguments = ["plane", "--out", str(tmp_path), "--record", "test", "--method", "ksg"]
    assert main([*arguments, "--epochs", "1"]) == 0
    assert main([*arguments, "--epochs", "2"]) == 0
    assert fitted == [(96, 1, 8, 8)]
    assert Autoencoder.load(tmp_path / "code.safetensors").n == 4
    names = ["code.safetensors", "plane.csv", "plane.json", "settings.json", "state.pt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset", "mnist"], "`--dataset` needs `--data`"),
        (["--data", "nowhere"], "`--data` must be the folder that holds the images, got nowhere"),
        (["--data", "."], "`--data` '.' holds no MNIST"),
        (["--layers", "L1"], "`--model` and `--layers` need each other"),
        (["--method", "magic"], "`--method` must be one of 'auto', .*, got 'magic'"),
        (["--method", "kde", "--k", "3"], "`--k` is for methods of neighbors, not for kde"),
        (["--k", "0"], "`--k` must be at least 1, got 0"),
        (["--every", "0"], "`--every` must be at least 1, got 0"),
        (["--device", "abacus"], "`--device` 'abacus' cannot be used: "),
        (["--batch-size", "0"], "`--batch-size` must be at least 1, got 0"),
        (["--epochs", "0"], "`--epochs` must be at least 1, got 0"),
        (["--rate", "-1"], "`--rate` must be positive, got -1"),
        (["--noise", "-1"], "`--noise` must be finite and not negative, got -1"),
        (["--input-code", "zip:4"], "`--input-code` must be pca:N or autoencoder:N, got 'zip:4'"),
        (["--layer-code", "pca"], "`--layer-code` must be pca:N or autoencoder:N, got 'pca'"),
        (["--checkpoints", "no/*.safetensors"], "`--checkpoints` matches no file, got 'no/"),
        (["--out", "file"], "`--out` must be a folder, 'file' is a file"),
        (["--out", "file/a"], "`--out` cannot be written"),
        (["--out", "lost"], "'lost' has lost its plane.csv; remove the folder"),
        (["--out", "other", "--seed", "3"], "folder 'other' holds a run with "),
        (["--smooth", "2"], "`--smooth` must be more than 2 records"),
        (["--rate", "1e9"], "training diverged at `--rate` 1e.09"),
    ],
)
def test_bad_input_is_one_line_and_status_2(small, arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("lost").mkdir()
    Path("lost/state.pt").touch()
    Path("other").mkdir()
    Path("other/settings.json").write_text('{"seed": 0}')
    given = ["plane", "--epochs", "1", *QUICK, *arguments]
    assert main(given) == 2
    err = capsys.readouterr().err
    lines = [
        line for line in err.splitlines() if line.startswith("captum-mi") and "takes" not in line
    ]
    assert len(lines) == 1, err
    assert re.search(words, lines[0])


def test_log_likelihoods_and_scores_have_the_same_loss():
    """The paper's network ends in a log-softmax, others need not."""
    scores = torch.randn(5, 10)
    labels = torch.arange(5)
    found = cross_entropy(scores.log_softmax(1), labels)
    torch.testing.assert_close(found, nll_loss(scores.log_softmax(1), labels))
