"""The heat map of a table's pairs of columns."""

import numpy as np
import pandas as pd
import pytest

from captum_mi.visualization import information_matrix


def frame(cells):
    names = [f"c{i}" for i in range(len(cells))]
    return pd.DataFrame(cells, names, names)


def test_cells_bear_their_nats_and_their_doubts():
    values = frame([[np.nan, 0.5, -0.001], [0.5, np.nan, 1.0], [-0.001, 1.0, np.nan]])
    p_values = frame([[np.nan, 0.05, 0.7], [0.05, np.nan, 0.01], [0.7, 0.01, np.nan]])
    axes = information_matrix(values, p_values).axes[0]
    texts = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    assert texts == {
        (1, 0): "0.50",
        (2, 0): "0.00 ×",  # noqa: RUF001
        (0, 1): "0.50",
        (2, 1): "1.00",
        (0, 2): "0.00 ×",  # noqa: RUF001
        (1, 2): "1.00",
    }
    assert "p > 0.05" in axes.get_xlabel()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c0", "c1", "c2"]
    np.testing.assert_array_equal(axes.images[0].get_array().filled(np.nan), values)
    assert axes.images[0].get_clim() == (0, 1.0)


def test_large_matrices_mark_doubts_alone():
    values = frame(np.full((13, 13), 0.2))
    p_values = frame(np.where(np.eye(13), 0.5, 0.01))
    axes = information_matrix(values, p_values).axes[0]
    assert len(axes.texts) == 13
    assert information_matrix(values).axes[0].get_xlabel() == ""


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"shape of `values`, \(2, 2\), got \(3, 3\)"):
        information_matrix(frame(np.ones((2, 2))), frame(np.ones((3, 3))))
