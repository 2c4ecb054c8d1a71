"""NarrowingIB against closed forms, a brute-force rewriting and Captum."""

import copy
import pickle
from collections import Counter

import pytest
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients, NoiseTunnel
from families import FAMILIES, build
from helpers import InPlaceSkip, latent_of, replaced
from torch import nn

from captum_mi import NarrowingIB
from captum_mi.attr import GenericAttention, LayerStatistics
from captum_mi.datasets import Scenes
from captum_mi.maps import image_map
from captum_mi.models import ImageTextSimilarity, TextImageSimilarity, blocks, tokenize

TEXTS = ["a red circle", "a blue square and a green heart", "a heart"]


def mlp(dtype=torch.float64):
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    return model.to(dtype)


def brute_force(forward_func, layer, x, target, n_steps):
    """Equation 10 in words: the whole model again at every point of the path."""
    z = latent_of(forward_func, layer, x)
    total = torch.zeros_like(z)
    for k in range(1, n_steps + 1):
        narrowed = (k / n_steps * z).requires_grad_()
        score = replaced(forward_func, layer, (x,), narrowed)[:, target].sum()
        total += torch.autograd.grad(score, narrowed)[0]
    return z * total / n_steps


def test_linear_suffix_gives_latent_times_weight():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x = torch.randn(5, 4).double()
    expected = model[:2](x) * model[2].weight[1]
    for method in ("riemann_right", "riemann_middle", "riemann_left", "gausslegendre"):
        actual = NarrowingIB(model, model[1]).attribute(x, target=1, method=method)
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)
    # Captum's trapezoid weights sum to 1 - 1 / n_steps.
    actual = NarrowingIB(model, model[1]).attribute(x, target=1, method="riemann_trapezoid")
    torch.testing.assert_close(actual, 0.9 * expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_image_tower_equals_brute_force(family):
    model, processor = build(family)
    similarity = ImageTextSimilarity(model, processor, TEXTS).double()
    layer = blocks(model, "image")[1]
    x = torch.randn(2, 3, 32, 32).double()
    expected = brute_force(similarity, layer, x, 1, 4)
    actual = NarrowingIB(similarity, layer).attribute(x, target=1, n_steps=4)
    assert expected.abs().amax() > 1e-3
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_text_tower_is_independent_of_its_batch(family):
    model, processor = build(family)
    similarity = TextImageSimilarity(model, processor, list(torch.rand(2, 3, 32, 32)))
    method = NarrowingIB(similarity, blocks(model, "text")[1])
    together = tokenize(model, processor, TEXTS)
    scores = method.attribute(
        together["input_ids"], None, 1, together.get("attention_mask"), n_steps=5
    )
    for i, text in enumerate(TEXTS):
        encoded = tokenize(model, processor, [text])
        alone = method.attribute(
            encoded["input_ids"], None, 1, encoded.get("attention_mask"), n_steps=5
        )
        length = alone.shape[1]
        torch.testing.assert_close(scores[i : i + 1, :length], alone, rtol=1e-4, atol=1e-5)
        if family != "siglip":
            assert (scores[i, length:] == 0).all()


def test_equals_captum_on_the_split_model():
    model = mlp(torch.float32)
    x = torch.randn(7, 4)
    for method in ("riemann_right", "riemann_middle", "riemann_left", "gausslegendre"):
        expected = IntegratedGradients(model[2:]).attribute(
            model[:2](x), target=2, n_steps=9, method=method
        )
        actual = NarrowingIB(model, model[1]).attribute(x, target=2, n_steps=9, method=method)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


def test_convergence_orders_on_a_smooth_suffix():
    model, x = mlp(), torch.randn(6, 4).double()
    method = NarrowingIB(model, model[1])
    truth = method.attribute(x, target=0, n_steps=100, method="gausslegendre")

    def error(rule, n_steps):
        found = method.attribute(x, target=0, n_steps=n_steps, method=rule)
        return (found - truth).abs().amax().item()

    for rule, order in (("riemann_right", 1), ("riemann_middle", 2), ("riemann_trapezoid", 1)):
        assert error(rule, 20) / error(rule, 40) == pytest.approx(2**order, rel=0.1)
    assert error("gausslegendre", 8) < 1e-6 < error("riemann_middle", 8)


def test_completeness_and_convergence_delta():
    model, x = mlp(), torch.randn(6, 4).double()
    method = NarrowingIB(model, model[1])
    attribution, delta = method.attribute(
        x, target=1, n_steps=30, method="gausslegendre", return_convergence_delta=True
    )
    gain = model(x)[:, 1] - model[2:](torch.zeros(6, 6).double())[:, 1]
    torch.testing.assert_close(attribution.sum(1), gain, rtol=1e-6, atol=1e-8)
    assert delta.shape == (6,)
    assert delta.abs().amax() < 1e-6
    attribution, delta = method.attribute(x, target=1, n_steps=2, return_convergence_delta=True)
    torch.testing.assert_close(delta, attribution.sum(1) - gain)


@pytest.mark.parametrize("start", [0.3, "row", "full"])
def test_layer_baselines_are_where_the_path_starts(start):
    model, x = mlp(), torch.randn(3, 4).double()
    value = {"row": torch.randn(1, 6).double(), "full": torch.randn(3, 6).double()}.get(
        start, start
    )
    expected = IntegratedGradients(model[2:]).attribute(
        model[:2](x), baselines=value, target=0, n_steps=10, method="riemann_middle"
    )
    actual, delta = NarrowingIB(model, model[1]).attribute(
        x, target=0, layer_baselines=value, return_convergence_delta=True
    )
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)
    begin = torch.as_tensor(value).double().expand(3, 6)
    gain = (model(x) - model[2:](begin))[:, 0]
    torch.testing.assert_close(delta, actual.sum(1) - gain)


@pytest.mark.parametrize("baselines", [0, 0.5, "row", "full"])
def test_input_baselines_equal_layer_integrated_gradients(baselines):
    model, x = mlp(), torch.randn(3, 4).double()
    value = {"row": torch.randn(1, 4), "full": torch.randn(3, 4)}.get(baselines, baselines)
    value = value.double() if isinstance(value, torch.Tensor) else value
    options = {"baselines": value, "target": 1, "n_steps": 7, "method": "gausslegendre"}
    expected = LayerIntegratedGradients(model, model[1]).attribute(x, **options)
    torch.testing.assert_close(NarrowingIB(model, model[1]).attribute(x, **options), expected)


def test_input_baselines_on_clip_equal_layer_integrated_gradients():
    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    layer = blocks(model, "image")[1]
    x = torch.randn(2, 3, 32, 32)
    options = {"baselines": 0, "target": [0, 2], "n_steps": 6, "method": "riemann_right"}
    expected = LayerIntegratedGradients(similarity, layer).attribute(x, **options)
    actual = NarrowingIB(similarity, layer).attribute(x, **options)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_prefix_runs_once_whatever_the_steps():
    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    encoder = blocks(model, "image")
    counts = Counter()
    for name, module in similarity.named_modules():
        original = module.forward

        def counted(*args, _name=name, _original=original, **kwargs):
            counts[_name] += 1
            return _original(*args, **kwargs)

        module.forward = counted
    for n_steps, chunk in ((3, None), (20, None), (20, 4)):
        counts.clear()
        NarrowingIB(similarity, encoder[2]).attribute(
            torch.randn(2, 3, 32, 32), target=0, n_steps=n_steps, internal_batch_size=chunk
        )
        before = [
            name
            for name in counts
            if any(
                part in name
                for part in ("embeddings", "pre_layrnorm", "layers.0", "layers.1", "layers.2")
            )
        ]
        assert len(before) > 30
        assert {name: counts[name] for name in before} == dict.fromkeys(before, 1)
        assert counts["model.vision_model.encoder.layers.3"] > 1
        assert not any("text_model" in name for name in counts)


@pytest.mark.parametrize("chunk", [1, 3, 4, 7, 30])
def test_internal_batch_size_does_not_change_numbers(chunk):
    model, x = mlp(), torch.randn(3, 4).double()
    method = NarrowingIB(model, model[1])
    for rule in ("riemann_right", "riemann_trapezoid", "gausslegendre"):
        expected = method.attribute(x, target=[0, 1, 2], n_steps=9, method=rule)
        actual = method.attribute(
            x, target=[0, 1, 2], n_steps=9, method=rule, internal_batch_size=chunk
        )
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "target",
    [
        1,
        torch.tensor(1),
        torch.tensor([1]),
        [1, 0, 2],
        torch.tensor([1, 0, 2]),
        (1,),
        [(1,), (0,), (2,)],
    ],
)
def test_every_target_type(target):
    model, x = mlp(), torch.randn(3, 4).double()
    actual = NarrowingIB(model, model[1]).attribute(x, target=target)
    expected = IntegratedGradients(model[2:]).attribute(
        model[:2](x), target=target, n_steps=10, method="riemann_right"
    )
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)


def test_no_target_for_one_output_per_row():
    model, x = mlp(), torch.randn(3, 4).double()
    actual = NarrowingIB(lambda x: model(x)[:, 1], model[1]).attribute(x)
    torch.testing.assert_close(actual, NarrowingIB(model, model[1]).attribute(x, target=1))


@pytest.mark.parametrize("target", [None, 5, [0, 1], (0, 0)])
def test_bad_targets_raise_what_captum_raises(target):
    model, x = mlp(), torch.randn(3, 4).double()
    with pytest.raises((AssertionError, IndexError)) as captums:
        LayerIntegratedGradients(model, model[1]).attribute(x, target=target)
    with pytest.raises(captums.type):
        NarrowingIB(model, model[1]).attribute(x, target=target)


def test_list_of_layers_narrows_each_on_its_own():
    model, x = mlp(), torch.randn(3, 4).double()
    layers = [model[1], model[3]]
    several, deltas = NarrowingIB(model, layers).attribute(
        x, target=0, return_convergence_delta=True
    )
    assert isinstance(several, list)
    for layer, attribution, delta in zip(layers, several, deltas, strict=True):
        alone, its_delta = NarrowingIB(model, layer).attribute(
            x, target=0, return_convergence_delta=True
        )
        torch.testing.assert_close(attribution, alone)
        torch.testing.assert_close(delta, its_delta)
    starts = [torch.randn(3, 6).double(), 0.5]
    several = NarrowingIB(model, layers).attribute(x, target=0, layer_baselines=starts)
    alone = NarrowingIB(model, layers[0]).attribute(x, target=0, layer_baselines=starts[0])
    torch.testing.assert_close(several[0], alone)
    one = NarrowingIB(model, [model[1]]).attribute(x, target=0)
    assert isinstance(one, list)
    assert len(one) == 1


def test_layer_input_is_the_output_of_the_layer_before():
    model, x = mlp(), torch.randn(3, 4).double()
    actual = NarrowingIB(model, model[2]).attribute(x, target=0, attribute_to_layer_input=True)
    torch.testing.assert_close(actual, NarrowingIB(model, model[1]).attribute(x, target=0))


def test_layer_with_two_tensors_returns_a_tuple():
    class Split(nn.Module):
        def forward(self, x):
            return x[:, :2] ** 2, x[:, 2:].tanh()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.split = Split()

        def forward(self, x):
            first, second = self.split(x)
            return first.sum(1) + (second * torch.tensor([1.0, -2.0])).sum(1)

    model, x = Model(), torch.randn(3, 4)
    attribution = NarrowingIB(model, model.split).attribute(x)
    assert isinstance(attribution, tuple)
    torch.testing.assert_close(attribution[0], x[:, :2] ** 2)
    torch.testing.assert_close(attribution[1], x[:, 2:].tanh() * torch.tensor([1.0, -2.0]))
    with pytest.raises(ValueError, match=r"one entry for each of the 2 tensors.*got 3"):
        NarrowingIB(model, model.split).attribute(x, layer_baselines=(0, 0, 0))


def test_unused_tensors_of_a_layer_get_zero():
    class Attention(nn.Module):
        def forward(self, x):
            return x.tanh(), x.softmax(-1)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = Attention()

        def forward(self, x):
            return self.attention(x)[0].sum(1)

    model, x = Model(), torch.randn(3, 4)
    outputs, weights = NarrowingIB(model, model.attention).attribute(x)
    torch.testing.assert_close(outputs, x.tanh())
    assert (weights == 0).all()


def test_noise_tunnel():
    model, x = mlp(torch.float32), torch.randn(3, 4)
    method = NarrowingIB(model, model[1])
    quiet = NoiseTunnel(method).attribute(x, nt_samples=4, stdevs=0.0, target=1)
    torch.testing.assert_close(quiet, method.attribute(x, target=1))
    smooth, delta = NoiseTunnel(method).attribute(
        x, nt_samples=4, nt_type="smoothgrad_sq", target=1, return_convergence_delta=True
    )
    assert smooth.shape == (3, 6)
    assert delta.shape == (12,)
    assert (smooth > 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models(dtype):
    model, processor = build("clip")
    x = torch.randn(2, 3, 32, 32)
    layer = blocks(model, "image")[1]
    expected = NarrowingIB(ImageTextSimilarity(model, processor, TEXTS), layer).attribute(
        x, target=0
    )
    half = ImageTextSimilarity(model.to(dtype), processor, TEXTS)
    actual = NarrowingIB(half, layer).attribute(x.to(dtype), target=0)
    assert actual.dtype == torch.float32
    error = (actual - expected).norm() / expected.norm()
    assert error < (0.02 if dtype == torch.float16 else 0.15)


@pytest.mark.parametrize("family", ["clip", "altclip", "chinese_clip", "metaclip2"])
def test_last_block_under_token_pooling_warns(family):
    model, processor = build(family)
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    with pytest.warns(UserWarning, match=r"only one token of layer .*Choose an earlier layer"):
        NarrowingIB(similarity, blocks(model, "image")[-1]).attribute(
            torch.randn(2, 3, 32, 32), target=0
        )


def test_a_layer_without_influence_warns():
    layer = nn.Linear(3, 3)
    with pytest.warns(UserWarning, match=r"every attribution of layer Linear is zero"):
        NarrowingIB(lambda x: layer(x).sum(1) * 0, layer).attribute(torch.randn(2, 3))


def test_a_layer_that_does_not_reach_the_output_gets_zero():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.side = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            self.side(x)
            return self.main(x)

    model, x = Model(), torch.randn(2, 3)
    with pytest.warns(UserWarning, match=r"every attribution of layer 'side' \(Linear\) is zero"):
        main, side = NarrowingIB(model, [model.main, model.side]).attribute(x, target=0)
    assert (side == 0).all()
    assert main[:, 0].abs().min() > 0
    model.requires_grad_(requires_grad=False)
    with pytest.warns(UserWarning, match=r"every attribution"):
        assert (NarrowingIB(model, model.side).attribute(x, target=0) == 0).all()


def test_in_place_skip_connection_equals_layer_integrated_gradients():
    model, x = InPlaceSkip(), torch.randn(2, 1, 8, 8)
    options = {"baselines": 0, "target": 1, "n_steps": 6, "method": "riemann_right"}
    expected = LayerIntegratedGradients(model, model.layer).attribute(x, **options)
    torch.testing.assert_close(NarrowingIB(model, model.layer).attribute(x, **options), expected)


def test_earlier_blocks_do_not_warn(recwarn):
    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, TEXTS)
    NarrowingIB(similarity, blocks(model, "image")[1]).attribute(
        torch.randn(2, 3, 32, 32), target=0
    )
    assert not [str(w.message) for w in recwarn if "token" in str(w.message)]


def test_gradient_that_is_not_finite_names_the_layer():
    layer = nn.Linear(3, 3)
    method = NarrowingIB(lambda x: layer(x).norm(dim=1).sqrt(), layer)
    with pytest.raises(
        ValueError, match=r"gradient behind layer Linear is not finite.*riemann_right"
    ):
        method.attribute(torch.randn(2, 3), method="riemann_trapezoid")
    assert method.attribute(torch.randn(2, 3)).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"n_steps": 0}, ValueError, "`n_steps` must be at least 1, got 0"),
        ({"n_steps": 2.5}, TypeError, "`n_steps` must be an integer, got 2.5"),
        ({"method": "simpson"}, ValueError, "`method` must be one of .*got 'simpson'"),
        ({"internal_batch_size": 0}, ValueError, "`internal_batch_size` must be at least 1, got 0"),
        ({"baselines": 0, "layer_baselines": 0}, ValueError, "exclude each other"),
        ({"layer_baselines": torch.zeros(2, 6)}, ValueError, r"shape \(3, 6\).*got \(2, 6\)"),
        ({"layer_baselines": [0, 0]}, ValueError, "each of the 1 layers, got 2"),
    ],
)
def test_bad_arguments(arguments, error, words):
    model, x = mlp(), torch.randn(3, 4).double()
    with pytest.raises(error, match=words):
        NarrowingIB(model, model[1]).attribute(x, target=0, **arguments)


def test_layer_may_be_exchanged_and_the_object_copied():
    model, x = mlp(), torch.randn(3, 4).double()
    method = NarrowingIB(model, model[3])
    method.layer = model[1]
    expected = NarrowingIB(model, model[1]).attribute(x, target=0)
    torch.testing.assert_close(method.attribute(x, target=0), expected)
    torch.testing.assert_close(copy.deepcopy(method).attribute(x, target=0), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(method)).attribute(x, target=0), expected)


def test_wrong_object_of_a_scene_is_negative_evidence(embedded):
    model, processor = embedded
    scenes = Scenes(12, seed=77, objects=2)
    layer = blocks(model, "image")[2]
    own, other = [], []
    for scene in scenes:
        pixels = processor(images=[scene.image], return_tensors="pt")["pixel_values"]
        similarity = ImageTextSimilarity(model, processor, scene.texts)
        attribution = NarrowingIB(similarity, layer).attribute(
            pixels.expand(2, -1, -1, -1), target=[0, 1]
        )
        heat = image_map(attribution, pixels, model=model)[:, 0]
        masks = torch.from_numpy(scene.masks)
        own += [heat[i][masks[i]].mean() for i in (0, 1)]
        other += [heat[i][masks[1 - i]].mean() for i in (0, 1)]
    assert sum(value > 0 for value in own) >= 22
    assert sum(value < 0 for value in other) >= 18


def test_a_list_of_layers_with_baselines_is_integrated_jointly():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))

    def skipping(x):
        first = model[:2](x)
        return model[4](model[2:4](first) * first)

    layers, x = [model[1], model[3]], torch.randn(2, 4)
    arguments = {"target": 1, "n_steps": 7, "method": "gausslegendre"}
    arguments |= {"baselines": torch.randn(2, 4), "return_convergence_delta": True}
    with pytest.warns(UserWarning, match="Multiple layers"):
        captums = LayerIntegratedGradients(skipping, layers)
    expected, expected_delta = captums.attribute(x, **arguments)
    actual, delta = NarrowingIB(skipping, layers).attribute(x, **arguments)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(delta, expected_delta, rtol=1e-4, atol=1e-6)


def test_baselines_act_at_the_layer_input():
    model, x = mlp(), torch.randn(2, 4).double()
    arguments = {"target": 0, "baselines": torch.randn(1, 4).double(), "n_steps": 6}
    arguments |= {"method": "gausslegendre", "attribute_to_layer_input": True}
    expected = LayerIntegratedGradients(model, model[2]).attribute(x, **arguments)
    actual = NarrowingIB(model, model[2]).attribute(x, **arguments)
    torch.testing.assert_close(actual, expected)


def test_the_mean_gradient_alone():
    model, x = mlp(), torch.randn(2, 4).double()
    method = NarrowingIB(model, model[1], None, False)
    assert not method.multiplies_by_inputs
    gradient = method.attribute(x, target=0)
    whole = NarrowingIB(model, model[1]).attribute(x, target=0)
    torch.testing.assert_close(gradient * model[:2](x), whole)


def test_gradient_options_reach_autograd():
    model, x = mlp(), torch.randn(2, 4).double()
    with pytest.raises(TypeError, match="no_such_option"):
        NarrowingIB(model, model[1]).attribute(x, target=0, grad_kwargs={"no_such_option": 1})


def test_captums_convergence_delta_needs_the_input_that_the_path_starts_at():
    model, x = mlp(), torch.randn(2, 4).double()
    baselines = torch.randn(2, 4).double()
    method = NarrowingIB(model, model[1])
    attributions, delta = method.attribute(
        x, baselines, target=0, n_steps=3, return_convergence_delta=True
    )
    actual = method.compute_convergence_delta(attributions, baselines, x, target=0)
    torch.testing.assert_close(actual, delta, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"`start_point`.*return_convergence_delta=True"):
        method.compute_convergence_delta(attributions, None, x, target=0)


@pytest.mark.parametrize("n_steps", [2, 5, 10])
@pytest.mark.parametrize("delta", [False, True])
def test_the_check_of_the_steps_costs_one_pass(n_steps, delta):
    runs = Counter()
    model, x = mlp(), torch.randn(2, 4).double()
    model[4].register_forward_hook(lambda _m, _a, output: runs.update([len(output)]))
    NarrowingIB(model, model[1]).attribute(
        x, target=0, n_steps=n_steps, return_convergence_delta=delta
    )
    alone = 2 + 2 * delta  # the traced run, at the first point of the path, and the last point
    assert runs == Counter({2: alone, 2 * n_steps: 1})


class Remembering(nn.Module):
    """Keeps something of its last input, which the model uses later."""

    def forward(self, x):
        self.last = x.mean(1, keepdim=True)
        return x.tanh()


def test_what_a_module_keeps_is_that_of_the_inputs():
    first, layer, head = Remembering(), nn.Linear(4, 4), nn.Linear(4, 3)

    def model(x):
        return head(layer(first(x))) * first.last

    x, baselines = torch.randn(2, 4), torch.randn(2, 4)
    actual = NarrowingIB(model, layer).attribute(x, baselines, target=1)
    gradient = head.weight[1] @ torch.eye(4) * x.mean(1, keepdim=True)
    expected = (layer(x.tanh()) - layer(baselines.tanh())) * gradient
    torch.testing.assert_close(actual, expected.detach())


def test_an_image_text_model_as_it_is_takes_no_images():
    model, _ = build("clip")
    layer, x = blocks(model, "image")[1], torch.randn(2, 3, 32, 32)
    for method in (NarrowingIB(model, layer), GenericAttention(model, layer)):
        with pytest.raises(TypeError, match=r"`forward_func`.*CLIPModel.*ImageTextSimilarity"):
            method.attribute(x)


def test_a_list_of_one_layer_gives_lists_of_one():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(5, 3)
    found, deltas = NarrowingIB(model, [model[0]]).attribute(
        x, target=1, return_convergence_delta=True
    )
    alone, delta = NarrowingIB(model, model[0]).attribute(
        x, target=1, return_convergence_delta=True
    )
    assert isinstance(found, list)
    assert isinstance(deltas, list)
    torch.testing.assert_close(found, [alone])
    torch.testing.assert_close(deltas, [delta])


def test_no_more_rows_at_once_than_asked():
    model, rows = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), []
    model[2].register_forward_hook(lambda _module, _args, output: rows.append(len(output)))
    x = torch.randn(2, 3)
    NarrowingIB(model, model[0]).attribute(x, target=1, n_steps=10)
    whole = max(rows)
    rows.clear()
    NarrowingIB(model, model[0]).attribute(x, target=1, n_steps=10, internal_batch_size=4)
    assert (whole, max(rows)) == (20, 4)


def test_statistics_start_the_path_at_their_mean():
    model = mlp(torch.float32).eval()
    x = torch.randn(3, 4)
    statistics = LayerStatistics.fit(model, "1", [torch.randn(6, 4) for _ in range(3)])
    method = NarrowingIB(model, model[1])
    found, delta = method.attribute(
        x, target=1, layer_baselines=statistics, return_convergence_delta=True
    )
    expected = method.attribute(x, target=1, layer_baselines=statistics.mean[None])
    assert torch.equal(found, expected)
    fall = model(x)[:, 1] - model[2:](statistics.mean[None])[:, 1]
    torch.testing.assert_close(found.sum(1) - delta, fall)
    with pytest.raises(ValueError, match=r"`layer_baselines` must .* \(3, 5\) .* got \(1, 6\)"):
        NarrowingIB(model, model[2]).attribute(x, target=1, layer_baselines=statistics)


@pytest.mark.parametrize(("norm", "jumps"), [(nn.LayerNorm, True), (nn.Identity, False)])
def test_behind_a_layer_norm_the_score_jumps_at_the_zero_latent(norm, jumps):
    """On the way to a thousandth of the latent much of the fall to zero is still to come."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = norm(8), nn.Linear(8, 8)

        def forward(self, x):
            return x + self.linear(self.norm(x)).tanh()

    model = nn.Sequential(Block(), Block(), norm(8), nn.Linear(8, 1)).double().eval()
    z = model[0](torch.randn(50, 8, dtype=torch.float64))
    whole, near, zero = (model[1:](share * z).detach() for share in (1.0, 1e-3, 0.0))
    missing = ((near - zero).abs() / (whole - zero).abs()).median()
    assert missing > 0.2 if jumps else missing < 2e-3
