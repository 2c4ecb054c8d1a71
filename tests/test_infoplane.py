"""The recorder: closed forms, limits, training left alone, and whatever a model may return."""

import itertools
import math
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from captum_mi.estimators import KSG, PCA, Autoencoder
from captum_mi.infoplane import InformationPlane, phases, read_rows, stochastic
from captum_mi.infoplane.recorder import FOUR_COMPONENTS

SIGMA = 0.3
LEVEL = 4.5  # standard errors, which leave out that neighbors' terms depend: they are 1.4 too small


def normals(n_samples, seed=0):
    """X (N, 3), correlated, and Y = bX + noise; covariance of X, b, variance of Y."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(n_samples, 4, generator=generator, dtype=torch.float64)
    mixing = torch.tensor([[1, 0, 0], [0.6, 0.8, 0], [0, 0.3, 0.5]], dtype=torch.float64)
    b = torch.tensor([[1.0, -1.0, 0.5]], dtype=torch.float64)
    x = draws[:, :3] @ mixing.T
    covariance = mixing @ mixing.T
    return x, x @ b.T + 0.5 * draws[:, 3:], covariance, b, float(b @ covariance @ b.T) + 0.25


def truths(net, covariance, b, variance):
    """I(X; L) and I(L; Y) of both layers, L1 = A X + Z1 and L2 = B L1 + Z2."""
    first, second = (layer.weight.detach() for layer in net)
    own = [SIGMA**2 * torch.eye(len(weight), dtype=torch.float64) for weight in (first, second)]
    for map_, noise in ((first, own[0]), (second @ first, own[1] + second @ own[0] @ second.T)):
        whole = map_ @ covariance @ map_.T + noise
        shared = map_ @ covariance @ b.T
        explained = float(shared.T @ torch.linalg.solve(whole, shared)) / variance
        of_input = float(torch.logdet(whole) - torch.logdet(noise)) / 2
        yield of_input, -math.log1p(-explained) / 2


def linear(*widths):
    return nn.Sequential(
        *(nn.Linear(*pair, bias=False, dtype=torch.float64) for pair in itertools.pairwise(widths))
    )


def noisy(net, sigma=SIGMA, layers=("0", "1")):
    return stochastic(net, layers, sigma, relative=False, at="output", seed=3)


def test_a_linear_gaussian_network_is_tracked_at_every_epoch():
    x, y, *known = normals(4000)
    net = linear(3, 2, 2)
    plane = InformationPlane(net, ["0", "1"])
    generator = torch.Generator().manual_seed(1)
    with noisy(net):
        for epoch in range(5):
            for layer in net:
                drawn = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
                layer.weight.data.copy_(drawn * (0.3 + 0.4 * epoch))
            rows = plane.record(x, y, epoch=epoch)
            for row, (of_input, of_target) in zip(rows, truths(net, *known), strict=True):
                assert abs(row.of_input - of_input) < LEVEL * row.of_input_error
                assert abs(row.of_target - of_target) < LEVEL * row.of_target_error
                assert row.of_input_error < 0.06
                assert row.of_target_error < 0.06
                assert (row.kept, row.hidden, row.samples) == (1.0, 0.0, 4000)
            processed_in_order(rows)
    assert len(plane.frame()) == 10
    assert plane.seconds > 0


def processed_in_order(rows):
    for first, second in itertools.pairwise(rows):
        for name in ("of_input", "of_target"):
            error = math.hypot(getattr(first, f"{name}_error"), getattr(second, f"{name}_error"))
            assert getattr(second, name) < getattr(first, name) + LEVEL * error


def test_what_a_code_hides_stays_below_its_limit():
    x, y, covariance, b, variance = normals(4000)
    net = linear(3, 12, 2)
    generator = torch.Generator().manual_seed(1)
    weight = 0.3 * torch.randn(12, 3, generator=generator, dtype=torch.float64)
    net[0].weight.data.copy_(weight)
    plane = InformationPlane(net, ["0"], layer_compressor=PCA(2))
    with noisy(net):
        (row,) = plane.record(x, y, epoch=0)
    (of_input, of_target), _ = truths(net, covariance, b, variance)
    whole = weight @ covariance @ weight.T + SIGMA**2 * torch.eye(12)
    rest = torch.linalg.eigvalsh(whole)[:10]
    assert row.kept == pytest.approx(float(1 - rest.sum() / whole.trace()), abs=0.01)
    limit = 5 * math.log(float(rest.mean()) / SIGMA**2)
    assert row.hidden == pytest.approx(limit, abs=0.15)
    assert row.hidden < 5 * math.log(float(rest.max()) / SIGMA**2)
    lost = of_input - row.of_input
    assert LEVEL * row.of_input_error < lost < row.hidden + LEVEL * row.of_input_error
    assert of_target - row.of_target < row.hidden + LEVEL * row.of_target_error


@pytest.mark.filterwarnings("ignore:the information of layer")
@pytest.mark.parametrize(
    "noise",
    [{}, {"relative": True, "at": "output"}, {"relative": False, "at": "input"}],
)
def test_other_noise_sets_no_limit(noise):
    x, y, *_ = normals(300)
    net = linear(3, 12, 2)
    with stochastic(net, ["0"], 0.1 if noise else 0.0, **noise):
        wide, narrow = InformationPlane(net, ["0", "1"]).record(x, y, epoch=0)
    assert math.isnan(wide.hidden)
    assert narrow.hidden == 0


def blobs(n_samples=1200, n_classes=4):
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(n_samples) % n_classes
    centers = 4 * torch.randn(n_classes, 10, generator=generator)
    return centers[labels] + torch.randn(n_samples, 10, generator=generator), labels


def test_a_classifier_that_trains():
    """I(L; Y) rises to H(Y) and not beyond, and no layer knows more than the one before."""
    x, labels = blobs()
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 4))
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    plane = InformationPlane(net, ["0", "1", "2"])
    with noisy(net, 0.2, ["0", "1"]), noisy(net, 1.0, ["2"]):
        for epoch in range(3):
            rows = plane.record(x, labels, epoch=epoch, loss=1.5)
            processed_in_order([row._replace(of_input=0.0) for row in rows])
            for row in rows:
                assert row.of_target < math.log(4) + LEVEL * row.of_target_error
            for batch in torch.randperm(1200).split(20):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[batch]), labels[batch]).backward()
                optimizer.step()
    assert rows[-1].of_target > 0.9 * math.log(4)
    assert plane.rows[2].of_target < rows[-1].of_target - 0.2
    assert {row.loss for row in plane.rows} == {1.5}


@pytest.mark.parametrize(
    ("sigmas", "kinds"),
    [
        ([0.05, 0.2, 0.8, 2.0], ["compression"]),
        ([2.0, 0.8, 0.2, 0.05], ["fitting"]),
        ([0.8, 0.05, 0.8], ["fitting", "compression"]),
        ([0.3] * 6, []),
    ],
)
def test_phases_of_a_layer_whose_noise_changes(sigmas, kinds):
    x, y, *_ = normals(1500)
    net = linear(3, 2)
    plane = InformationPlane(net, ["0"])
    for epoch, sigma in enumerate(sigmas):
        with stochastic(net, ["0"], sigma, relative=False, at="output", seed=epoch):
            plane.record(x, y, epoch=epoch)
    assert [phase.kind for phase in phases(plane.rows)] == kinds


class Augmented(Dataset):
    """Draws from every global generator that there is."""

    def __init__(self):
        self.x, self.y = blobs(160)

    def __len__(self):
        return 160

    def __getitem__(self, i):
        drawn = torch.rand(1) + random.random() + np.random.rand()  # noqa: NPY002
        return self.x[i] + 0.1 * float(drawn), self.y[i]


def trained(recorded):
    """Weights after two epochs, recorded from the training loader itself, or not."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    net = nn.Sequential(
        nn.Linear(10, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 4)
    )
    net.add_module("frozen", nn.Dropout().eval())
    loader = DataLoader(
        Augmented(), 40, shuffle=True, generator=torch.Generator().manual_seed(2), drop_last=True
    )
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    plane = InformationPlane(net, ["2", "4"], KSG())
    with stochastic(net, ["0", "frozen"], 0.1):
        for epoch in range(2):
            for x, y in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()
            if recorded:
                plane.record(loader, epoch=epoch)
                assert [module.training for module in net] == [True] * 5 + [False]
    assert all(not module._forward_hooks for module in net.modules())
    return net.state_dict(), torch.rand(1), random.random(), plane.rows


def test_recording_does_not_change_training():
    plain, with_plane = trained(recorded=False), trained(recorded=True)
    assert len(with_plane[3]) == 4
    assert plain[0].keys() == with_plane[0].keys()
    for name, value in plain[0].items():
        assert torch.equal(value, with_plane[0][name]), name
    assert plain[1:3] == with_plane[1:3]


@pytest.mark.parametrize("cut", [0, 1, 30, 200, 10_000])
def test_a_run_that_is_killed_goes_on(tmp_path, cut):
    x, labels = blobs(400)
    path = tmp_path / "plane.csv"
    nets = [nn.Sequential(nn.Linear(10, 8), nn.Tanh()) for _ in range(3)]

    def record():
        for epoch, net in enumerate(nets):
            plane = InformationPlane(net, ["0", "1"], KSG(), path=path)
            plane.record(x, labels, epoch=epoch)
        return plane

    rows = record().rows
    assert str(read_rows(path)) == str(rows)
    text = path.read_bytes()
    path.write_bytes(text[: max(len(text) - cut, 0)])
    assert str(record().rows) == str(rows)
    assert path.read_bytes() == text


def test_an_epoch_is_recorded_once():
    x, labels = blobs(200)
    plane = InformationPlane(nn.Sequential(nn.Linear(10, 3)), ["0"], KSG())
    rows = plane.record(x, labels, epoch=0)
    assert plane.record(x[:50], labels[:50], epoch=0) == rows
    assert len(plane.rows) == 1


def of(model, layers, x, y=None, **options):
    options = {"estimator": KSG()} | options
    return InformationPlane(model, layers, **options).record(x, y, epoch=0)


class Returning(nn.Module):
    """A layer behind which stands ``function``."""

    def __init__(self, function):
        super().__init__()
        self.inner = nn.Linear(10, 3)
        self.function = function

    def forward(self, *args, **kwargs):
        return self.function(self.inner(args[0] if args else kwargs["x"]))


def test_the_first_floating_output_counts():
    x, labels = blobs(200)
    torch.manual_seed(0)
    model = Returning(lambda h: (h.argmax(1), {"loss": h.sum(), "h": h}, h**2))
    whole, inner = of(model, ["", "inner"], x, labels)
    assert whole[3:] == inner[3:]
    one = of(Returning(lambda h: h[:, 0]), [""], x, labels)
    assert one[0].of_target > 0.1


def test_axes_of_recurrent_layers():
    x, labels = blobs(200)
    recurrent = nn.GRU(2, 3)
    model = nn.Sequential(nn.Unflatten(1, (5, 2)), Swapped(), recurrent)
    (first,) = of(model, ["2"], x, labels, batch_size=5)  # as many samples as steps
    batch_first = nn.GRU(2, 3, batch_first=True)
    batch_first.load_state_dict(recurrent.state_dict())
    (other,) = of(nn.Sequential(model[0], batch_first), ["1"], x, labels)
    assert first.of_input == pytest.approx(other.of_input)
    assert first.of_target == pytest.approx(other.of_target)


class Swapped(nn.Module):
    def forward(self, x):
        return x.transpose(0, 1)


def test_loaders_of_several_inputs_and_of_mappings():
    x, labels = blobs(200)
    torch.manual_seed(0)
    model = Returning(torch.tanh)
    expected = str(of(model, [""], x, labels, batch_size=50))
    parts = [(x[i : i + 50], labels[i : i + 50]) for i in range(0, 200, 50)]
    for batches in (
        [[a, b] for a, b in parts],
        [((a, torch.ones(50)), b) for a, b in parts],
        [{"x": a, "ones": torch.ones(50), "labels": b} for a, b in parts],
        [({"x": a}, b.tolist()) for a, b in parts],
        DataLoader(TensorDataset(x, labels), 50),
    ):
        assert str(of(model, [""], batches)) == expected


def test_a_loader_that_shuffles_keeps_samples_together():
    x, labels = blobs(400)
    torch.manual_seed(0)
    model = Returning(torch.tanh)
    (sorted_,) = of(model, [""], x, labels)
    (shuffled,) = of(model, [""], DataLoader(TensorDataset(x, labels), 64, shuffle=True))
    assert shuffled.of_input == pytest.approx(sorted_.of_input, abs=0.02)
    assert shuffled.of_target == pytest.approx(sorted_.of_target, abs=0.02)


def test_labels_of_any_kind():
    x, labels = blobs(200)
    torch.manual_seed(0)
    model = Returning(torch.tanh)
    (expected,) = of(model, [""], x, labels)
    words = np.array(["ant", "bee", "cow", "dog"])[labels]
    pairs = torch.stack([labels // 2, labels % 2], dim=1)
    for kind in (
        words,
        words.tolist(),
        labels.float(),
        labels[:, None].bfloat16(),
        pairs,
        pairs > 0,
    ):
        (row,) = of(model, [""], x, kind)
        assert row.of_target == expected.of_target
    (numbers,) = of(model, [""], x, labels + 0.01 * torch.randn(200))
    assert numbers.of_target != expected.of_target
    assert numbers.of_target > 0.3
    (vectors,) = of(model, [""], x, x[:, :2])
    assert vectors.of_target > 0.3


def test_layers_with_fewer_directions_than_columns():
    """A dead unit, one that repeats another, and probabilities that add up to one."""
    x, labels = blobs(500)
    torch.manual_seed(0)
    model = Returning(lambda h: torch.stack([h[:, 0], 0 * h[:, 0], h[:, 1], h[:, 0] * 2], dim=1))
    plain = Returning(lambda h: h[:, :2])
    plain.inner = model.inner
    estimates = [of(each, [""], x, labels, estimator=None)[0] for each in (model, plain)]
    assert estimates[0].of_input == pytest.approx(estimates[1].of_input, abs=1e-4)
    assert estimates[0].of_target == pytest.approx(estimates[1].of_target, abs=1e-4)
    (soft,) = of(Returning(lambda h: h.softmax(1)), [""], x, labels)
    assert soft.of_input > 0.3


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [3, 200])
def test_a_constant_layer_knows_nothing(n):
    x, labels = blobs(200)
    (row,) = of(Returning(lambda h: (0 * h[:, :1]).expand(-1, n) + 7.1), [""], x, labels)
    assert row[3:8] == (0, 0, 0, 0, 1)


def test_a_layer_that_is_not_finite_is_unknown_and_the_others_are_not():
    x, labels = blobs(200)
    model = nn.Sequential(nn.Linear(10, 8), Diverging())
    with pytest.warns(
        UserWarning, match="of layer '1' about the input could not be .* not all fin"
    ):
        good, bad = of(model, ["0", "1"], x, labels, batch_size=50)
    assert good.of_target > 0.3
    assert all(map(math.isnan, bad[3:8]))
    assert bad.samples == 200


class Diverging(nn.Module):
    def forward(self, x):
        return torch.where(x > 3, math.nan, x)


def test_half_precision():
    x, labels = blobs(1000)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 12), nn.Tanh())
    whole = of(model, ["0", "1"], x, labels)
    half = of(model.bfloat16(), ["0", "1"], x.bfloat16(), labels.bfloat16())
    for one, other in zip(half, whole, strict=True):
        assert one.of_target == pytest.approx(other.of_target, abs=0.05)
        assert one.of_input == pytest.approx(other.of_input, abs=0.1)


@pytest.mark.filterwarnings("ignore:every sample gives")
@pytest.mark.parametrize("code", [PCA(4), None, Autoencoder(4, steps=9)])
def test_a_model_that_changes_its_input(code):
    x, labels = blobs(200)
    rows = []
    for inplace in (False, True):
        model = nn.Sequential(nn.Identity(), nn.ReLU(inplace))
        data = Cloned([(x.double(), labels)])
        rows.append(of(model, ["0", "1"], data, input_code=code, layer_compressor=code))
    assert str(rows[0]) == str(rows[1])


class Cloned:
    def __init__(self, pairs):
        self.pairs = pairs

    def __iter__(self):
        return ((x.clone(), y) for x, y in self.pairs)


def test_compressors_are_copied_or_used_as_they_are():
    x, labels = blobs(200)
    model = Returning(lambda h: h.repeat(1, 5))
    plane = InformationPlane(model, [""], KSG())
    plane.record(x, labels, epoch=0)
    assert not FOUR_COMPONENTS.fitted
    code = plane.input_code
    assert torch.equal(code.mean, x.double().mean(0))
    plane.record(x + 1, labels, epoch=1)
    assert plane.input_code is code
    fitted = PCA(2).fit(x)
    mean = fitted.mean.clone()
    plane = InformationPlane(model, [""], KSG(), input_code=fitted, layer_compressor=None)
    (row,) = plane.record(x, labels, epoch=0, loss=torch.tensor(2.0))
    model.inner.weight.data.zero_()
    with pytest.warns(UserWarning, match="layer '' about the target could not .* constant columns"):
        plane.record(x, labels, epoch=1)
    assert torch.equal(plane.input_code.mean, mean)
    assert (row.kept, row.hidden, row.loss) == (1.0, 0.0, 2.0)


def test_other_compressors_get_all_outputs():
    x, labels = blobs(200)
    codes = Autoencoder(2, steps=20)
    layers = nn.Sequential(nn.Linear(10, 8), nn.Linear(8, 2))
    for mode in (torch.enable_grad, torch.inference_mode):
        with mode():
            wide, narrow = of(
                layers,
                ["0", "1"],
                x,
                labels,
                layer_compressor=codes,
                input_code=codes,
            )
        assert not codes.fitted
        assert wide.of_target > 0.1
        assert math.isnan(wide.kept)
        assert (narrow.kept, narrow.hidden) == (1, 0)
        (as_it_is,) = of(layers, ["1"], x, labels, layer_compressor=PCA(2), input_code=codes)
        assert narrow == as_it_is


@pytest.mark.filterwarnings("ignore:.*torch.compile")
def test_compiled_models_and_fused_layers():
    x, labels = blobs(200)
    layer = nn.TransformerEncoderLayer(10, 2, 8, batch_first=True)
    model = nn.Sequential(nn.Unflatten(1, (1, 10)), layer).eval()
    (row,) = of(model, ["1.linear1"], x, labels)
    assert row.of_target > 0.3
    plain = nn.Sequential(nn.Linear(10, 3), nn.Tanh()).eval()
    compiled = torch.compile(plain, backend="eager")
    with torch.no_grad():
        compiled(x)
    (row,) = of(compiled, [plain[0]], x, labels)
    assert row[3:] == of(plain, ["0"], x, labels)[0][3:]


@pytest.mark.parametrize(
    ("model", "x", "y", "message"),
    [
        (
            Returning(lambda h: h.sum(0)),
            "x",
            "y",
            "must return .* a row for each of 20 inputs, got",
        ),
        (
            Returning(lambda h: h.argmax(1)),
            "x",
            "y",
            "must return floating-point numbers.* got none",
        ),
        (
            nn.Sequential(nn.Linear(10, 3)),
            "x",
            None,
            "`y` must hold one target .* 20 inputs, got none",
        ),
        (nn.Sequential(nn.Linear(10, 3)), "x", "short", "`y` must hold one target for each of 20"),
        (nn.Sequential(nn.Linear(10, 3)), "loader", "y", "`y` must be left out if `x` is a loader"),
        (nn.Sequential(nn.Linear(10, 3)), "bare", None, "must give pairs of inputs and targets"),
        (nn.Sequential(nn.Linear(10, 3)), "iterator", None, "must give batches every time"),
        (nn.Sequential(nn.Linear(10, 3)), "uneven", None, "target for each input, got 3 of 20"),
    ],
)
def test_a_record_that_fails_leaves_all_as_it_was(model, x, y, message, tmp_path):
    inputs, labels = blobs(20)
    values = {
        "x": inputs,
        "y": labels,
        "short": labels[:3],
        "loader": [(inputs, labels)],
        "bare": [inputs],
        "iterator": iter([(inputs, labels)]),
        "uneven": [(inputs, labels[:3])],
        None: None,
    }
    model.train()
    name = "0" if isinstance(model, nn.Sequential) else ""
    plane = InformationPlane(model, [name], KSG(), path=tmp_path / "plane.csv")
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        plane.record(values[x], values[y], epoch=0)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(state, torch.get_rng_state())
    assert not plane.rows
    assert not read_rows(plane.path)
    assert not plane.input_code.fitted


def test_layers_that_do_not_fire_once():
    relu, spare = nn.ReLU(), nn.Linear(3, 3)
    model = Returning(lambda h: relu(relu(h)))
    model.relu, model.spare = relu, spare
    x, labels = blobs(20)
    with pytest.raises(ValueError, match="layer 'relu' fired twice in one pass"):
        of(model, ["relu"], x, labels)
    with pytest.raises(ValueError, match="layer 'spare' did not fire"):
        of(model, ["spare"], x, labels)
    with pytest.raises(TypeError):
        InformationPlane(model, ["inner"]).record(x, labels, epoch=0.5)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        InformationPlane(model, ["inner"], batch_size=0)


WIDE = """
import resource, torch
from torch import nn
from captum_mi.infoplane import InformationPlane
model = nn.Sequential(nn.Linear(10, 100_000), nn.Tanh())
x, y = torch.randn(2000, 10), torch.randint(5, (2000,))
rows = InformationPlane(model, ["0", "1"]).record(x, y, epoch=0)
print(len(rows), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_layers_of_100_000_features_take_less_than_two_gigabytes():
    done = subprocess.run([sys.executable, "-c", WIDE], capture_output=True, text=True, check=True)
    n_rows, kilobytes = map(int, done.stdout.split())
    assert n_rows == 2
    assert kilobytes < 2_000_000
