"""What pandas holds: nullable types, categories, booleans and missing entries."""

import numpy as np
import pandas as pd
import pytest
import torch

from captum_mi.estimators import KSG, PCA, KozachenkoLeonenko
from captum_mi.estimators._samples import as_samples, label_rows


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_nullable_types_are_numbers(rng):
    values = rng.integers(0, 99, (40, 2))
    for dtype in ("Int64", "Float64", "int8", "float32"):
        frame = pd.DataFrame(values, columns=["a", "b"]).astype(dtype)
        assert torch.equal(as_samples("x", frame), torch.from_numpy(values).double())
        assert torch.equal(as_samples("x", frame["b"])[:, 0], torch.from_numpy(values[:, 1]))


def test_columns_of_several_types(rng):
    flags = rng.random(40) < 0.5
    frame = pd.DataFrame({"flag": flags, "count": np.arange(40), "size": rng.random(40)})
    expected = torch.from_numpy(frame.to_numpy(dtype=float))
    assert torch.equal(as_samples("x", frame), expected)
    nullable = frame.astype({"flag": "boolean", "count": "Int64"})
    assert torch.equal(as_samples("x", nullable), expected)
    assert torch.equal(as_samples("x", torch.from_numpy(flags))[:, 0], expected[:, 0])
    assert KSG().estimate(nullable["size"], frame["count"]) == KSG().estimate(
        frame["size"].to_numpy(), np.arange(40)
    )


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "boolean", "object"])
def test_missing_entries_are_counted(dtype):
    column = pd.Series([True, False, pd.NA, True, None, False] * 5, dtype=dtype)
    words = "`x` must be finite, got NaN or infinity in 10 of 30 rows, the first is row 2; drop"
    with pytest.raises(ValueError, match=words):
        as_samples("x", column)
    with pytest.raises(ValueError, match=words):
        KSG().estimate(pd.DataFrame({"a": np.arange(30.0), "b": column}), np.arange(30))
    with pytest.raises(ValueError, match=words):
        PCA(1).fit(pd.DataFrame({"a": np.arange(30.0), "b": column}))


def test_what_is_no_number():
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": ["u", None, "v"]})
    with pytest.raises(ValueError, match="`x` must hold numbers, got texts; use `estimate_disc"):
        as_samples("x", frame)
    with pytest.raises(ValueError, match="`x` must hold numbers, got texts"):
        as_samples("x", frame["b"].astype("category"))
    days = pd.Series(pd.to_datetime(["2020-01-01", "2020-01-02"]))
    with pytest.raises(ValueError, match=r"`x` must hold numbers, got an array of datetime64"):
        as_samples("x", days)
    with pytest.raises(ValueError, match="`x` must hold numbers, got an array of object"):
        as_samples("x", pd.DataFrame({"a": [1, 2], "b": days}))
    with pytest.raises(ValueError, match="`x` must be real"):
        as_samples("x", np.array([1 + 1j, 2], dtype=object))


@pytest.mark.parametrize("dtype", ["category", "string", "object", "Int64", "boolean"])
def test_labels(dtype, rng):
    numbers = rng.integers(0, 2, 200)
    words = np.array(["no", "yes"])[numbers] if dtype in ("category", "string") else numbers
    labels = pd.Series(words, dtype=dtype)
    assert [rows.tolist() for rows in label_rows(labels, 200).values()] == [
        np.flatnonzero(numbers == each).tolist() for each in (0, 1)
    ]
    x = rng.standard_normal(200) + numbers
    estimator = KozachenkoLeonenko()
    assert estimator.estimate_discrete(x, labels) == estimator.estimate_discrete(x, numbers)
    labels[3:5] = pd.NA
    labels[7] = None
    with pytest.raises(ValueError, match="`labels` must not be missing, got 3 NaN or None"):
        estimator.estimate_discrete(x, labels)
