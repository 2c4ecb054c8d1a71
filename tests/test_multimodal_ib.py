"""MultimodalIB and LayerStatistics against closed forms and a brute-force rewriting."""

import math

import pytest
import torch
import torchvision
from families import FAMILIES, build
from helpers import latent_of, replaced
from scipy.stats import spearmanr
from torch import nn
from torch.distributions import Normal, kl_divergence

from captum_mi import MultimodalIB
from captum_mi._intervention.split import split_at
from captum_mi.attr import LayerStatistics
from captum_mi.attr.multimodal_ib import Bottleneck, _optimize, _Scores
from captum_mi.datasets import Scenes
from captum_mi.evaluation.rows import BETAS
from captum_mi.maps import bits_per_pixel
from captum_mi.models import ImageTextSimilarity, TextImageSimilarity, blocks, tokenize

TEXTS = ["a red circle", "a blue square and a green heart", "a heart"]


def mlp():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def statistics(shape, mean=0.0, std=1.0, active=1.0):
    full = [torch.full(shape, value) for value in (mean, std, active)]
    return LayerStatistics(*full, count=100)


def test_initial_capacity():
    model, x = mlp(), torch.randn(3, 4)
    z = model[:2](x)
    actual = MultimodalIB(model, model[1]).attribute(x, target=0, n_steps=1)
    torch.testing.assert_close(actual, 4.5067 + 0.4933 * z**2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("alpha", [-3.0, 0.0, 2.0, 9.0])
def test_capacity_is_the_divergence_of_two_gaussians(alpha):
    z = torch.randn(2, 5, 4).double()
    prior = LayerStatistics(
        torch.randn(5, 4).double(), torch.rand(5, 4).double() + 0.1, torch.ones(5, 4), 9
    )
    passing = torch.sigmoid(torch.tensor(alpha).double())
    bottleneck = Normal(
        passing * z + (1 - passing) * prior.mean, (1 - passing) * prior.std.expand_as(z)
    )
    expected = kl_divergence(bottleneck, Normal(prior.mean, prior.std))
    actual = Bottleneck(z, prior).capacity(torch.full_like(z, alpha))
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("smoothing", [None, 1.0])
def test_capacity_is_finite_for_any_alpha(dtype, smoothing):
    z = torch.randn(2, 3, 8, 8).to(dtype)
    bottleneck = Bottleneck(z, smoothing=smoothing)
    for alpha in (-100.0, -20.0, 20.0, 100.0):
        values = torch.full(z.shape, alpha, requires_grad=True)
        nats = bottleneck.capacity(values)
        (gradient,) = torch.autograd.grad(nats.sum(), values)
        assert nats.dtype == torch.float32
        assert nats.isfinite().all()
        assert gradient.isfinite().all()
        assert (nats >= 0).all()
    assert Bottleneck(z).capacity(torch.full(z.shape, 100.0)).mean() == pytest.approx(100, abs=1)
    assert Bottleneck(z).capacity(torch.full(z.shape, -100.0)).abs().max() < 1e-6


def brute_force(forward_func, layer, x, target, *, beta, n_steps, n_samples, seed):
    """The published procedure for one row, in words: the whole model again for every noise draw."""
    z = latent_of(forward_func, layer, x)
    alpha = torch.full_like(z, 5.0, requires_grad=True)
    first, second = torch.zeros_like(z), torch.zeros_like(z)
    generator = torch.Generator().manual_seed(seed)
    nats = None
    for step in range(1, n_steps + 1):
        passing = 1 / (1 + torch.exp(-alpha))
        nats = -0.5 * (1 + torch.log((1 - passing) ** 2) - (passing * z) ** 2 - (1 - passing) ** 2)
        noise = torch.randn((n_samples, 1, *z.shape[1:]), generator=generator, dtype=z.dtype)
        loss = beta * nats.mean()
        for draw in noise:
            mixed = passing * z + (1 - passing) * draw
            loss = loss - replaced(forward_func, layer, (x,), mixed)[0, target] / n_samples
        (gradient,) = torch.autograd.grad(loss, alpha)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        mean, square = first / (1 - 0.9**step), second / (1 - 0.999**step)
        alpha = (alpha - mean / (square.sqrt() + 1e-8)).detach().requires_grad_()
    return nats.detach()


@pytest.mark.parametrize("family", FAMILIES)
def test_image_tower_equals_brute_force(family):
    model, processor = build(family)
    similarity = ImageTextSimilarity(model, processor, TEXTS).double()
    layer = blocks(model, "image")[1]
    x = torch.randn(2, 3, 32, 32).double()
    settings = {"beta": 0.1, "n_steps": 5, "n_samples": 3, "seed": 4}
    actual = MultimodalIB(similarity, layer).attribute(x, target=[1, 2], **settings)
    for i, target in enumerate((1, 2)):
        expected = brute_force(similarity, layer, x[i : i + 1], target, **settings)
        assert expected.std() > 0.01
        torch.testing.assert_close(actual[i : i + 1], expected, rtol=1e-4, atol=1e-5)


def test_gradient_of_the_loss_equals_finite_differences():
    model = mlp().double()
    suffix = model[2:]
    z = model[:2](torch.randn(1, 4).double()).detach()
    noise = torch.randn(3, 1, 6).double()
    prior = LayerStatistics(torch.randn(6).double(), torch.rand(6).double() + 0.5, torch.ones(6), 9)
    bottleneck = Bottleneck(z, prior)

    def loss(alpha):
        score = suffix(bottleneck.noisy(alpha, noise))[:, 0].mean()
        return 0.1 * bottleneck.capacity(alpha).mean() - score

    assert torch.autograd.gradcheck(loss, torch.randn(1, 6).double().requires_grad_())


def test_information_stays_where_it_matters_and_nowhere_else():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()
            self.weight = nn.Parameter(torch.randn(4, 8))

        def forward(self, x):
            return -((self.layer(x)[:, :4] - self.weight) ** 2).sum((1, 2))[:, None]

    model = Tokens()
    x = torch.cat([model.weight.detach(), torch.randn(4, 8)])[None]
    nats = MultimodalIB(model, model.layer).attribute(x, target=0, beta=1.0, n_steps=30)
    assert nats[0, 4:].sum() < 0.01 * nats.sum()
    assert nats[0, :4].mean() > 0.5


def test_seeds():
    model, x = mlp(), torch.randn(3, 4)
    method = MultimodalIB(model, model[1])
    first = method.attribute(x, target=0, seed=1)
    assert torch.equal(first, method.attribute(x, target=0, seed=1))
    assert not torch.allclose(first, method.attribute(x, target=0, seed=2))


@pytest.mark.parametrize("chunk", [1, 3, 7, 12, 100])
def test_internal_batch_size_does_not_change_numbers(chunk):
    model, x = mlp().double(), torch.randn(3, 4).double()
    method = MultimodalIB(model, model[1])
    expected = method.attribute(x, target=[0, 1, 2])
    actual = method.attribute(x, target=[0, 1, 2], internal_batch_size=chunk)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-8)


def test_several_layers_give_several_maps():
    model, x = mlp(), torch.randn(3, 4)
    several = MultimodalIB(model, [model[1], model[3]]).attribute(x, target=0)
    assert isinstance(several, list)
    for layer, nats in zip((model[1], model[3]), several, strict=True):
        torch.testing.assert_close(nats, MultimodalIB(model, layer).attribute(x, target=0))


def test_log_softmax_is_the_score_of_a_model_that_ends_in_it():
    model, x = mlp(), torch.randn(3, 4)
    ended = nn.Sequential(*model, nn.LogSoftmax(-1))
    expected = MultimodalIB(ended, ended[1]).attribute(x, target=1)
    actual = MultimodalIB(model, model[1]).attribute(x, target=1, objective="log_softmax")
    torch.testing.assert_close(actual, expected)


def test_text_tower():
    model, processor = build("clip")
    similarity = TextImageSimilarity(model, processor, list(torch.rand(2, 3, 32, 32)))
    encoded = tokenize(model, processor, [TEXTS[1]])
    nats = MultimodalIB(similarity, blocks(model, "text")[1]).attribute(
        encoded["input_ids"], 1, encoded["attention_mask"]
    )
    assert nats.shape == (1, 9, 32)
    assert (nats >= 0).all()


class Quadrant(nn.Module):
    """Class 1 if the upper left quadrant is far brighter than it is on average."""

    def __init__(self, images):
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        nn.init.uniform_(self.layer[0].weight, 0, 0.2)
        with torch.no_grad():
            sums = self.layer(images)[:, :, :4, :4].sum((1, 2, 3))
        self.mean, self.std = sums.mean(), sums.std()

    def forward(self, x):
        brightness = (self.layer(x)[:, :, :4, :4].sum((1, 2, 3)) - self.mean) / self.std
        return torch.stack([-4 * (brightness - 1), 4 * (brightness - 1)], 1)


def test_iba_keeps_its_bits_in_the_quadrant_that_decides():
    images = torch.rand(400, 1, 1, 1) * torch.rand(400, 1, 8, 8)
    model = Quadrant(images).eval()
    prior = LayerStatistics.fit(model, model.layer, images.split(50))
    x = 0.6 + 0.2 * torch.rand(1, 1, 8, 8)
    assert model(x)[0, 1] > 1
    nats = MultimodalIB(model, model.layer).attribute(
        x, 1, beta=10.0, objective="log_softmax", prior=prior, smoothing=1.0, n_steps=20
    )
    heat = nats.sum(1)[0]
    assert heat[:4, :4].sum() > 0.9 * heat.sum()
    assert heat.sum() > 1.0


def test_the_map_in_bits_per_pixel_sums_to_the_total():
    nats = torch.rand(2, 5, 7, 7)
    bits = bits_per_pixel(nats, (224, 224))
    assert bits.shape == (2, 1, 224, 224)
    torch.testing.assert_close(
        bits.sum((1, 2, 3)), nats.sum((1, 2, 3)) / math.log(2), rtol=0.02, atol=0
    )
    tokens = torch.rand(1, 50, 3)
    patches = tokens[:, 1:].sum() / math.log(2)
    bits = bits_per_pixel(tokens, (224, 224), grid=(7, 7))
    assert bits.sum() == pytest.approx(patches.item(), rel=0.02)


def test_less_information_passes_as_beta_grows(embedded):
    model, processor = embedded
    scenes = Scenes(2, seed=8, objects=2)
    layer = blocks(model, "image")[2]
    bits, openness = [], []
    for beta in BETAS:
        total, passing = 0.0, []
        for scene in scenes:
            similarity = ImageTextSimilarity(model, processor, scene.texts)
            pixels = processor.image_processor([scene.image], return_tensors="pt")["pixel_values"]
            nats = MultimodalIB(similarity, layer).attribute(pixels, 0, beta=beta)
            total += nats.sum().item()
            (suffix,) = split_at(similarity, [layer], pixels)
            bottlenecks = [Bottleneck(suffix.latent[0])]
            (alpha,) = _optimize(
                suffix,
                bottlenecks,
                _Scores(0, "score"),
                beta=beta,
                updates=9,
                n_samples=10,
                learning_rate=1.0,
                rows_at_once=None,
                seed=0,
            )
            torch.testing.assert_close(bottlenecks[0].capacity(alpha), nats)
            passing.append(alpha.sigmoid().mean().item())
        bits.append(total)
        openness.append(sum(passing))
    assert len(BETAS) == 18
    assert spearmanr(BETAS, bits).statistic < -0.9
    assert spearmanr(BETAS, openness).statistic < -0.9


@pytest.mark.parametrize("kind", ["resnet50", "vit"])
def test_iba_on_torchvision(kind):
    if kind == "resnet50":
        model = torchvision.models.resnet50().eval()
        layer, smoothing = model.layer2, 1.0
    else:
        model = torchvision.models.VisionTransformer(64, 16, 4, 2, 16, 32, num_classes=5).eval()
        nn.init.normal_(model.heads.head.weight)
        layer, smoothing = blocks(model)[1], None
    prior = LayerStatistics.fit(model, layer, torch.randn(8, 3, 64, 64).split(4))
    x = torch.randn(2, 3, 64, 64)
    nats = MultimodalIB(model, layer).attribute(
        x,
        [1, 2],
        beta=10.0,
        n_steps=3,
        n_samples=2,
        objective="log_softmax",
        prior=prior,
        smoothing=smoothing,
    )
    assert nats.shape[1:] == prior.mean.shape
    assert (nats >= 0).all()
    assert bits_per_pixel(nats, (64, 64), model=model).shape == (2, 1, 64, 64)


def test_elements_that_are_never_active_carry_nothing():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        model[0].bias[2] = -100.0
    prior = LayerStatistics.fit(model, "1", torch.randn(64, 4).split(16))
    assert prior.active[2] == 0
    nats = MultimodalIB(model, model[1]).attribute(torch.randn(3, 4), 0, prior=prior)
    assert (nats[:, 2] == 0).all()
    assert nats.sum() > 0


def test_statistics_equal_those_of_all_samples_at_once(tmp_path):
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    data = torch.randn(103, 4) * 3 + 50
    values = model[:2](data).double()
    fitted = LayerStatistics.fit(model, model[1], [(part, "label") for part in data.split(10)])
    torch.testing.assert_close(fitted.mean.double(), values.mean(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(fitted.std.double(), values.std(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fitted.active.double(), (values > 0).double().mean(0))
    assert fitted.count == 103
    fitted.save(tmp_path / "prior.safetensors")
    loaded = LayerStatistics.load(tmp_path / "prior.safetensors")
    assert torch.equal(loaded.mean, fitted.mean)
    assert torch.equal(loaded.std, fitted.std)
    assert torch.equal(loaded.active, fitted.active)
    assert loaded.count == 103


def test_statistics_take_mappings_and_run_no_further_than_the_layer():
    model, processor = build("clip")
    later = []
    handle = blocks(model, "text")[2].register_forward_hook(lambda *_: later.append(1))
    encoded = tokenize(model, processor, TEXTS)

    class Text(nn.Module):
        def forward(self, **kwargs):
            return model.get_text_features(**kwargs)

    fitted = LayerStatistics.fit(Text(), blocks(model, "text")[1], [encoded])
    handle.remove()
    assert fitted.mean.shape == (9, 32)
    assert not later
    assert not blocks(model, "text")[1]._forward_hooks


def test_statistics_refuse_what_they_cannot_fit():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    with pytest.raises(ValueError, match=r"`loader` must hold at least two samples, got 0"):
        LayerStatistics.fit(model, "1", [])
    with pytest.raises(ValueError, match=r"`loader` must hold at least two samples, got 1"):
        LayerStatistics.fit(model, "1", [torch.zeros(1, 4)])
    with pytest.raises(ValueError, match=r"layer Linear did not fire"):
        LayerStatistics.fit(model, nn.Linear(1, 1), [torch.zeros(2, 4)])
    with pytest.raises(ValueError, match=r"layer ReLU holds NaN or infinity"):
        LayerStatistics.fit(model, "1", [torch.full((2, 4), math.nan)])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"beta": 0}, ValueError, r"`beta` must be positive, got 0"),
        ({"beta": -1.5}, ValueError, r"`beta` must be positive, got -1.5"),
        ({"beta": math.nan}, ValueError, r"`beta` must be positive, got nan"),
        ({"n_steps": 0}, ValueError, r"`n_steps` must be at least 1, got 0"),
        ({"n_samples": 0}, ValueError, r"`n_samples` must be at least 1, got 0"),
        ({"learning_rate": 0.0}, ValueError, r"`learning_rate` must be positive, got 0.0"),
        ({"internal_batch_size": 0}, ValueError, r"`internal_batch_size` must be at least 1"),
        ({"objective": "logit"}, ValueError, r"`objective` must be one of 'score', 'log_softmax'"),
        ({"prior": statistics((5,))}, ValueError, r"`prior` .* shape \(5,\).*'1' .* has \(6,\)"),
        ({"smoothing": 1.0}, ValueError, r"`smoothing` 1.0 needs maps .* has \(3, 6\); use None"),
        ({"smoothing": 0.0}, ValueError, r"`smoothing` must be positive, got 0.0"),
    ],
)
def test_bad_arguments(arguments, error, words):
    model = mlp()
    with pytest.raises(error, match=words):
        MultimodalIB(model, model[1]).attribute(torch.randn(3, 4), target=0, **arguments)


@pytest.mark.parametrize("target", [None, 0])
def test_log_softmax_of_one_score_says_what_to_use(target):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0))
    method = MultimodalIB(model, model[0])
    with pytest.raises(ValueError, match=r"needs an output \(B, C\).*got \(2,\); use 'score'"):
        method.attribute(torch.randn(2, 3), target=target, objective="log_softmax")


def test_nats_beyond_all_numbers_are_said():
    model = nn.Sequential(nn.Identity(), nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"behind layer .* is not finite"):
        MultimodalIB(model, model[0]).attribute(torch.full((1, 3), 1e30), target=0, n_steps=1)
