"""RISE against linear scorers, exact enumeration and rewritings of the published formula."""

import hashlib
import itertools

import numpy as np
import pytest
import torch
from captum.attr._utils.attribution import LayerAttribution, PerturbationAttribution
from captum.metrics import sensitivity_max
from families import build
from helpers import latent_of, replaced
from scipy.stats import chisquare
from torch import nn

from captum_mi.attr import RISE, LayerRISE
from captum_mi.attr._masks import Masks
from captum_mi.attr.rise import APART
from captum_mi.models import ImageTextSimilarity, TextImageSimilarity, blocks, tokenize

REPEATED = "a red circle and a blue heart"  # "a" is at positions 1 and 5, between <bos> and <eos>


class Remembering(nn.Module):
    """Scores ``function(x)`` and keeps every x; on an input of ones the most rows are the masks."""

    def __init__(self, function):
        super().__init__()
        self.entry = nn.Identity()
        self.function = function
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.function(self.entry(x))


def masks_of(shape, **options):
    """The masks RISE draws for one row of this shape, and what it returned."""
    model = Remembering(lambda x: x.flatten(1).sum(1))
    found = RISE(model).attribute(torch.ones(1, *shape), internal_batch_size=10_000, **options)
    return max(model.seen, key=len).double().numpy(), found


def every_mask(places):
    """(2^places, places)."""
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=places)), dtype=torch.float64)


def enumerated(masks, scores, probability):
    """The expectation and the standard deviation of one mask's share in the estimate.

    The estimate is a ratio of means less a mean; its error in large samples is the mean of
    (F - E[F|m_j=1]) m_j / p - (F - E[F]).
    """
    visible = masks.sum(1)
    weights = probability**visible * (1 - probability) ** (masks.shape[1] - visible)
    assert weights.sum().item() == pytest.approx(1)
    mean = (weights * scores).sum()
    given = (weights[:, None] * masks * scores[:, None]).sum(0) / probability
    share = (scores[:, None] - given) * masks / probability - (scores - mean)[:, None]
    return given - mean, (weights[:, None] * share**2).sum(0).sqrt()


def digest(model):
    sums = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        sums.update(name.encode() + value.numpy().tobytes())
    return sums.hexdigest()


def evidence():
    """Eight contributions, 2/7 apart, in random order."""
    return torch.linspace(-1, 1, 8).double()[torch.randperm(8)]


@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_linear_scorer_is_ranked_exactly(offset):
    # The error's deviation is about sqrt(8 * 0.43 * 0.25 / 2000) = 0.02, neighbors lie 0.14 apart.
    x, contributions = torch.rand(1, 8).double() + 0.5, evidence()
    weight = contributions / x[0]
    found = RISE(lambda x: x @ weight + offset).attribute(x, n_masks=4000)
    assert torch.equal(found[0].argsort(), contributions.argsort())
    torch.testing.assert_close(found[0], 0.5 * contributions, rtol=0, atol=0.1)


@pytest.mark.parametrize("probability", [0.2, 0.5, 0.9])
def test_linear_scorer_is_recovered_up_to_scale(probability):
    # E[F | m_j = 1] - E[F] = (1 - p) w_j x_j, for masks of independent places.
    x, contributions = torch.rand(1, 8).double() + 0.5, evidence()
    weight = contributions / x[0]

    def error(n_masks):
        squares = [
            RISE(lambda x: x @ weight).attribute(
                x, n_masks=n_masks, probability=probability, internal_batch_size=20_000, seed=seed
            )[0]
            - (1 - probability) * contributions
            for seed in range(40)
        ]
        return torch.stack(squares).square().mean().sqrt()

    coarse, fine = error(250), error(4000)
    assert fine < 0.1
    # 40 draws of 8 scores: a ratio of 4 with a deviation of some 5 to 10 %.
    assert coarse / fine == pytest.approx(4, rel=0.3)


def test_every_score_has_its_own_ranking_in_a_batch():
    model = nn.Linear(8, 3, bias=False).double()
    x = torch.randn(3, 8).double()
    found = RISE(model).attribute(x, target=[2, 0, 1], n_masks=6000, internal_batch_size=6000)
    expected = 0.5 * model.weight[[2, 0, 1]] * x
    assert expected.abs().amax() > 0.2
    torch.testing.assert_close(found, expected, rtol=0, atol=0.06)


@pytest.mark.parametrize("probability", [0.3, 0.5])
def test_tokens_equal_the_enumeration_of_all_masks(probability):
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()
            self.mix = nn.Linear(6 * 3, 5)
            self.last = nn.Linear(5, 2)

        def forward(self, x):
            return self.last(torch.tanh(2 * self.mix(self.layer(x).flatten(1))))

    model = Tokens().double()
    x = torch.randn(2, 6, 3).double()
    n_masks = 20_000
    found = LayerRISE(model, model.layer).attribute(
        x, target=[0, 1], n_masks=n_masks, probability=probability, internal_batch_size=20_000
    )
    assert found.shape == (2, 6, 1)
    masks = every_mask(6)
    for row in (0, 1):
        with torch.no_grad():
            scores = model(masks[:, :, None] * x[row])[:, row]
        expected, deviation = enumerated(masks, scores, probability)
        error = deviation / n_masks**0.5
        assert expected.abs().amax() > 30 * error.amax()
        assert ((found[row, :, 0] - expected).abs() < 4 * error).all()


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 6, 5)])
@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_formulas_on_the_masks_that_were_drawn(shape, probability):
    options = {"n_masks": 300, "probability": probability, "cells": 3, "seed": 5}
    masks, _ = masks_of(shape, **options)
    assert len(masks) == 300
    # Places of a mask: all but the channels, which share it.
    places = masks[:, 0] if len(shape) == 3 else masks[..., 0] if len(shape) == 2 else masks
    x = torch.randn(1, *shape).double()
    model = nn.Sequential(nn.Flatten(), nn.Linear(x.numel(), 4), nn.Tanh(), nn.Linear(4, 2))
    model = model.double()
    with torch.no_grad():
        scores = model(torch.from_numpy(masks) * x)[:, 1].numpy()
    weighted = np.tensordot(scores, places, 1)
    published = weighted / (300 * probability)
    centered = weighted / places.sum(0) - scores.mean()
    for center, expected in ((False, published), (True, centered)):
        found = RISE(model).attribute(x, target=1, center=center, **options)
        assert np.abs(expected).max() > 1e-2
        found = found[0, 0] if len(shape) == 3 else found[0, :, 0] if len(shape) == 2 else found[0]
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_batch_of_rows_meets_the_same_masks():
    model = Remembering(lambda x: x.flatten(1).sum(1))
    RISE(model).attribute(torch.ones(3, 2, 6, 5), n_masks=10, cells=2, internal_batch_size=6)
    seen = [rows for rows in model.seen if len(rows) == 6]  # others are checks
    assert len(seen) == 5
    masks = torch.cat(seen).reshape(10, 3, 2, 6, 5)
    assert (masks == masks[:, :1, :1]).all()
    assert masks.std(0).mean() > 0.1


def enlarged(grid, height, width):
    """Bilinear enlargement without aligned corners, in numpy: edges are repeated."""
    rows, columns = (
        (np.arange(size) + 0.5) * side / size - 0.5
        for size, side in zip((height, width), grid.shape, strict=True)
    )
    along = np.stack([np.interp(columns, np.arange(grid.shape[1]), row) for row in grid])
    return np.stack([np.interp(rows, np.arange(grid.shape[0]), column) for column in along.T]).T


def test_masks_are_crops_of_enlarged_random_grids():
    # 4 x 4 map of 2 x 2 cells: 16 grids enlarged to 6 x 6, each cropped at 4 places.
    masks, _ = masks_of((1, 4, 4), n_masks=4000, cells=2)
    known, chances = [], []
    for bits in itertools.product([0.0, 1.0], repeat=4):
        large = enlarged(np.array(bits).reshape(2, 2), 6, 6)
        for top, left in itertools.product((0, 1), repeat=2):
            known.append(large[top : top + 4, left : left + 4].ravel())
            chances.append(1 / 64)
    kinds, which = np.unique(np.round(known, 6), axis=0, return_inverse=True)
    expected = np.bincount(which.ravel(), chances) * len(masks)
    distances = np.abs(masks.reshape(-1, 1, 16) - kinds).max(-1)
    assert distances.min(1).max() < 1e-5
    assert (np.sort(distances, axis=1)[:, 1] > 1e-3).all()
    counts = np.bincount(distances.argmin(1), minlength=len(kinds))
    assert chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(
    ("shape", "cells"),
    [
        ((3, 8, 8), 4),
        ((2, 10, 7), 4),
        ((2, 7, 13), 5),
        ((1, 3, 2), 7),
        ((1, 1, 1), 7),
        ((1, 1, 9), 3),
    ],
)
def test_coverage_and_shape_of_masks(shape, cells, probability):
    masks, found = masks_of(shape, n_masks=2000, cells=cells, probability=probability)
    assert masks.shape == (2000, *shape)
    assert found.shape == (1, 1, *shape[1:])
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-6
    # Interpolation averages cells, so no place varies more than a single cell.
    error = (probability * (1 - probability) / 2000) ** 0.5
    np.testing.assert_allclose(masks.mean(0), probability, rtol=0, atol=4.5 * error)
    # Where the map has room for a cell, neighbors share it: masks are smooth.
    if shape[1:] == (10, 7):
        assert np.corrcoef(masks[:, 0, 4, 3], masks[:, 0, 5, 3])[0, 1] > 0.5


def test_tokens_and_features_get_independent_masks():
    for shape in ((6,), (6, 3)):
        masks, _ = masks_of(shape, n_masks=6000, probability=0.3)
        places = masks if len(shape) == 1 else masks[..., 0]
        assert set(np.unique(places)) == {0.0, 1.0}
        correlation = np.corrcoef(places.T) - np.eye(6)
        assert np.abs(correlation).max() < 4.5 / 6000**0.5
        if len(shape) == 2:
            assert (masks == masks[..., :1]).all()


def test_planted_object_has_the_highest_score():
    x = torch.zeros(2, 3, 24, 24)
    x[0, :, 4:8, 14:18] = 1
    x[1, :, 16:20, 2:6] = 1
    found = RISE(lambda x: x.mean((1, 2, 3)) * 36 + 7).attribute(x, n_masks=2000, cells=6)[:, 0]
    objects = found[0, 4:8, 14:18], found[1, 16:20, 2:6]
    # In the other image's place there is nothing but noise: masks so far apart are independent.
    nothing = found[0, 16:20, 2:6], found[1, 4:8, 14:18]
    for row in (0, 1):
        assert found[row].max() == objects[row].max()
        assert objects[row].min() > 5 * nothing[row].abs().max()


@pytest.mark.parametrize("shape", [(2, 3, 9, 7), (2, 5, 4), (2, 6)])
def test_masking_the_input_is_masking_a_layer_in_front_of_it(shape):
    head = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape)[1:].numel(), 5), nn.Tanh())
    model = nn.Sequential(nn.Identity(), head, nn.Linear(5, 3))
    x = torch.randn(shape)
    options = {"n_masks": 50, "cells": 3, "probability": 0.4, "seed": 3}
    whole = RISE(model).attribute(x, target=[1, 2], **options)
    layer = LayerRISE(model, model[0]).attribute(x, target=[1, 2], **options)
    assert whole.abs().amax() > 1e-3
    torch.testing.assert_close(whole, layer, rtol=1e-5, atol=1e-7)
    before = LayerRISE(model, head).attribute(
        x, target=[1, 2], attribute_to_layer_input=True, **options
    )
    torch.testing.assert_close(whole, before, rtol=1e-5, atol=1e-7)
    other = RISE(model).attribute(x, target=[1, 2], **(options | {"seed": 4}))
    assert not torch.allclose(whole, other)


def test_further_arguments_follow_their_rows():
    def score(x, scale, power, name):
        assert name == "as it is"
        return (x.flatten(1).sum(1) * scale) ** power

    x, scale = torch.rand(3, 2, 4, 4) / 32, torch.tensor([1.0, 2.0, 3.0])
    options = {"n_masks": 30, "cells": 2}
    together = RISE(score).attribute(x, None, (scale, 2, "as it is"), **options)
    for i in range(3):
        alone = RISE(score).attribute(
            x[i : i + 1], None, (scale[i : i + 1], 2, "as it is"), **options
        )
        assert alone.abs().amax() > 1e-3
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-6)


def test_a_place_that_is_always_masked_gets_zero():
    masks, _ = masks_of((40,), n_masks=5, probability=0.1)
    unseen = masks.sum(0) == 0
    assert 5 < unseen.sum() < 40
    found = RISE(nn.Linear(40, 1)).attribute(torch.randn(1, 40), n_masks=5, probability=0.1)
    assert (found[0, unseen] == 0).all()
    assert (found[0, ~unseen] != 0).all()


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 5, 3), (2, 6)])
@pytest.mark.parametrize("shared", [True, False])
def test_places_that_are_kept(shape, shared):
    places = shape[2:] if len(shape) == 4 else shape[1:2]
    keep = torch.rand(places if shared else (2, *places)) < 0.4
    keep.view(-1)[0] = True
    model = Remembering(lambda x: x.flatten(1).sum(1) ** 2)
    found = RISE(model).attribute(torch.ones(shape), n_masks=64, cells=2, keep=keep)
    spread = {2: lambda k: k, 3: lambda k: k[..., None], 4: lambda k: k[..., None, :, :]}
    kept = spread[len(shape)](keep).expand(shape)
    seen = [rows for rows in model.seen if len(rows) == 64]  # others are checks
    masks = torch.cat(seen).reshape(64, *shape)
    assert (masks[:, kept] == 1).all()
    assert (masks[:, ~kept].std(0) > 0).all()
    # The score is 1e2 large, the arithmetic float64: zero but for the last digits.
    one = found if len(shape) == 2 else found[..., 0] if len(shape) == 3 else found[:, 0]
    expanded = keep.expand(2, *places)
    assert one[expanded].abs().max() < 1e-10
    assert one[~expanded].abs().min() > 1e-3


@pytest.fixture(scope="module")
def text():
    model, processor = build("clip")
    similarity = TextImageSimilarity(model, processor, list(torch.rand(2, 3, 32, 32)))
    encoded = tokenize(model, processor, [REPEATED])
    keep = torch.zeros(encoded["input_ids"].shape, dtype=torch.bool)
    keep[:, [0, -1]] = True
    return similarity, encoded, keep


def test_text_equals_the_enumeration_and_treats_a_repeated_word_per_position(text):
    similarity, encoded, keep = text
    ids, attention = encoded["input_ids"], encoded["attention_mask"]
    layer = similarity.model.text_model.embeddings.token_embedding
    assert ids[0, 1] == ids[0, 5]
    before = digest(similarity)
    n_masks = 4000
    found = LayerRISE(similarity, layer).attribute(
        ids, 1, attention, n_masks=n_masks, keep=keep, internal_batch_size=1000
    )
    assert digest(similarity) == before
    assert found.shape == (1, 9, 1)
    # Oracle: the model runs on all 2^7 masks of the words, with an embedding output multiplied.
    masks = torch.ones(128, 9)
    masks[:, 1:-1] = every_mask(7).float()
    with torch.no_grad():
        arguments = (ids.expand(128, -1), attention.expand(128, -1))
        scores = replaced(similarity, layer, arguments, masks[..., None] * layer(ids))[:, 1]
    expected, deviation = enumerated(masks[:, 1:-1].double(), scores.double(), 0.5)
    error = deviation / n_masks**0.5
    assert ((found[0, 1:-1, 0] - expected).abs() < 4 * error).all()
    assert found[0, [0, -1]].abs().max() < 1e-7
    # Both positions of "a": each its own score, apart by far more than the error.
    assert (expected[0] - expected[4]).abs() > 20 * error[[0, 4]].amax()
    assert (found[0, 1, 0] - found[0, 5, 0]).abs() > 15 * error[[0, 4]].amax()


def test_texts_of_a_padded_batch_keep_their_own_tokens(text):
    similarity, _, _ = text
    model, processor = build("clip")
    layer = model.text_model.embeddings.token_embedding
    similarity = TextImageSimilarity(model, processor, list(torch.rand(1, 3, 32, 32)))
    encoded = tokenize(model, processor, [REPEATED, "a red heart"])
    ids = encoded["input_ids"]
    keep = (ids == 0) | (ids == 1) | (ids == 3)
    found = LayerRISE(similarity, layer).attribute(
        ids, 0, encoded["attention_mask"], n_masks=100, keep=keep
    )
    assert found[..., 0][keep].abs().max() < 1e-7
    assert found[..., 0][~keep].abs().min() > 1e-4


def test_blocks_of_an_image_tower_are_masked_token_by_token():
    model, processor = build("clip")
    similarity = ImageTextSimilarity(model, processor, ["a red circle", "a heart"])
    layer = blocks(model)[1]
    x = torch.randn(2, 3, 32, 32)
    found = LayerRISE(similarity, layer).attribute(x, target=[0, 1], n_masks=40, seed=2)
    masks, _ = masks_of((17, 32), n_masks=40, seed=2)
    value = latent_of(similarity, layer, x)
    scores = torch.stack(
        [
            replaced(similarity, layer, (x,), value * mask)[[0, 1], [0, 1]]
            for mask in torch.from_numpy(masks).float()
        ]
    ).detach()
    places = torch.from_numpy(masks[..., 0]).float()
    expected = torch.einsum("nb,nt->bt", scores, places) / places.sum(0) - scores.mean(0)[:, None]
    assert expected.abs().amax() > 1e-2
    torch.testing.assert_close(found[..., 0], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"n_masks": 0}, ValueError, r"`n_masks` must be at least 1, got 0"),
        ({"n_masks": 2.0}, TypeError, r"`n_masks` must be an integer, got 2.0"),
        ({"cells": 0}, ValueError, r"`cells` must be at least 1, got 0"),
        ({"probability": 0.0}, ValueError, r"`probability` must be between 0 and 1, got 0.0"),
        ({"probability": 1.0}, ValueError, r"`probability` must be between 0 and 1, got 1.0"),
        ({"internal_batch_size": 0}, ValueError, r"`internal_batch_size` must be at least 1"),
        (
            {"keep": torch.ones(2, 3, 4, 4, dtype=torch.bool)},
            ValueError,
            r"`keep` must have shape \(2, 4, 4\) or \(4, 4\), got \(2, 3, 4, 4\)",
        ),
    ],
)
@pytest.mark.parametrize("layer", [None, 0])
def test_bad_arguments(arguments, error, words, layer):
    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(48, 2))
    method = RISE(model) if layer is None else LayerRISE(model, model[layer])
    with pytest.raises(error, match=words):
        method.attribute(torch.randn(2, 3, 4, 4), target=0, **arguments)


def test_what_cannot_be_masked():
    total = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(TypeError, match=r"`inputs` must be floating-point .* got torch.int64"):
        RISE(total).attribute(torch.ones(2, 12, dtype=torch.long), target=0)
    with pytest.raises(ValueError, match=r"`inputs` holds NaN or infinity"):
        RISE(total).attribute(torch.full((2, 12), torch.inf), target=0)
    with pytest.raises(TypeError, match=r"`inputs` must be floating-point .* got list"):
        RISE(total).attribute(([1.0],), target=0)
    with pytest.raises(ValueError, match=r"`inputs` must have one number of rows, got \[2, 3\]"):
        RISE(total).attribute((torch.ones(2, 12), torch.ones(3, 12)), target=0)
    with pytest.raises(ValueError, match=r"RISE masks maps .* got \(2, 1, 1, 2, 2, 3\)"):
        RISE(total).attribute(torch.ones(2, 1, 1, 2, 2, 3), target=0)
    with pytest.raises(AssertionError):
        RISE(total).attribute(torch.ones(2, 12))
    pair = (torch.ones(2, 12), torch.ones(2, 12))
    with pytest.raises(ValueError, match=r"`keep` must be a tuple .* each of the 2 .* got 1"):
        RISE(lambda x, y: x[:, 0]).attribute(pair, keep=torch.ones(12, dtype=torch.bool))


@pytest.mark.parametrize("layer", [None, 0])
def test_nan_from_a_masked_input_is_an_error(layer):
    # The input and the score of it are finite; hidden entirely, its direction is 0 / 0.
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.entry = nn.Identity()

        def forward(self, x):
            x = self.entry(x)
            return (x / x.norm(dim=1, keepdim=True)).sum(1)

    model = Model()
    method = RISE(model) if layer is None else LayerRISE(model, model.entry)
    with pytest.raises(ValueError, match=r"not finite|NaN"):
        method.attribute(torch.ones(1, 4), n_masks=100)


@pytest.mark.parametrize(
    "returned", [lambda x: x.sum(), lambda x: {"logits": x}, lambda x: x.sum(1)[:1]]
)
def test_rise_without_a_layer_names_what_the_model_must_return(returned):
    with pytest.raises((TypeError, ValueError), match=r"`forward_func` must return a tensor"):
        RISE(returned).attribute(torch.ones(2, 4), n_masks=4)


@pytest.mark.parametrize("shape", [(1, 3, 20, 20), (1, 2, 9), (1, 2, 5, 6, 7)])
def test_masks_do_not_depend_on_how_many_are_drawn_at_once(shape):
    options = {"cells": 3, "probability": 0.3, "seed": 5}
    together = Masks(torch.zeros(shape), 1, **options).draw(10)
    parts = Masks(torch.zeros(shape), 1, **options)
    assert together.std() > 0.1
    assert torch.equal(together, torch.cat([parts.draw(3), parts.draw(7)]))


def test_one_explains_inputs_and_the_other_layers():
    model = nn.Sequential(nn.Linear(3, 2))
    assert isinstance(RISE(model), PerturbationAttribution)
    assert not isinstance(RISE(model), LayerAttribution)
    assert isinstance(LayerRISE(model, model[0]), LayerAttribution)
    assert isinstance(LayerRISE(model, model[0], [0]), PerturbationAttribution)
    with pytest.raises(TypeError):
        RISE(model, model[0])


class TwoInputs(nn.Module):
    """Keeps what it is given; on ones these are the masks."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, image, words, scale=None):
        self.seen.append((image.detach().clone(), words.detach().clone()))
        return torch.stack([image.flatten(1).sum(1), image.mean((1, 2, 3)) * words.sum((1, 2))], 1)


def test_several_inputs_are_masked_at_the_same_time_each_by_its_own_masks():
    model = TwoInputs().double()
    shapes = (2, 3, 6, 5), (2, 4, 3)
    ones = tuple(torch.ones(shape).double() for shape in shapes)
    options = {"n_masks": 400, "cells": 3, "probability": 0.4, "seed": 2}
    RISE(model).attribute(ones, target=1, internal_batch_size=800, **options)
    masks = max(model.seen, key=lambda parts: len(parts[0]))
    image_masks, word_masks = (part.unflatten(0, (-1, 2))[:, 0] for part in masks)
    assert len(image_masks) == len(word_masks) == 400
    # Each as if it were alone, so that the first keeps its numbers whatever is masked beside it.
    assert torch.equal(image_masks[:, :1], alone(shapes[0], options))
    apart = options | {"seed": options["seed"] + APART}
    assert torch.equal(word_masks[..., :1], alone(shapes[1], apart))
    image_places, word_places = image_masks[:, 0].flatten(1), word_masks[..., 0]
    correlation = np.corrcoef(image_places.T.numpy(), word_places.T.numpy())[:30, 30:]
    assert np.abs(correlation).max() < 4.5 / 400**0.5
    x = tuple(torch.randn(shape).double() for shape in shapes)
    found = RISE(model).attribute(x, target=1, **options)
    assert isinstance(found, tuple)
    assert [one.shape for one in found] == [(2, 1, 6, 5), (2, 4, 1)]
    for row in (0, 1):
        images, words = image_masks * x[0][row], word_masks * x[1][row]
        scores = images.mean((1, 2, 3)) * words.sum((1, 2))
        for one, places in zip(found, (image_masks[:, 0], word_places), strict=True):
            weighted = torch.tensordot(scores, places, 1)
            expected = weighted / places.sum(0) - scores.mean()
            torch.testing.assert_close(one[row].flatten(), expected.flatten())
    kept = torch.zeros(4, dtype=torch.bool)
    kept[1] = True
    fixed = RISE(model).attribute(x, target=1, keep=(None, kept), **options)
    assert fixed[1][:, 1].abs().max() < 1e-10
    assert fixed[1][:, 0].abs().min() > 1e-3


def alone(shape, options):
    """The masks of an input by itself, one channel."""
    model = Remembering(lambda x: x.flatten(1).sum(1))
    RISE(model).attribute(torch.ones(1, *shape[1:]).double(), internal_batch_size=400, **options)
    masks = max(model.seen, key=len)
    return masks[:, :1] if masks.ndim == 4 else masks[..., :1]


def test_a_tuple_for_a_tuple():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    x = torch.randn(2, 3, 4)
    options = {"target": 1, "n_masks": 20}
    plain = RISE(model).attribute(x, **options)
    (inside,) = RISE(model).attribute((x,), **options)
    assert torch.equal(plain, inside)
    layer = LayerRISE(model, model[0]).attribute((x,), **options)
    assert isinstance(layer, torch.Tensor)


def test_captums_sensitivity_runs_on_it():
    weight = torch.randn(6)
    options = {"n_masks": 30, "internal_batch_size": 1000}
    x = torch.rand(2, 6) + 0.5

    def scaled(inputs, radius):
        return inputs * (1 + radius)

    found = sensitivity_max(
        RISE(lambda x: x @ weight).attribute, x, scaled, 0.25, n_perturb_samples=2, **options
    )
    # The scores of a linear model grow with its input: so does the map, by a quarter.
    torch.testing.assert_close(found, torch.full((2,), 0.25), rtol=1e-4, atol=0)


def with_a_bank(x, bank):
    """Scores against negatives (7, 5), which are no rows of the batch."""
    return x.mean((1, 2, 3)) - (bank @ x.flatten(1)[:, :5].T).exp().sum(0)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_bank_of_negatives_is_not_repeated(batch):
    x, bank = torch.rand(batch, 2, 4, 4), torch.randn(7, 5)
    options = {"n_masks": 20, "cells": 2}
    expected = RISE(lambda x: with_a_bank(x, bank)).attribute(x, **options)
    found = RISE(with_a_bank).attribute(x, None, bank, **options)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_vector_of_weights_is_not_repeated(batch):
    x, weights = torch.rand(batch, 5), torch.randn(5)
    found = RISE(lambda x, w: (x * w).sum(1)).attribute(x, None, weights, n_masks=20)
    expected = RISE(lambda x: (x * weights).sum(1)).attribute(x, n_masks=20)
    torch.testing.assert_close(found, expected)
    single = torch.full((1,), 3.0)  # one row, no axis of its own: a number like any other
    found = RISE(lambda x, w: (x * w).sum(1)).attribute(x, None, single, n_masks=20)
    torch.testing.assert_close(found, RISE(lambda x: 3 * x.sum(1)).attribute(x, n_masks=20))


class Signal(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.Tanh())
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(x).mean(-1))


def test_signals_get_smooth_masks_along_their_length():
    model, x = Signal(), torch.randn(2, 2, 12)
    options = {"target": 1, "n_masks": 40, "cells": 3}
    found = LayerRISE(model, model.body[0]).attribute(x, **options)
    assert found.shape == (2, 1, 12)
    # As a map of one row, on a model that takes it for one.
    flat = LayerRISE(model, model.body[1]).attribute(x, channels_last=False, **options)
    assert flat.shape == (2, 1, 12)
    tokens = LayerRISE(model, model.body[1]).attribute(x, channels_last=True, **options)
    assert tokens.shape == (2, 4, 1)
    with pytest.raises(
        ValueError, match=r"`channels_last` must be given.* \(2, 4, 12\) .*'body.1'"
    ):
        LayerRISE(model, model.body[1]).attribute(x, **options)
    for forward_func in (model, model.forward):
        with pytest.raises(ValueError, match=r"`channels_last` must be given.* layer 'inputs'"):
            RISE(forward_func).attribute(x, **options)
    whole = RISE(model).attribute(x, channels_last=False, **options)
    assert whole.shape == (2, 1, 12)
    masks = masks_of((2, 12), channels_last=False, n_masks=2000, cells=3)[0]
    assert (masks[:, 0] == masks[:, 1]).all()
    assert np.corrcoef(masks[:, 0, 5], masks[:, 0, 6])[0, 1] > 0.5
    np.testing.assert_allclose(masks.mean(0), 0.5, atol=4.5 * 0.5 / 2000**0.5)


def test_maps_that_hold_their_channels_last_are_masked_place_by_place():
    x = torch.randn(2, 3, 8, 6)

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(3, 5), nn.Linear(5 * 48, 2)

        def forward(self, x):
            return self.head(self.layer(x.movedim(1, -1)).flatten(1))

    class First(nn.Module):
        def __init__(self, last):
            super().__init__()
            self.layer, self.head = nn.Conv2d(3, 5, 1), last.head
            self.layer.weight.data = last.layer.weight.data[..., None, None]
            self.layer.bias.data = last.layer.bias.data

        def forward(self, x):
            return self.head(self.layer(x).movedim(1, -1).flatten(1))

    last = Last()
    options = {"target": 1, "n_masks": 30, "cells": 3}
    found = LayerRISE(last, last.layer).attribute(x, **options)
    first = First(last)
    expected = LayerRISE(first, first.layer).attribute(x, **options)
    assert found.shape == (2, 1, 8, 6)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(found, expected)
    inputs = RISE(last).attribute(x, **options)
    images = RISE(lambda x: last(x.movedim(-1, 1))).attribute(
        x.movedim(1, -1), channels_last=True, **options
    )
    torch.testing.assert_close(images, inputs)


def test_the_tensors_of_a_layer_are_masked_together():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x[:, :2].tanh()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = Pair()

        def forward(self, x):
            a, b = self.pair(x)
            return a.sum(1) * b.sum(1)

    model, x = Model(), torch.randn(2, 5)
    found = LayerRISE(model, model.pair).attribute(x, n_masks=30)
    expected = RISE(lambda a, b: a.sum(1) * b.sum(1)).attribute((x, x[:, :2].tanh()), n_masks=30)
    for one, other in zip(found, expected, strict=True):
        assert other.abs().max() > 1e-2
        torch.testing.assert_close(one, other)
