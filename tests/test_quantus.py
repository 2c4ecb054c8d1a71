"""The metrics and the explanations inside Quantus."""

import subprocess
import sys

import numpy as np
import pytest
import quantus
import torch
import torchvision
from captum.attr import IntegratedGradients, LayerGradientXActivation, Saliency
from families import build
from torch import nn

from captum_mi import maps, metrics
from captum_mi.attr import METHODS, RISE, LayerStatistics
from captum_mi.attr.methods import ready_methods
from captum_mi.metrics import (
    ConfidenceDrop,
    ConfidenceIncrease,
    confidence_drop,
    confidence_increase,
    explain,
)
from captum_mi.models import EmbeddedText, ImageTextSimilarity, TextImageSimilarity

LAYER = "model.vision_model.encoder.layers.1"
TEXTS = ["a red circle", "a blue square and a green heart", "a heart"]
METRICS = {ConfidenceDrop: confidence_drop, ConfidenceIncrease: confidence_increase}


@pytest.fixture(scope="module")
def images():
    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, TEXTS).eval()
    x = np.random.default_rng(0).normal(size=(6, 3, 32, 32)).astype(np.float32)
    return similarity, x, np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture(scope="module")
def texts():
    model, processor = build("clip")
    pictures = list(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    similarity = TextImageSimilarity(model, processor, pictures)
    text = EmbeddedText(similarity, processor, TEXTS)
    return text, text.embeddings.numpy(), np.array([0, 1, 0])


@pytest.fixture(params=METRICS)
def metric(request):
    return request.param


def test_images_score_as_the_function_says(metric, images):
    model, x, y = images
    a = explain(model, x, y, layer=LAYER)
    found = metric()(model, x, y, a)
    expected = METRICS[metric](
        lambda inputs: model(inputs)[torch.arange(len(y)), torch.as_tensor(y)],
        torch.as_tensor(x),
        maps.min_max(torch.as_tensor(a)),
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_texts_score_as_the_function_says(metric, texts):
    model, x, y = texts
    a = explain(model, x, y, layer="similarity.model.text_model.encoder.layers.1")
    assert a.shape == (3, 1, x.shape[-1])
    found = metric()(model, x, y, a)
    inputs = torch.as_tensor(x)
    expected = METRICS[metric](
        lambda inputs: model(inputs)[torch.arange(len(y)), torch.as_tensor(y)],
        inputs,
        model.masks(inputs, torch.as_tensor(a)),
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
    for i in range(len(y)):
        alone = metric()(model, x[i : i + 1], y[i : i + 1], a[i : i + 1])
        assert alone[0] == pytest.approx(found[i], abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 6])
def test_scores_do_not_depend_on_the_batch(metric, images, batch_size):
    model, x, y = images
    options = {"method": "NarrowingIB", "layer": LAYER}
    a = explain(model, x, y, **options)
    expected = metric()(model, x, y, a, batch_size=6)
    found = metric()(model, x, y, a, batch_size=batch_size)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    explained = metric()(
        model, x, y, explain_func=explain, explain_func_kwargs=options, batch_size=batch_size
    )
    np.testing.assert_allclose(explained, expected, atol=1e-3)


def test_evaluate_judges_ours_next_to_captums(images, capsys):
    model, x, y = images
    found = quantus.evaluate(
        metrics={
            "drop": ConfidenceDrop(),
            "increase": ConfidenceIncrease(),
            "sparseness": quantus.Sparseness(disable_warnings=True),
        },
        xai_methods={"NarrowingIB": explain, "rise": explain, "Saliency": explain},
        model=model,
        x_batch=x,
        y_batch=y,
        agg_func=np.mean,
        explain_func_kwargs={"layer": LAYER},
        call_kwargs={"run": {"channel_first": True, "softmax": False, "batch_size": 3}},
    )
    assert "Error" not in capsys.readouterr().out
    assert set(found) == {"NarrowingIB", "rise", "Saliency"}
    for scores in found.values():
        assert np.isfinite(list(scores.values())).all()
    a = explain(model, x, y, layer=LAYER)
    assert found["NarrowingIB"]["drop"] == pytest.approx(
        np.mean(ConfidenceDrop()(model, x, y, a)), abs=1e-3
    )


@pytest.mark.parametrize("metric", [quantus.MPRT, quantus.RandomLogit])
def test_copies_of_the_model_are_explained(metric, images):
    model, x, y = images
    options = {"num_classes": 3} if metric is quantus.RandomLogit else {}
    found = metric(disable_warnings=True, **options)(
        model,
        x[:2],
        y[:2],
        channel_first=True,
        explain_func=explain,
        explain_func_kwargs={"method": "m2ib", "layer": LAYER, "n_steps": 3},
    )
    scores = (
        np.concatenate([np.ravel(part) for part in found.values()])
        if isinstance(found, dict)
        else np.ravel(found)
    )
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > 1


def test_magnitude_and_channels_come_before_the_scaling(metric, images):
    model, x, y = images
    a = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    summed = a.sum(1, keepdims=True)
    np.testing.assert_allclose(metric()(model, x, y, a), metric()(model, x, y, summed))
    found = metric(abs=True)(model, x, y, a)
    np.testing.assert_allclose(found, metric()(model, x, y, np.abs(summed)))


@pytest.mark.parametrize("method", ["rise", "IntegratedGradients", "NarrowingIB"])
def test_words_are_explained_and_special_tokens_stay(method, texts):
    model, x, y = texts
    options = {"layer": "tokens"} if method == "NarrowingIB" else {}
    options |= {"n_masks": 300} if method == "rise" else {}
    a = explain(model, x, y, method=method, **options)
    assert a.shape == (3, 1, x.shape[-1])
    words = ~model.special.numpy()
    assert all(a[i, 0, words[i]].std() > 0 for i in range(3))
    if method != "NarrowingIB":
        assert np.abs(a[:, 0][~words]).max() < 1e-6


def test_relative_and_softmax(images):
    model, x, y = images
    a = explain(model, x, y, layer=LAYER)

    def probability(inputs):
        return model(inputs).softmax(-1)[torch.arange(len(y)), torch.as_tensor(y)]

    found = ConfidenceDrop(relative=True)(model, x, y, a, softmax=True)
    expected = confidence_drop(
        probability, torch.as_tensor(x), maps.min_max(torch.as_tensor(a)), relative=True
    )
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_one_dimensional_network(metric):
    model = nn.Sequential(
        nn.Conv1d(3, 4, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)
    ).eval()
    x = np.random.default_rng(0).normal(size=(5, 3, 28)).astype(np.float32)
    y = np.array([0, 1, 0, 1, 0])
    a = explain(model, x, y, layer="0")
    assert a.shape == (5, 1, 28)
    assert len(metric()(model, x, y, a)) == 5


@pytest.mark.parametrize("method", ["NarrowingIB", "fastig", "gradcam", "rise"])
def test_channels_of_a_signal_are_summed_whatever_their_number(method):
    # As many channels as samples: the shapes alone might say tokens.
    model = nn.Sequential(
        nn.Conv1d(3, 12, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)
    ).eval()
    x = np.random.default_rng(0).normal(size=(2, 3, 12)).astype(np.float32)
    options = {"n_masks": 20} if method == "rise" else {}
    a = explain(model, x, np.array([0, 1]), method, "0", **options)
    assert a.shape == (2, 1, 12)
    with pytest.raises(ValueError, match="`channels_last` must be given"):
        explain(model, x, np.array([0, 1]), method, "1", **options)
    said = explain(model, x, np.array([0, 1]), method, "1", channels_last=False, **options)
    if method == "fastig":
        value, weight = model[:2](torch.as_tensor(x)), model[3].weight[[0, 1]].reshape(2, 12, 12)
        expected = (value * weight).sum(1, keepdim=True)
        np.testing.assert_allclose(said, expected.detach().numpy(), atol=1e-6)
    if method == "rise":
        inputs = explain(model, x, np.array([0, 1]), method, **options)
        assert inputs.shape == (2, 1, 12)
        direct = RISE(model).attribute(
            torch.as_tensor(x), target=[0, 1], channels_last=False, **options
        )
        np.testing.assert_allclose(inputs, direct, atol=1e-6)


@pytest.mark.parametrize("layer", ["features.0", "features.3", "features.3.0.norm1"])
@pytest.mark.parametrize("method", ["fastig", "gradcam", "rise"])
def test_a_swin_transformer(method, layer):
    model = torchvision.models.SwinTransformer([4, 4], 16, [1, 1], [2, 2], [2, 2], num_classes=3)
    model = model.eval()
    nn.init.normal_(model.head.weight)
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    options = {"n_masks": 20} if method == "rise" else {}
    a = explain(model, x, np.array([0, 1]), method, layer, **options)
    assert a.shape == (2, 1, 32, 32)
    if method == "fastig":
        inputs = torch.as_tensor(x)
        captums = LayerGradientXActivation(model, model.get_submodule(layer))
        products = captums.attribute(inputs, target=[0, 1])
        expected = maps.image_map(products.detach().permute(0, 3, 1, 2), (32, 32))
        np.testing.assert_allclose(a, expected, atol=1e-6)


def test_metrics_describe_themselves(metric, capsys):
    assert metric.name.startswith("Confidence")
    assert metric.score_direction.name in ("LOWER", "HIGHER")
    assert metric.evaluation_category.name == "FAITHFULNESS"
    assert quantus.helpers.enums.ModelType.TORCH in metric.model_applicability
    assert {part.name for part in metric.data_applicability} == {"IMAGE", "TEXT", "TABULAR"}
    metric().interpret_scores()
    assert "scores are better" in capsys.readouterr().out


def test_aggregates(metric, images):
    model, x, y = images
    a = explain(model, x, y, layer=LAYER)
    each = metric()(model, x, y, a)
    assert metric(return_aggregate=True)(model, x, y, a) == [pytest.approx(np.mean(each))]


@pytest.mark.parametrize("method", ready_methods())
def test_every_method_explains_an_image(method, images):
    model, x, y = images
    options = {"n_masks": 20} if method == "rise" else {}
    if METHODS[method].start == "fitted":
        with pytest.raises(ValueError, match=f"'{method}' starts at statistics; give `"):
            explain(model, x[:2], y[:2], method=method, layer=LAYER)
        statistics = LayerStatistics.fit(model, LAYER, [torch.as_tensor(x)])
        options = METHODS[method].taken(layer_baselines=statistics, prior=statistics)
    a = explain(model, x[:2], y[:2], method=method, layer=LAYER, **options)
    assert a.shape == (2, 1, 32, 32)
    assert a.dtype == np.float32
    assert np.isfinite(a).all()
    assert a.std() > 0


def test_nib_starts_at_a_blank_input_and_its_class_at_the_zero_latent(images):
    model, x, y = images
    options = {"layer": LAYER, "n_steps": 3}
    nib, zero, kind = (
        explain(model, x[:2], y[:2], method, **options)
        for method in ("nib", "nib-zero", "NarrowingIB")
    )
    np.testing.assert_array_equal(zero, kind)
    blank = explain(model, x[:2], y[:2], "NarrowingIB", **options, baselines=0)
    np.testing.assert_array_equal(nib, blank)
    assert not np.allclose(nib, zero)


@pytest.mark.parametrize(
    ("method", "layer"),
    [
        ("Saliency", None),
        ("IntegratedGradients", None),
        ("LayerGradientXActivation", LAYER),
        ("RISE", None),
        ("LayerRISE", LAYER),
        ("TokenGradCam", LAYER),
    ],
)
def test_classes_of_captum_and_ours_by_name(method, layer, images):
    model, x, y = images
    options = {"n_masks": 20} if "RISE" in method else {}
    a = explain(model, x[:2], y[:2], method=method, layer=layer, **options)
    assert a.shape == (2, 1, 32, 32)
    if method == "Saliency":
        direct = Saliency(model).attribute(torch.as_tensor(x[:2]), target=torch.as_tensor(y[:2]))
        np.testing.assert_allclose(a[:, 0], direct.sum(1), atol=1e-6)


def test_rise_masks_the_layer_or_without_one_the_input(images):
    model, x, y = images
    short, name = (explain(model, x[:1], y[:1], m, LAYER, n_masks=20) for m in ("rise", "RISE"))
    np.testing.assert_allclose(short, name)
    layer = explain(model, x[:1], y[:1], "LayerRISE", LAYER, n_masks=20)
    np.testing.assert_allclose(short, layer)
    inputs = explain(model, x[:1], y[:1], "rise", n_masks=20)
    direct = RISE(model).attribute(torch.as_tensor(x[:1]), target=int(y[0]), n_masks=20)
    np.testing.assert_allclose(inputs, direct, atol=1e-6)
    with pytest.raises(ValueError, match="`layer` must name a module"):
        explain(model, x[:1], y[:1], "LayerRISE")


def test_constructor_options_reach_the_constructor(images):
    model, x, y = images
    both = [
        explain(model, x[:1], y[:1], "chefer", "model.vision_model.encoder", start_layer=start)
        for start in (0, -1)
    ]
    assert not np.allclose(*both)


@pytest.fixture(scope="module")
def table():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(7, 16), nn.Tanh(), nn.Linear(16, 3)).eval()
    x = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    return model, x, np.array([0, 1, 2, 0, 1])


def test_a_table_is_explained_feature_by_feature(table):
    model, x, y = table
    inputs, targets = torch.as_tensor(x), torch.as_tensor(y)
    found = explain(model, x, y, "IntegratedGradients", n_steps=20)
    expected = IntegratedGradients(model).attribute(inputs, target=targets, n_steps=20)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    masked = explain(model, x, y, "rise", n_masks=500)
    np.testing.assert_allclose(masked, RISE(model).attribute(inputs, target=targets, n_masks=500))
    options = {"layer": "0", "attribute_to_layer_input": True, "method": "NarrowingIB"}
    narrowed = explain(model, x, y, n_steps=20, **options)
    path = torch.linspace(0.05, 1, 20)[:, None, None] * inputs  # the right ends of twenty steps
    path.requires_grad_()
    scores = model(path)[:, torch.arange(5), targets].sum()
    (gradient,) = torch.autograd.grad(scores, path)
    np.testing.assert_allclose(narrowed, (gradient.mean(0) * inputs).numpy(), atol=1e-5)


@pytest.mark.parametrize("layer", ["0", "1", "2"])
def test_a_layer_that_does_not_hold_the_features_is_refused(layer, table):
    model, x, y = table
    with pytest.raises(ValueError, match=rf"`layer` '{layer}' holds .* not the features \(5, 7\)"):
        explain(model, x, y, layer=layer)


def test_a_square_layer_does_not_pass_for_the_features():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with pytest.raises(ValueError, match="not the features"):
        explain(model, np.ones((2, 4), np.float32), np.array([0, 1]), layer="0")


def test_other_inputs_are_refused(table):
    model, _, y = table
    with pytest.raises(ValueError, match=r"`inputs` must be .* got shape \(5, 1, 2, 2, 2\)"):
        explain(model, np.zeros((5, 1, 2, 2, 2)), y, "Saliency")


def test_metrics_of_quantus_judge_a_table(table):
    model, x, y = table
    options = {"method": "IntegratedGradients"}
    judge = quantus.FaithfulnessEstimate(
        features_in_step=1, perturb_baseline=0.0, disable_warnings=True
    )
    found = judge(model, x, y, explain_func=explain, explain_func_kwargs=options)
    assert np.isfinite(found).all()
    # Of a linear model, what a feature brings is just its attribution.
    linear = nn.Linear(7, 3).eval()
    perfect = judge(linear, x, y, explain_func=explain, explain_func_kwargs=options)
    np.testing.assert_allclose(perfect, 1, atol=1e-4)
    options["method"] = "rise"
    sampled = judge(linear, x, y, explain_func=explain, explain_func_kwargs=options)
    assert np.min(sampled) > 0.95


def test_confidence_of_a_table_is_taken_feature_by_feature(metric, table):
    model, x, y = table
    a = explain(model, x, y, "IntegratedGradients")
    low, high = a.min(1, keepdims=True), a.max(1, keepdims=True)
    with torch.no_grad():
        before = model(torch.as_tensor(x)).numpy()[np.arange(5), y]
        after = model(torch.as_tensor(x * (a - low) / (high - low))).numpy()[np.arange(5), y]
    lost = 100 * np.maximum(before - after, 0)
    expected = lost if metric is ConfidenceDrop else 100.0 * (after > before)
    np.testing.assert_allclose(metric()(model, x, y, a), expected, atol=1e-3)


def test_the_metrics_are_listed():
    import pydoc

    assert {"ConfidenceDrop", "ConfidenceIncrease", "explain"} <= set(dir(metrics))
    text = pydoc.plain(pydoc.render_doc(metrics))
    assert "class ConfidenceDrop(" in text
    assert "class ConfidenceIncrease(" in text


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"layer": "model.nothing"}, ValueError, "`layer` must name a module.*'model.nothing'"),
        ({}, ValueError, "`layer` must name a module of ImageTextSimilarity, such as 'model'"),
        ({"layer": nn.ReLU()}, TypeError, "`layer` must be a dotted name, got a ReLU"),
        ({"method": "magic"}, ValueError, "`method` must be one of nib, nib-zero.*got 'magic'"),
        ({"method": "InfoNCEDecomposition"}, ValueError, "`method` infonce must be fitted before"),
        ({"layer": LAYER, "steps": 3}, TypeError, "NarrowingIB takes no argument 'steps'"),
    ],
)
def test_bad_arguments_of_explain(images, options, error, words):
    model, x, y = images
    with pytest.raises(error, match=words):
        explain(model, x, y, **options)


def test_tensors_are_refused_up_front(metric, images):
    model, x, y = images
    with pytest.raises(TypeError, match="`x_batch` must be a numpy array, got a tensor"):
        metric()(model, torch.as_tensor(x), y, np.ones((6, 1, 32, 32)))


def test_without_quantus_the_functions_remain():
    code = (
        "import sys; sys.modules['quantus'] = None\n"
        "from captum_mi import metrics\n"
        "assert metrics.confidence_drop\n"
        "try:\n    metrics.ConfidenceDrop\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "need quantus (pip install quantus)" in done.stdout


def test_nib_moves_the_words_of_a_text_alone(texts):
    model, x, y = texts
    scores = explain(model, x, y, "nib", layer="tokens", n_steps=2)[:, 0]
    special = model.special.numpy()
    assert (scores[special] == 0).all()
    assert (np.abs(scores[~special]) > 0).all()
