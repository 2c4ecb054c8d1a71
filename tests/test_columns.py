"""Scores of columns and matrices of tables, against scikit-learn and the estimators themselves."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.feature_selection import SelectKBest, mutual_info_classif, mutual_info_regression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from captum_mi.estimators import (
    KSG,
    MixedKSG,
    PlugIn,
    column_information,
    mutual_info,
    mutual_info_matrix,
    permutation_test,
)


@pytest.fixture
def table():
    """Two columns of each kind, those of a pair dependent."""
    rng = np.random.default_rng(0)
    normal, noise = rng.standard_normal((2, 240))
    pet = rng.choice(["cat", "dog", "fish"], 240)
    dry = rng.random(240) < 0.5
    return pd.DataFrame(
        {
            "height": normal,
            "weight": normal + noise,
            "visits": pd.array(rng.poisson(15, 240), dtype="Int64"),
            "rain": np.where(dry, 0, rng.exponential(size=240)),
            "pet": pet,
            "food": np.where(dry, pet, "bread"),
        },
        index=np.arange(240) + 7,
    )


def test_numbers_against_scikit_learn():
    x, noise = np.random.default_rng(0).standard_normal((2, 300, 3))
    y = x[:, 0] + noise[:, 0]
    expected = mutual_info_regression(x, y, random_state=0)
    found = mutual_info(x, y)
    np.testing.assert_allclose(found.clip(0), expected, atol=1e-9)
    np.testing.assert_allclose(mutual_info(torch.from_numpy(x), y.tolist()), found, atol=1e-12)


def test_labels_against_scikit_learn():
    x, noise = np.random.default_rng(0).standard_normal((2, 300, 3))
    y = x[:, 0] + noise[:, 0] > 0
    expected = mutual_info_classif(x, y, random_state=0)
    np.testing.assert_allclose(mutual_info(x, y).clip(0), expected, atol=1e-9)
    names = pd.Series(np.where(y, "a", "b"))
    np.testing.assert_array_equal(mutual_info(x, names), mutual_info(x, y))
    np.testing.assert_array_equal(mutual_info(x, names.astype("category")), mutual_info(x, y))


def test_it_selects_features():
    x, noise = np.random.default_rng(0).standard_normal((2, 200, 5))
    y = x[:, 1] * x[:, 3] > noise[:, 0] / 5
    chain = make_pipeline(StandardScaler(), SelectKBest(mutual_info, k=2)).fit(x, abs(x[:, 2]))
    assert chain[-1].get_support()[2]
    scores = SelectKBest(mutual_info, k=1).fit(x[:, :2], y).scores_
    np.testing.assert_allclose(scores, mutual_info(x[:, :2], y), atol=1e-12)


def test_each_pair_by_its_kinds(table):
    height, rain = table["height"].to_numpy(), table["rain"].to_numpy()
    visits = table["visits"].to_numpy(float)
    found = column_information(table, table["pet"])
    assert list(found.index) == list(table.columns)
    assert list(found["kind"]) == ["continuous", "continuous", "count", "mixed", "label", "label"]
    for name, values in {"height": height, "rain": rain, "visits": visits}.items():
        expected = MixedKSG().estimate_discrete(values, table["pet"])
        assert found["value"][name] == pytest.approx(expected.value, abs=1e-12)
        assert found["std_error"][name] == pytest.approx(expected.std_error, abs=1e-12)
    of_food = PlugIn().estimate(table["food"], table["pet"])
    assert found["value"]["food"] == pytest.approx(of_food.value, abs=1e-12)
    assert found["value"]["pet"] == pytest.approx(PlugIn().entropy(table["pet"]).value)
    assert (found["n_samples"] == 240).all()
    assert "p_value" not in found
    numbers = column_information(table, table["height"])
    expected = MixedKSG().estimate(rain, height)
    assert numbers["value"]["rain"] == pytest.approx(expected.value, abs=1e-12)
    expected = MixedKSG().estimate_discrete(height, table["food"])
    assert numbers["value"]["food"] == pytest.approx(expected.value, abs=1e-12)


def test_what_the_target_is_may_be_said():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(200)
    y = rng.integers(3, size=200)
    as_label = mutual_info(x[:, None], y)
    assert as_label == pytest.approx([MixedKSG().estimate_discrete(x, y).value])
    as_number = mutual_info(x[:, None], y, discrete_target=False)
    assert as_number == pytest.approx([MixedKSG().estimate(x, y).value])
    many = rng.integers(25, size=200)
    counted, labeled = (mutual_info(x[:, None], many, discrete_target=t)[0] for t in (None, True))
    assert counted == pytest.approx(MixedKSG().estimate(x, many).value)
    assert labeled == pytest.approx(MixedKSG().estimate_discrete(x, many).value)


def test_another_estimator(table):
    found = mutual_info(table[["height"]], table["weight"], estimator=KSG(5))
    assert found[0] == KSG(5).estimate(table["height"], table["weight"]).value


def test_what_is_missing_is_left_out(table):
    holes = table.copy()
    holes.loc[[8, 9], "height"] = np.nan
    holes.loc[[9, 10], "visits"] = pd.NA
    holes.loc[[11], "pet"] = None
    found = column_information(holes, holes["pet"])
    assert list(found["n_samples"]) == [237, 239, 237, 239, 239, 239]
    kept = table.drop([8, 9, 11])
    expected = MixedKSG().estimate_discrete(kept["height"], kept["pet"])
    assert found["value"]["height"] == pytest.approx(expected.value, abs=1e-12)


def test_the_matrix(table):
    found = mutual_info_matrix(table, permutations=19)
    for each in (found.values, found.std_errors, found.p_values):
        assert list(each.index) == list(each.columns) == list(table.columns)
        np.testing.assert_array_equal(each, each.T)
        assert np.isnan(np.diag(each)).all()
    for target in ("rain", "food"):
        expected = column_information(table, table[target]).drop(target)
        kept = found.values[target].drop(target)
        np.testing.assert_allclose(kept, expected["value"], atol=1e-12)
        errors = found.std_errors[target].drop(target)
        np.testing.assert_allclose(errors, expected["std_error"], atol=1e-12)
    assert found.kinds["rain"] == "mixed"
    dependent = [("height", "weight"), ("pet", "food"), ("rain", "food")]
    assert all(found.p_values.loc[pair] == 1 / 20 for pair in dependent)
    assert found.p_values.loc["height", "pet"] > 0.05
    by_hand = permutation_test(
        table["height"], table["weight"], permutations=19, show_progress=False
    )
    assert found.p_values.loc["height", "weight"] == by_hand.p_value


def test_the_seed_is_that_of_the_permutations(table):
    pair = table[["height", "visits"]].astype(float)
    found = mutual_info_matrix(pair, permutations=49, seed=7)
    tests = [
        permutation_test(*pair.to_numpy().T, permutations=49, seed=seed, show_progress=False)
        for seed in (7, 1)
    ]
    assert found.p_values.loc["height", "visits"] == tests[0].p_value != tests[1].p_value


def test_threads_change_nothing(table):
    alone = mutual_info_matrix(table, permutations=3)
    before = list(warnings.filters)
    together = mutual_info_matrix(table, permutations=3, n_jobs=3)
    assert warnings.filters == before
    pd.testing.assert_frame_equal(alone.values, together.values)
    pd.testing.assert_frame_equal(alone.p_values, together.p_values)
    none = mutual_info_matrix(table, n_jobs=-1)
    pd.testing.assert_frame_equal(none.values, alone.values)
    assert none.p_values is None


def test_arrays_have_numbers_for_names():
    x = np.random.default_rng(0).standard_normal((50, 3))
    assert list(mutual_info_matrix(x).values.columns) == [0, 1, 2]
    assert list(column_information(torch.from_numpy(x), x[:, 0] > 0).index) == [0, 1, 2]


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        (np.zeros(4), [0, 1, 0, 1], r"`X` must be \(N, d\), got shape \(4,\)"),
        (np.eye(4), [0, 1, 0], "column 0 of `X` and `y` must have the same number of samples"),
        ([[0.5, np.inf], [1.5, 1]] * 3, [0, 1] * 3, "must be finite"),
    ],
)
def test_errors(x, y, match):
    with pytest.raises(ValueError, match=match):
        mutual_info(x, y)


def test_errors_of_the_target_and_names():
    with pytest.raises(ValueError, match="`y` must hold numbers for `discrete_target=False`"):
        mutual_info(np.eye(4), ["a", "b", "a", "b"], discrete_target=False)
    with pytest.raises(ValueError, match="`table` must have at least 2 columns, got 1"):
        mutual_info_matrix(np.zeros((4, 1)))
    twice = pd.DataFrame(np.eye(3), columns=["a", "a", "b"])
    with pytest.raises(ValueError, match="must have different names"):
        mutual_info_matrix(twice)
