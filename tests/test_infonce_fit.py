"""Fitting a decomposition: what it leaves alone, what it refuses, whose models and loaders."""

import warnings
from collections import Counter

import pytest
import torch
from families import build
from helpers import snapshot
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from captum_mi import InfoNCEDecomposition
from captum_mi.estimators.critics import Critic
from captum_mi.models import ImageTextSimilarity, blocks

SEEDED = torch.Generator().manual_seed(0)
IMAGES = torch.randn(40, 3, 8, 8, generator=SEEDED)
LABELS = torch.randint(5, (40,), generator=SEEDED)
COMPONENTS = ("total", "decision", "redundant")


def network(dtype=torch.float32):
    """A layer with an in-place ReLU and batch statistics behind it, and five classes."""
    torch.manual_seed(1)
    return (
        nn.Sequential(
            nn.Conv2d(3, 6, 4, 4),
            nn.BatchNorm2d(6),
            nn.Conv2d(6, 6, 1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(24, 8),
            nn.Tanh(),
            nn.Linear(8, 5),
        )
        .to(dtype)
        .eval()
    )


def decomposition(model=None, **options):
    model = model or network()
    return InfoNCEDecomposition(model, model[2], model[6], **({"hidden": 8} | options))


def batches(size=10, images=IMAGES, labels=LABELS):
    return list(zip(images.split(size), labels.split(size), strict=True))


def fitted(model=None, loader=None, *, epochs=1, validation=0.25, seed=0, **options):
    method = decomposition(model, **options)
    method.fit(batches() if loader is None else loader, epochs, validation=validation, seed=seed)
    return method


def same(one, other):
    first, second = one.decompose(IMAGES), other.decompose(IMAGES)
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in COMPONENTS)


def state_of(model):
    """Every number of a model, bit by bit, and what else might change."""
    numbers = {name: value.clone() for name, value in model.state_dict().items()}
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return numbers | {f"{name}.grad": grad for name, grad in grads.items()}, snapshot(model)


def assert_as_before(model, before):
    numbers, rest = state_of(model)
    assert numbers.keys() == before[0].keys()
    for name, value in numbers.items():
        assert torch.equal(value, before[0][name]), name
    assert rest == before[1]


def test_the_model_stays_as_it_is_to_the_bit():
    model = network()
    model[0].weight.grad = torch.randn_like(model[0].weight)
    model[7].bias.requires_grad_(False)
    before, random = state_of(model), torch.get_rng_state()
    loader = DataLoader(TensorDataset(IMAGES, LABELS), 10, shuffle=True)
    method = decomposition(model)
    method.fit(loader, epochs=2, validation=0.2)
    method.attribute(IMAGES)
    method.information([IMAGES])
    assert_as_before(model, before)
    assert torch.equal(torch.get_rng_state(), random)


def test_in_training_mode_it_is_refused_before_anything_changes():
    model = network().train()
    before = state_of(model)
    with pytest.raises(RuntimeError, match=r"'1' \(BatchNorm2d\) is in training mode.*eval\(\)"):
        fitted(model)
    hidden = decomposition(model)
    hidden.forward_func = lambda x: model(x)  # does not show its modules
    with pytest.raises(RuntimeError, match=r"BatchNorm2d is in training mode"):
        hidden.fit(batches(), 1, validation=0.25)
    assert_as_before(model, before)
    method = fitted(model.eval())
    model.train()
    for call in (method.attribute, lambda images: method.information([images])):
        with pytest.raises(RuntimeError, match="is in training mode"):
            call(IMAGES)
    assert_as_before(model, before)


def test_one_pass_for_all_maps_that_ends_at_the_global_layer():
    model, calls = network(), Counter()
    method = fitted(model)

    def count(i):
        assert not torch.is_grad_enabled()
        calls.update([i])

    for i, module in enumerate(model):
        module.register_forward_hook(lambda *_, i=i: count(i))
    method.decompose(IMAGES)
    assert calls == dict.fromkeys(range(7), 1)
    method.attribute(IMAGES, component="decision")
    assert calls == dict.fromkeys(range(7), 2)


def test_the_same_seed_fits_the_same_and_another_another():
    loader = DataLoader(TensorDataset(IMAGES, LABELS), 8)
    first, again, other = (
        fitted(loader=loader, epochs=2, seed=seed, validation=0.2) for seed in (0, 0, 1)
    )
    assert same(first, again)
    assert first.history == again.history
    assert not same(first, other)


def test_the_global_generator_does_not_matter():
    first = fitted()
    torch.manual_seed(123)
    assert same(first, fitted())


def test_history_has_an_entry_for_each_epoch_and_patience_ends_it():
    method = decomposition()
    history = method.fit(batches(), 3, validation=0.25)
    assert [entry.step for entry in history] == [3, 6, 9]
    assert method.history is history
    assert len({entry.error for entry in history}) == 3
    worse = decomposition().fit(batches(), 40, validation=0.25, patience=2, learning_rate=0.1)
    errors = [entry.error for entry in worse]
    assert len(errors) < 40
    assert min(errors[-2:]) >= min(errors[:-2])


def test_the_state_of_the_best_epoch_is_kept():
    options = {"validation": 0.25, "learning_rate": 0.1}
    method = decomposition()
    errors = [entry.error for entry in method.fit(batches(), 10, **options)]
    assert errors[-1] > min(errors) + 0.2
    again = decomposition()
    assert len(again.fit(batches(), 10, patience=3, **options)) < 10
    assert same(method, again)


def test_noise_is_new_in_each_epoch_and_the_same_for_held_out_images():
    history = decomposition().fit(batches(), 4, validation=0.25, learning_rate=1e-12)
    losses, errors = [entry.loss for entry in history], [entry.error for entry in history]
    assert max(errors) - min(errors) < 1e-6
    assert len({round(loss, 5) for loss in losses}) == 4


def test_the_seed_draws_the_weights():
    first, other = (decomposition() for _ in range(2))
    for seed, method in enumerate((first, other)):
        method.fit(batches(), 1, validation=0.25, learning_rate=1e-12, seed=seed)
    for one, two in zip(first._networks.parameters(), other._networks.parameters(), strict=True):
        assert (one - two).abs().max() > 1e-3


def test_samples_held_out_may_come_from_a_loader_of_their_own():
    kept, held_out = batches()[:3], batches()[3:]
    by_share, by_list = fitted(validation=0.25), fitted(loader=kept, validation=held_out)
    assert same(by_share, by_list)
    by_loader = fitted(
        loader=DataLoader(TensorDataset(IMAGES[:30], LABELS[:30]), 10),
        validation=DataLoader(TensorDataset(IMAGES[30:], LABELS[30:]), 10),
    )
    assert same(by_share, by_loader)


class Stream(IterableDataset):
    def __iter__(self):
        return zip(IMAGES, LABELS, strict=True)


class Folder(Dataset):
    """Samples as mappings, as those of Hugging Face are."""

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, i):
        return {"pixel_values": IMAGES[i], "labels": LABELS[i]}


def test_streams_and_workers_and_mappings():
    expected = fitted(validation=batches())
    assert same(expected, fitted(loader=DataLoader(Stream(), 10), validation=batches()))
    assert same(expected, fitted(loader=DataLoader(Folder(), 10), validation=batches()))
    parallel = DataLoader(Folder(), 10, num_workers=1)
    assert same(expected, fitted(loader=parallel, validation=batches()))


def test_without_labels_the_models_decisions_are_taken():
    model = network()
    decisions = model(IMAGES).argmax(1)
    given = fitted(model, batches(labels=decisions))
    assert same(given, fitted(model, list(IMAGES.split(10))))
    assert not same(given, fitted(model))


def test_negatives_are_as_many_of_each_place():
    method = decomposition()
    method.fit(batches(), 1, validation=0.5, n_negatives=24)
    networks = method._networks
    assert networks.total.negatives.shape == (24, 8)
    x, _ = networks.read(*method._layers.values(IMAGES[20:]))
    known = networks.total.critic.embed_local(networks.standardized(x))  # (20, 4, 8)
    distances = (networks.total.negatives[:, None, None] - known).abs().amax(-1).flatten(1)
    nearest = distances.argmin(1)
    assert distances.amin(1).max() < 1e-5
    assert torch.bincount(nearest % 4).tolist() == [6] * 4
    assert len(nearest.unique()) == 24
    assert not torch.equal(*(nearest[nearest % 4 == k] // 4 for k in (0, 1)))  # drawn for each
    whole = networks.decision.critic.embed_local(networks.standardized(x))
    passed = networks.decision.negatives[:, None, None]  # places as they are behind the mask
    assert (passed - whole).abs().amax(-1).amin() > 1e-4


def test_scores_at_once_bound_the_memory_of_training_and_change_nothing(monkeypatch):
    sizes, crossed = [], {}
    for kind in Critic.__subclasses__():
        crossed[kind] = kind.crossed

        def recorded(self, z, x, kind=kind):
            sizes.append(len(z) * len(x) * self.numbers_per_pair)
            return crossed[kind](self, z, x)

        monkeypatch.setattr(kind, "crossed", recorded)
    for critic in ("separable", "concat"):
        whole = fitted(critic=critic)
        largest = max(sizes)
        sizes.clear()
        parts = fitted(critic=critic, scores_at_once=largest // 4)
        parts.attribute(IMAGES)
        assert largest // 8 < max(sizes) <= largest // 4
        sizes.clear()
        torch.testing.assert_close(parts.attribute(IMAGES), whole.attribute(IMAGES))


def test_models_in_other_precisions():
    expected = fitted().attribute(IMAGES)
    for dtype, tolerance in ((torch.float64, 1e-4), (torch.bfloat16, 0.2)):
        loader = batches(images=IMAGES.to(dtype))
        method = fitted(network(dtype), loader)
        found = method.attribute(IMAGES.to(dtype))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_a_function_as_the_model_and_a_bound_method():
    model = network()
    expected = fitted(model)
    for run in (lambda x: model(x), model.forward):
        method = decomposition(model)
        method.forward_func = run
        method.fit(batches(), 1, validation=0.25)
        assert same(method, expected)


def test_callers_without_gradients_fit_the_same():
    model = network()
    expected = fitted(model)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            method = fitted(model)
            assert same(method, expected)
        assert same(method, expected)


def test_a_model_that_runs_without_gradients_is_refused():
    model = network()
    method = decomposition(model)
    method.forward_func = torch.inference_mode()(model.forward)
    with pytest.raises(ValueError, match=r"runs without gradients"):
        method.fit(batches(), 1, validation=0.25)


def test_what_runs_in_place_behind_the_layer_does_not_reach_its_values():
    plain = network()
    plain[3] = nn.ReLU()
    assert same(fitted(network()), fitted(plain))


def test_layers_that_fused_code_would_skip():
    """PyTorch runs a transformer layer without gradients in one piece, past its modules."""
    inside = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    model = nn.Sequential(nn.Flatten(2), nn.Linear(64, 6), inside, nn.Flatten(), nn.Linear(18, 5))
    method = InfoNCEDecomposition(model.eval(), inside.norm1, model[4], hidden=8)
    method.fit(batches(), 1, validation=0.25)
    assert method.attribute(IMAGES).shape == (40, 3, 1)


def test_batches_are_brought_to_where_the_weights_are():
    """A function whose layers have no weights shows none: then to where it was fitted."""
    model = network()
    method = InfoNCEDecomposition(model, model[2], model[6], hidden=8)
    assert method._layers.device == torch.device("cpu")
    hidden = InfoNCEDecomposition(lambda x: model(x), model[3], model[6], hidden=8)
    assert hidden._layers.device is None
    hidden.fit(batches(), 1, validation=0.25, device="cpu")
    assert hidden.information(batches()).total.n_samples == 40


@pytest.mark.parametrize("critic", ["separable", "concat"])
@pytest.mark.parametrize("place_aware", [True, False])
def test_tokens_of_a_transformer(critic, place_aware):
    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, ["a red circle", "a heart"]).eval()
    layer, last = blocks(model, "image")[1], model.vision_model.post_layernorm
    method = InfoNCEDecomposition(
        similarity, layer, last, hidden=8, critic=critic, place_aware=place_aware
    )
    pixels = torch.randn(24, 3, 32, 32)
    before = state_of(similarity)
    method.fit(list(pixels.split(6)), 2, validation=0.25)
    maps = method.decompose(pixels[:5])
    assert_as_before(similarity, before)
    for name in (*COMPONENTS, "mask"):
        found = getattr(maps, name)
        assert found.shape == (5, 17, 1)
        assert not found[:, 0].any()
        assert found[:, 1:].abs().amin() > 0
    information = method.information([pixels])
    assert information.total.value == pytest.approx(
        float(information.maps.total[:, 1:].mean()), abs=1e-6
    )


def test_behind_the_mask_the_prefix_has_its_mean():
    """Else it would carry what the places lost."""
    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, ["a red circle", "a heart"]).eval()
    layer, last = blocks(model, "image")[1], model.vision_model.post_layernorm
    pixels, seen = torch.randn(12, 3, 32, 32), []
    handle = blocks(model, "image")[2].register_forward_pre_hook(
        lambda _module, args, kwargs: seen.append((args or (kwargs["hidden_states"],))[0].detach()),
        with_kwargs=True,
    )
    InfoNCEDecomposition(similarity, layer, last, hidden=8).fit(
        list(pixels.split(4)), 1, validation=0.3
    )
    handle.remove()
    prefixes = [each[:, 0] for each in seen if len(each) == 4]
    alike = [each for each in prefixes if torch.equal(each, each[:1].expand(4, -1))]
    assert alike
    with torch.no_grad():
        handle = layer.register_forward_hook(lambda _m, _a, output: seen.append(output))
        similarity(pixels[:8])
        handle.remove()
    output = seen[-1] if isinstance(seen[-1], torch.Tensor) else seen[-1][0]
    torch.testing.assert_close(alike[0][0], output[:, 0].mean(0), atol=1e-5, rtol=1e-5)


def test_another_task_reads_the_output_and_what_the_loader_gives():
    seen = []

    def near(output, targets):
        seen.append(targets)
        return -(output[:, 0] - targets).square()

    targets = IMAGES.mean((1, 2, 3))
    fitted(loader=batches(labels=targets), log_likelihood=near)
    assert torch.equal(seen[0], targets[30:])

    def alone(output, targets):
        seen.append(targets)
        return output

    model = network()
    method = decomposition(model, log_likelihood=alone)
    method.forward_func = lambda x: model(x)[:, 0]
    method.fit(list(IMAGES.split(10)), 1, validation=0.25)
    assert seen[-1] is None


def test_a_model_may_bring_its_task():
    class Own(nn.Sequential):
        def log_likelihood(self, output, labels):
            calls.append(len(labels))
            return output[:, 0]

    calls = []
    model = Own(*network()).eval()
    for run in (model, model.forward):
        method = decomposition(model)
        method.forward_func = run
        method.fit(batches(), 1, validation=0.25)
        assert calls
        calls.clear()
    fitted(model, log_likelihood=lambda output, labels: output[:, 1])
    assert not calls


def test_classes_of_a_folder_that_are_not_the_models_are_told():
    model = network()
    with torch.no_grad():
        model[7].weight.mul_(30)  # a decided model
    right = model(IMAGES).argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(model, batches(labels=right))
    words = r"of the labels is \d+\.\d nats below that of guessing; `loader` must number them"
    with pytest.warns(UserWarning, match=words) as warned:
        fitted(model, batches(labels=(right + 1) % 5))
    assert warned[0].filename == __file__


WRONG = {
    "a layer by name": (
        TypeError,
        "`layer` must be a module, got str; take one by its name",
        lambda m: InfoNCEDecomposition(m, "2", m[6]),
    ),
    "a global layer by name": (
        TypeError,
        "`global_layer` must be a module, got str",
        lambda m: InfoNCEDecomposition(m, m[2], "6"),
    ),
    "one layer twice": (
        ValueError,
        "`global_layer` must be a later layer than `layer`",
        lambda m: InfoNCEDecomposition(m, m[2], m[2]),
    ),
    "critic": (ValueError, "`critic` must be one of", lambda m: decomposition(m, critic="mlp")),
    "mask": (ValueError, "`mask` must be one of", lambda m: decomposition(m, mask="5x5")),
    "hidden": (ValueError, "`hidden` must be at least 1", lambda m: decomposition(m, hidden=0)),
    "beta": (ValueError, "`beta` must be positive", lambda m: decomposition(m, beta=-1.0)),
    "scores": (
        ValueError,
        "`scores_at_once` must be at least 1",
        lambda m: decomposition(m, scores_at_once=0),
    ),
    "epochs": (ValueError, "`epochs` must be at least 1", lambda m: fitted(m, epochs=0)),
    "patience": (
        ValueError,
        "`patience` must be at least 1",
        lambda m: decomposition(m).fit(batches(), 1, patience=0),
    ),
    "negatives": (
        ValueError,
        "`n_negatives` must be at least 1",
        lambda m: decomposition(m).fit(batches(), 1, n_negatives=0),
    ),
    "learning rate": (
        ValueError,
        "`learning_rate` must be positive",
        lambda m: decomposition(m).fit(batches(), 1, learning_rate=0.0),
    ),
    "component": (
        ValueError,
        "`component` must be one of 'total', 'decision', 'redundant', got 'rest'",
        lambda m: fitted(m).attribute(IMAGES, component="rest"),
    ),
    "layers in the wrong order": (
        ValueError,
        r"'6' \(Tanh\) fired 0 times before `global_layer` '2' .*`layer` comes first",
        lambda m: InfoNCEDecomposition(m, m[6], m[2]).fit(batches(), 1, validation=0.25),
    ),
    "a layer without places": (
        ValueError,
        r"'5' \(Linear\) must have places .*choose an earlier",
        lambda m: InfoNCEDecomposition(m, m[5], m[6]).fit(batches(), 1, validation=0.25),
    ),
    "a layer of another model": (
        ValueError,
        "Tanh did not fire; is it part of this model",
        lambda m: InfoNCEDecomposition(m, m[2], nn.Tanh()).fit(batches(), 1, validation=0.25),
    ),
    "3x3 on tokens": (
        ValueError,
        "`mask` 'conv3x3' needs a layer of maps",
        lambda _: tokens(mask="conv3x3"),
    ),
    "a generator": (
        TypeError,
        "give `validation` a loader of its own",
        lambda m: fitted(m, iter(batches())),
    ),
    "a generator with a loader to validate": (
        ValueError,
        "`loader` gave no batch; give a DataLoader or a list",
        lambda m: fitted(m, iter(batches()), validation=batches()),
    ),
    "a generator to validate": (
        ValueError,
        "`validation` gave no batch; give a DataLoader or a list",
        lambda m: fitted(m, validation=iter(batches())),
    ),
    "nothing to validate": (
        ValueError,
        "`validation` gave no batch",
        lambda m: fitted(m, validation=[]),
    ),
    "batches of one": (
        ValueError,
        "`loader` must give batches of at least two inputs, .* got one of 1; set its `drop_last`",
        lambda m: fitted(m, batches(1)),
    ),
    "one to validate": (
        ValueError,
        "`validation` must give batches of at least two inputs",
        lambda m: fitted(m, validation=[(IMAGES[:1], LABELS[:1])]),
    ),
    "no number": (
        ValueError,
        r"layer '2' \(Conv2d\) holds NaN or infinity",
        lambda m: fitted(m, batches(images=IMAGES / (IMAGES > -1))),
    ),
    "no number to explain": (
        ValueError,
        r"layer '2' \(Conv2d\) holds NaN or infinity",
        lambda m: fitted(m).attribute(IMAGES * float("nan")),
    ),
    "labels of more classes": (
        ValueError,
        "labels of 0 to 4, the model's classes, got 0 to 9",
        lambda m: fitted(m, batches(labels=torch.arange(40) % 10)),
    ),
    "negative labels": (
        ValueError,
        "labels of 0 to 4, .*got -1 to",
        lambda m: fitted(m, batches(labels=LABELS - 1)),
    ),
    "labels in codes": (
        ValueError,
        r"one integer label for each of 10 inputs, got a tensor of shape \(10, 5\)",
        lambda m: fitted(m, batches(labels=nn.functional.one_hot(LABELS, 5))),
    ),
    "numbers as labels": (
        ValueError,
        "must give integer labels, got torch.float32; or give `log_likelihood`",
        lambda m: fitted(m, batches(labels=LABELS / 7)),
    ),
    "words as labels": (
        ValueError,
        r"one integer label for each of 10 inputs, got \['a'",
        lambda m: fitted(m, [(images, ["a"] * 10) for images in IMAGES.split(10)]),
    ),
    "a likelihood of the whole batch": (
        ValueError,
        r"`log_likelihood` must return one number for each of 10 rows, got a tensor of shape \(\)",
        lambda m: fitted(m, log_likelihood=lambda output, labels: output.mean()),
    ),
    "a likelihood that is a number": (
        ValueError,
        "must return one number for each of 10 rows, got 1.0",
        lambda m: fitted(m, log_likelihood=lambda output, labels: 1.0),
    ),
    "a likelihood without gradients": (
        ValueError,
        "`log_likelihood` must let gradients through",
        lambda m: fitted(m, log_likelihood=lambda output, labels: output.detach()[:, 0]),
    ),
    "a score without classes": (
        ValueError,
        r"`log_likelihood` must be given for a model that returns \(10, 1\)",
        lambda m: fitted(nn.Sequential(*m, nn.Linear(5, 1)).eval()),
    ),
}


def tokens(**options):
    model = nn.Sequential(nn.Flatten(2), nn.Linear(64, 6), nn.Flatten(), nn.Linear(18, 5)).eval()
    method = InfoNCEDecomposition(model, model[1], model[3], **options)
    method.fit(batches(), 1, validation=0.25)


@pytest.mark.parametrize(("error", "words", "call"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_refused_in_words_and_leaves_the_model(error, words, call):
    model = network()
    before = state_of(model)
    with pytest.raises(error, match=words):
        call(model)
    assert_as_before(model, before)


class Twice(nn.Module):
    """One ReLU in two places, and a pool that is called twice."""

    def __init__(self):
        super().__init__()
        self.first, self.relu = nn.Conv2d(3, 6, 4, 4), nn.ReLU()
        self.last, self.pool = nn.Conv2d(6, 6, 1), nn.Flatten()
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        x = self.relu(self.last(self.relu(self.first(x))))
        return self.head(self.pool(x) + self.pool(x))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("relu", "head"), r"layer 'relu' \(ReLU\) fired 2 times before `global_layer` 'head'"),
        (("first", "pool"), r"`global_layer` 'pool' \(Flatten\) fired 2 times in one pass"),
    ],
)
def test_a_layer_that_runs_twice_is_refused(names, words):
    model = Twice().eval()
    method = InfoNCEDecomposition(model, *map(model.get_submodule, names))
    with pytest.raises(ValueError, match=words):
        method.fit(batches(), 1, validation=0.25)


def test_before_fit_it_is_an_error(tmp_path):
    method = decomposition()
    for call in (
        lambda: method.attribute(IMAGES),
        lambda: method.decompose(IMAGES),
        lambda: method.information([IMAGES]),
        lambda: method.save(tmp_path / "nothing"),
    ):
        with pytest.raises(RuntimeError, match=r"is not fitted; call fit\(loader\) first"):
            call()
    assert not list(tmp_path.iterdir())


def test_a_fit_that_fails_leaves_the_one_before():
    method = fitted()
    before, history = method.attribute(IMAGES), method.history
    with pytest.raises(ValueError, match="of 0 to 4"):
        method.fit(batches(labels=LABELS + 9), 1, validation=0.25)
    assert torch.equal(method.attribute(IMAGES), before)
    assert method.history is history


def test_other_shapes_than_those_fitted_are_refused():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
    ).eval()
    wide = torch.randn(10, 3, 12, 8)
    method = InfoNCEDecomposition(model, model[0], model[2], hidden=8)
    words = r"`layer` has \(6, 3, 2\) for these inputs, but was fitted on \(6, 2, 2\); give inputs"
    for loader, validation in (([*batches(), wide], batches()), (batches(), [wide])):
        with pytest.raises(ValueError, match=words):
            method.fit(loader, 1, validation=validation)
    method.fit(batches(), 1, validation=0.25)
    with pytest.raises(ValueError, match=words):
        method.attribute(wide)
    with pytest.raises(ValueError, match=words):
        method.information([wide])
    method.global_layer = model[3]
    with pytest.raises(ValueError, match=r"`global_layer` has 5 numbers .* fitted on 6"):
        method.attribute(IMAGES)


def test_information_takes_two_images():
    method = fitted()
    with pytest.raises(ValueError, match="at least two images"):
        method.information([IMAGES[:1]])
    with pytest.raises(ValueError, match="at least two images"):
        method.information([])
    assert method.information([IMAGES[:1], IMAGES[1:2]]).total.n_samples == 2


def test_an_element_that_never_changes_does_no_harm():
    """Nor does rounding in it, which is no deviation."""
    model = network()
    with torch.no_grad():
        model[2].weight[0], model[2].bias[0] = 0.0, 0.1
        model[5].weight[0], model[5].bias[0] = 0.0, 0.3
    method = fitted(model)
    expected = method.attribute(IMAGES)
    with torch.no_grad():
        model[2].bias[0] += 1e-8
        model[5].bias[0] += 3e-8
    assert expected.isfinite().all()
    torch.testing.assert_close(method.attribute(IMAGES), expected, atol=1e-4, rtol=0)


def test_gradients_of_the_bounds_do_not_reach_the_mask():
    """It is paid for keeping the task alone: without one, and free, it stays as it was drawn."""

    def indifferent(output, _labels):
        return 0.0 * output[:, 0]

    first, last = (fitted(log_likelihood=indifferent, beta=1e-30, epochs=n) for n in (1, 5))
    assert not torch.equal(first.attribute(IMAGES), last.attribute(IMAGES))
    assert torch.equal(first.decompose(IMAGES).mask, last.decompose(IMAGES).mask)
