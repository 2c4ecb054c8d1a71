"""Prototypical networks: equations, gradients, training, files and the command."""

import struct
import sys

import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from captum_mi._training import minimize
from captum_mi.datasets import Episodes
from captum_mi.models import Conv4, PrototypicalNetwork
from captum_mi.models.prototypical import accuracy, data, fit, training
from captum_mi.models.prototypical.__main__ import main

LABELS = torch.tensor([2, 0, 1, 0, 2, 0])


@pytest.fixture
def support():
    return torch.rand(6, 3, 16, 16)


@pytest.fixture
def backbone(support):
    """A Conv4 whose running moments are not those it begins with."""
    conv4 = Conv4(width=5)
    conv4(support)
    return conv4.eval()


def test_scores_are_minus_the_squared_distances_to_the_class_means(backbone, support):
    images = torch.rand(4, 3, 16, 16)
    scores = PrototypicalNetwork(backbone, support, LABELS)(images)
    assert scores.shape == (4, 3)
    for image, row in zip(images, scores, strict=True):
        for way, score in enumerate(row):
            mine = [backbone(support[i : i + 1])[0] for i in range(6) if LABELS[i] == way]
            center = sum(mine) / len(mine)
            distance = sum(gap**2 for gap in backbone(image[None])[0] - center)
            torch.testing.assert_close(score, -distance)


def test_prototypes_are_a_buffer_and_the_support_alone_scores_zero(backbone, support):
    network = PrototypicalNetwork(backbone, support[:3], torch.tensor([0, 1, 2]))
    assert "prototypes" in dict(network.named_buffers())
    assert not network.prototypes.requires_grad
    torch.testing.assert_close(network(support[:3]).diagonal(), torch.zeros(3))
    assert network(support[:3]).argmax(1).tolist() == [0, 1, 2]


def test_embedding_the_support_changes_no_running_moment(backbone, support):
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    network = PrototypicalNetwork(backbone, support, LABELS)
    network(support)
    assert not network.training
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_gradients_reach_the_images_and_are_exact(backbone, support):
    network = PrototypicalNetwork(backbone, support, LABELS).double()
    images = torch.rand(2, 3, 16, 16, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(images)[:, 1].sum(), images)
    step = 1e-6 * torch.randn_like(images)
    change = (network(images + step) - network(images - step))[:, 1].sum() / 2
    torch.testing.assert_close((gradient * step).sum(), change, rtol=1e-4, atol=0)
    at_a_prototype = support[2:3].double().requires_grad_()  # the only one of way 1
    (flat,) = torch.autograd.grad(network(at_a_prototype)[0, 1], at_a_prototype)
    assert flat.abs().max() < 1e-6


def test_captum_explains_a_way(backbone, support):
    network = PrototypicalNetwork(backbone, support, LABELS)
    image = torch.rand(1, 3, 16, 16)
    attribution, gap = IntegratedGradients(network).attribute(
        image, target=2, n_steps=200, return_convergence_delta=True
    )
    assert attribution.shape == image.shape
    assert abs(gap.item()) < 0.02 * abs(attribution.sum().item())
    heat = LayerGradCam(network, backbone.blocks[0]).attribute(image, target=2)
    assert heat.shape == (1, 1, 8, 8)


def test_conv4_has_its_local_and_its_global_layer():
    conv4 = Conv4(channels=1, width=6).eval()
    seen = {}
    for name in ("blocks.0", "blocks.3", "avgpool"):
        conv4.get_submodule(name).register_forward_hook(
            lambda _module, _args, output, name=name: seen.update({name: output})
        )
    embedding = conv4(torch.rand(2, 1, 64, 48))
    assert seen["blocks.0"].shape == (2, 6, 32, 24)
    assert seen["blocks.3"].shape == (2, 6, 4, 3)
    assert seen["avgpool"].shape == (2, 6, 1, 1)
    torch.testing.assert_close(embedding, seen["blocks.3"].mean((2, 3)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2], r"`support_labels` must be one for each of 6 images, got .*\(3,\)"),
        ([0, 0, 2, 2, 3, 3], r"`support_labels` must be all of 0 .. N - 1, got \[0, 2, 3\]"),
        ([1, 1, 2, 2, 3, 3], r"must be all of 0 .. N - 1, got \[1, 2, 3\]"),
    ],
)
def test_wrong_labels_are_refused(backbone, support, labels, message):
    with pytest.raises(ValueError, match=message):
        PrototypicalNetwork(backbone, support, torch.tensor(labels))


def test_wrong_backbones_are_refused(backbone, support):
    with pytest.raises(ValueError, match=r"must return \(B, D\), got a tensor of shape \(6, 5, 8"):
        PrototypicalNetwork(backbone.blocks[0], support, LABELS)
    with pytest.raises(RuntimeError, match=r"evaluation mode; call backbone.eval\(\) first"):
        PrototypicalNetwork(backbone.train(), support, LABELS)


def test_other_images_are_refused(backbone):
    for shape in ((2, 1, 16, 16), (3, 16, 16)):
        with pytest.raises(ValueError, match=r"`images` must be \(B, 3, H, W\), got a tensor of"):
            backbone(torch.rand(shape))


def test_saved_and_loaded(backbone, support, tmp_path):
    backbone.save(tmp_path / "conv4.safetensors")
    torch.manual_seed(1)
    state = torch.get_rng_state()
    loaded = Conv4.load(tmp_path / "conv4.safetensors")
    assert torch.equal(torch.get_rng_state(), state)
    assert (loaded.channels, loaded.width, loaded.training) == (3, 5, False)
    assert torch.equal(loaded(support), backbone(support))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no network '.*none.safetensors'"):
        Conv4.load(tmp_path / "none.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "tensor")
    with pytest.raises(ValueError, match=r"'.*tensor' holds no Conv4"):
        Conv4.load(tmp_path / "tensor")
    (tmp_path / "text").write_text("text")
    with pytest.raises(ValueError, match=r"'.*text' holds no Conv4"):
        Conv4.load(tmp_path / "text")


class Shades(list):
    """Images of 6 classes, told by one pixel in the midst of stronger noise."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        super().__init__()
        for i in range(120):
            image = torch.randn(1, 4, 4, generator=generator)
            image[0, 1, 1] = i % 6
            self.append((image, i % 6))


def test_training_teaches_and_validation_keeps_the_best():
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    validation = Episodes(Shades(), length=40, queries=4, seed=1)
    before = accuracy(backbone.eval(), validation).mean
    episodes = Episodes(Shades(), length=120, queries=4)
    history = fit(backbone, episodes, validation, learning_rate=0.05, interval=30)
    after = accuracy(backbone, validation).mean
    assert [progress.step for progress in history] == [30, 60, 90, 120]
    assert history[-1].loss < history[0].loss - 0.3
    assert after == pytest.approx(1 - min(progress.error for progress in history))
    assert after > before + 0.3
    assert after > 0.8


def test_the_learning_rate_falls_to_zero_along_half_a_cosine(monkeypatch):
    rates = []

    def watched(loss, module, optimizer, steps, **options):
        def step_loss(step):
            rates.append(optimizer.param_groups[0]["lr"])
            return loss(step)

        return minimize(step_loss, module, optimizer, steps, **options)

    monkeypatch.setattr(training, "minimize", watched)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    episodes = Episodes(Shades(), length=5)
    fit(backbone, episodes, episodes, learning_rate=0.2)
    expected = 0.1 * (1 + torch.cos(torch.pi * torch.arange(5) / 5))
    torch.testing.assert_close(torch.tensor(rates), expected)


def test_the_loss_of_a_step_is_the_log_likelihood_of_its_queries():
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    episodes = Episodes(Shades(), ways=3, shots=2, queries=4, length=1)
    episode = episodes[0]
    network = PrototypicalNetwork(backbone, episode.support, episode.support_labels)
    likelihoods = network(episode.query).log_softmax(1)
    expected = -likelihoods[torch.arange(12), episode.query_labels].mean().item()
    assert fit(backbone, episodes, Episodes(Shades(), length=2))[0].loss == pytest.approx(expected)


def test_accuracy_is_a_mean_over_episodes_with_its_error():
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    episodes = Episodes(Shades(), length=7, queries=4)
    shares = []
    for episode in episodes:
        network = PrototypicalNetwork(backbone, episode.support, episode.support_labels)
        right = network(episode.query).argmax(1) == episode.query_labels
        shares.append(right.double().mean())
    mean, error = accuracy(backbone, episodes)
    assert mean == pytest.approx(sum(shares).item() / 7)
    assert error == pytest.approx(torch.stack(shares).var().div(7).sqrt().item())
    with pytest.raises(ValueError, match="`episodes` must be at least 2 for a standard error, got"):
        accuracy(backbone, Episodes(Shades(), length=1))


@pytest.fixture
def command(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["prototypical", *map(str, arguments)])
        main()

    return run


@pytest.fixture
def folder(tmp_path):
    """Twelve classes of twelve plain images."""
    for number in range(12):
        (tmp_path / "images" / f"class{number:02}").mkdir(parents=True)
        for i in range(12):
            color = (20 * number, 255 - 20 * number, 20 * i)
            Image.new("RGB", (20, 30), color).save(
                tmp_path / "images" / f"class{number:02}" / f"{i}.png"
            )
    return tmp_path / "images"


def test_command_trains_and_tells_the_accuracy(command, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data, "SIZE", 16)
    monkeypatch.setattr(data, "VALIDATION", 0.5)
    monkeypatch.setattr(data, "VALIDATION_EPISODES", 2)
    monkeypatch.setattr(data, "QUERIES", 1)
    file, images = tmp_path / "new" / "conv4.safetensors", ("--data", "folder", "--root", folder)
    asked = []

    def noted(*arguments, **options):
        asked.append(options)
        return training_episodes(*arguments, **options)

    training_episodes = data.training_episodes
    monkeypatch.setattr(data, "training_episodes", noted)
    command("train", "--out", file, *images, "--ways", 3, "--steps", 2, "--seed", 1)
    assert asked == [{"ways": 3, "shots": 1, "length": 2, "seed": 1}]
    assert torch.initial_seed() == 1
    assert f"wrote {file}; accuracy on other images" in capsys.readouterr().out
    command("accuracy", file, *images, "--ways", 3, "--shots", 2, "--episodes", 4)
    told = capsys.readouterr().out
    assert "held-out classes, 3-way 2-shot: " in told
    assert ", 4 episodes)" in told
    first = Conv4.load(file).state_dict()
    command("train", "--out", file, *images, "--ways", 3, "--steps", 2, "--seed", 1)
    again = Conv4.load(file).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    with pytest.raises(SystemExit):
        command("train", "--out", tmp_path / "new", *images, "--ways", 3)
    assert "Is a directory" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command("train", "--out", file, *images, "--steps", 0)
    assert "`--steps` must be at least 1, got 0" in capsys.readouterr().err
    for option, message in (
        (("--episodes", 0), "`--episodes` must be at least 1, got 0"),
        (("--ways", 4), "`ways` must be at most 3, the number of classes"),
        (("--ways", 3, "--shots", 12), "need 13 images of each class, but class 0 has 12"),
    ):
        with pytest.raises(SystemExit):
            command("accuracy", file, *images, *option)
        assert message in capsys.readouterr().err


def test_command_refuses_what_is_not_there(command, tmp_path, capsys):
    for root, message in (
        ((), "`root` must be the folder that holds the images, got None"),
        (("--root", tmp_path), "holds no MNIST; torchvision.datasets.MNIST(root, download=True)"),
    ):
        with pytest.raises(SystemExit):
            command("train", "--out", tmp_path / "x.safetensors", "--data", "mnist", *root)
        assert message in capsys.readouterr().err


@pytest.fixture
def digits(tmp_path):
    """120 images in MNIST's files; the first pixel of a digit is its number plus one."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    labels = bytes(i % 10 for i in range(120))
    images = b"".join(bytes([label + 1]) + bytes(28 * 28 - 1) for label in labels)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 2051, 120, 28, 28) + images
        )
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, 120) + labels)
    return tmp_path


def test_digits_to_train_on_are_turned_and_those_held_out_stand(digits, monkeypatch):
    monkeypatch.setattr(data, "QUERIES", 1)
    monkeypatch.setattr(data, "DISTORTION", nn.Identity())
    options = {"ways": 5, "shots": 1, "length": 20}
    train, validation = data.training_episodes("mnist", digits, **options, seed=0)
    test = data.held_out_episodes("mnist", digits, **options)
    corners = {0: (0, 0), 1: (27, 0), 3: (0, 27)}  # where quarter turns take the first pixel
    known = {10 * turn + digit for turn in corners for digit in range(0, 10, 2)}
    for episodes, classes in ((train, known), (validation, known), (test, {1, 3, 5, 7, 9})):
        seen = set()
        for i in range(20):
            episode = episodes[i]
            for image, label in zip(episode.support, episode.classes, strict=True):
                row, column = corners[label // 10]
                assert image[0, row, column].item() * 255 == pytest.approx(label % 10 + 1)
                seen.add(label)
        assert seen == classes


def test_digits_to_train_on_are_distorted_anew_and_those_held_out_are_not(digits, monkeypatch):
    monkeypatch.setattr(data, "QUERIES", 1)
    options = {"ways": 5, "shots": 1, "length": 1}
    train, _ = data.training_episodes("mnist", digits, **options, seed=0)
    test = data.held_out_episodes("mnist", digits, **options)
    assert not torch.equal(train[0].support, train[0].support)
    assert torch.equal(test[0].support, test[0].support)


def test_the_seed_draws_the_episodes_and_the_images_to_validate_with(digits, monkeypatch):
    monkeypatch.setattr(data, "QUERIES", 1)
    options = {"ways": 2, "shots": 1, "length": 20}
    drawn, validated_with = [], []
    for seed in (0, 0, 1):
        train, validation = data.training_episodes("mnist", digits, **options, seed=seed)
        assert not set(train.dataset.indices) & set(validation.dataset.indices)
        drawn.append([train[i].classes for i in range(20)])
        validated_with.append(set(validation.dataset.indices))
    for first, again, other in (drawn, validated_with):
        assert first == again != other


def test_held_out_scenes_are_not_trained_on(monkeypatch):
    monkeypatch.setattr(data, "SCENES", (900, 1))
    monkeypatch.setattr(data, "VALIDATION", 0.5)
    monkeypatch.setattr(data, "QUERIES", 1)
    options = {"ways": 5, "shots": 1, "length": 30}
    train, validation = data.training_episodes("scenes", None, **options, seed=0)
    test = data.held_out_episodes("scenes", None, **options)
    known, other, new = (
        {label for i in range(30) for label in episodes[i].classes}
        for episodes in (train, validation, test)
    )
    assert new == set(range(0, 64, 5))
    assert known | other == set(range(64)) - new
