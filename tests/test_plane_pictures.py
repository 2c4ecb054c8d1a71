"""Pictures of the information plane: where paths lie, what their colors say, what stays visible."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from scipy.signal import savgol_filter

from captum_mi import visualization
from captum_mi.infoplane import Row

LOSSES = [2.3, 1.3, 0.9, 0.8, 0.85]
ACROSS = {"first": [3.0, 3.5, 3.6, 3.4, 3.1], "second": [1.0, 2.0, 2.4, 2.0, 1.5]}
UPWARDS = {"first": [1.0, 1.6, 1.9, 2.0, 2.1], "second": [0.2, 1.2, 1.7, 2.0, 2.2]}
EPOCHS = [0, 2, 4, 6, 10]
COLORS = colormaps["plasma"](np.linspace(0, 0.87, 256))


def rows(**changed):
    """Rows of two layers, in an order that no picture may rely on."""
    found = []
    for i in (3, 0, 4, 2, 1):
        for layer in ACROSS:
            row = Row(
                EPOCHS[i], LOSSES[i], layer, ACROSS[layer][i], 0.1, UPWARDS[layer][i], 0.05, 1.0, 9
            )
            found.append(row._replace(**changed.get(f"{layer}_{EPOCHS[i]}", {})))
    return found


def panels(figure):
    """The axes of the planes, by their titles."""
    shown = [axes for axes in figure.axes if axes.get_xlabel().startswith("I(X")]
    return {axes.get_title().removeprefix("layer "): axes for axes in shown}


def path(axes, number=0):
    drawn = [one for one in axes.collections if isinstance(one, LineCollection) and one.zorder == 3]
    return drawn[number]


def whole(drawn):
    """The points of a path without gaps, and its colors."""
    pieces = np.stack(drawn.get_segments())
    np.testing.assert_array_equal(pieces[:-1, 1], pieces[1:, 0])
    return np.concatenate([pieces[:1, 0], pieces[:, 1]])


def said(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in [*legend.get_texts(), legend.get_title()]]


def test_each_layer_has_its_path_in_the_order_of_the_epochs():
    figure = visualization.information_plane(rows())
    shown = panels(figure)
    assert list(shown) == ["first", "second"]
    for layer, axes in shown.items():
        points = whole(path(axes))
        np.testing.assert_allclose(points, np.stack([ACROSS[layer], UPWARDS[layer]], 1))
        assert axes.get_ylabel() == "I(L; Y), nats"
    frame = visualization.information_plane(pd.DataFrame(rows()))
    np.testing.assert_array_equal(whole(path(panels(frame)["second"])), points)


def test_the_color_is_the_change_of_the_loss_per_epoch():
    figure = visualization.information_plane(rows())
    steps = [-0.5, -0.2, -0.05, 0.0125]
    for axes in panels(figure).values():
        drawn = path(axes)
        np.testing.assert_allclose(drawn.get_array(), steps)
        drawn.update_scalarmappable()
        linear = 0.125  # the median
        place = np.arcsinh(np.array(steps) / linear)
        place = (place - place[0]) / (place[-1] - place[0])
        expected = COLORS[np.clip((place * 256).astype(int), 0, 255)]
        np.testing.assert_allclose(drawn.get_colors(), expected, atol=2e-2)
    (bar,) = [axes for axes in figure.axes if axes.get_ylabel() == "change of the loss per epoch"]
    assert bar.get_ylim() == pytest.approx((-0.5, 0.0125))
    ticks = np.arcsinh(bar.get_yticks() / linear)
    np.testing.assert_allclose(np.diff(ticks), (ticks[-1] - ticks[0]) / 4)
    assert [tick.get_text() for tick in bar.get_yticklabels()][::4] == ["-0.5", "0.013"]


def test_one_scale_of_losses_for_all_layers_and_none_without_losses():
    other = {f"second_{epoch}": {"loss": 10.0 - epoch} for epoch in EPOCHS}
    figure = visualization.information_plane(rows(**other))
    for axes in panels(figure).values():
        assert path(axes).get_clim() == pytest.approx((-1.0, 0.0125))
    unknown = [row._replace(loss=math.nan) for row in rows()]
    figure = visualization.information_plane(unknown)
    assert len(figure.axes) == 2
    assert path(figure.axes[0]).get_array() is None
    same = visualization.information_plane([row._replace(loss=1.0) for row in rows()])
    np.testing.assert_array_equal(path(same.axes[0]).get_array(), 0)
    same.draw_without_rendering()


def test_the_ends_are_marked_and_said():
    figure = visualization.information_plane(rows())
    for layer, axes in panels(figure).items():
        start, end = [one for one in axes.collections if one.zorder == 4]
        np.testing.assert_allclose(start.get_offsets(), [[ACROSS[layer][0], UPWARDS[layer][0]]])
        np.testing.assert_allclose(end.get_offsets(), [[ACROSS[layer][-1], UPWARDS[layer][-1]]])
        np.testing.assert_array_equal(start.get_facecolor(), [[1, 1, 1, 1]])
        np.testing.assert_array_equal(end.get_facecolor(), [[0, 0, 0, 1]])
    assert said(figure)[:3] == ["epoch 0", "epoch 10", "95 % interval"]


@pytest.mark.parametrize(("level", "quantile"), [(0.95, 1.959964), (0.5, 0.6744898)])
def test_the_intervals_lie_behind_the_path(level, quantile):
    figure = visualization.information_plane(rows(), level=level)
    assert f"{100 * level:g} % interval" in said(figure)
    for layer, axes in panels(figure).items():
        across, upwards = [
            np.stack(one.get_segments())
            for one in axes.collections
            if isinstance(one, LineCollection) and one.zorder < path(axes).zorder
        ]
        np.testing.assert_allclose(across[:, 1, 0] - across[:, 0, 0], 2 * quantile * 0.1, rtol=1e-5)
        np.testing.assert_allclose(across.mean(1)[:, 0], ACROSS[layer])
        height = upwards[:, 1, 1] - upwards[:, 0, 1]
        np.testing.assert_allclose(height, 2 * quantile * 0.05, rtol=1e-5)
        np.testing.assert_allclose(upwards.mean(1)[:, 1], UPWARDS[layer])


def test_all_layers_in_one_panel_with_their_names_at_their_ends():
    figure = visualization.information_plane(rows(), together=True)
    (axes,) = [axes for axes in figure.axes if axes.get_xlabel()]
    for number, layer in enumerate(ACROSS):
        expected = np.stack([ACROSS[layer], UPWARDS[layer]], 1)
        np.testing.assert_allclose(whole(path(axes, number)), expected)
        assert axes.texts[number].get_text() == layer
        assert axes.texts[number].xy == pytest.approx(expected[-1])


def test_smoothing_is_off_said_and_keeps_the_estimates_visible():
    assert not [text for text in said(visualization.information_plane(rows())) if "smooth" in text]
    figure = visualization.information_plane(rows(), smooth=5)
    assert said(figure)[-1].startswith("lines: smoothed over 5 records (Savitzky-Golay, order 2)")
    axes = panels(figure)["second"]
    points = whole(path(axes))
    np.testing.assert_allclose(points[:, 0], savgol_filter(ACROSS["second"], 5, 2))
    assert abs(points[:, 0] - ACROSS["second"]).max() > 0.01
    (dots,) = axes.get_lines()
    np.testing.assert_array_equal(dots.get_xdata(), ACROSS["second"])
    figure = visualization.information_by_epoch(rows(), smooth=5)
    line, dots = figure.axes[1].get_lines()[2:]
    np.testing.assert_allclose(line.get_ydata(), savgol_filter(UPWARDS["second"], 5, 2))
    np.testing.assert_array_equal(dots.get_ydata(), UPWARDS["second"])
    assert said(figure)[-1].startswith("lines: smoothed over 5 records")


def test_what_could_not_be_estimated_leaves_a_gap():
    broken = rows(second_4={"of_input": math.nan, "of_input_error": math.nan})
    figure = visualization.information_plane(broken, caption="a run")
    assert figure.get_suptitle() == "a run; 1 estimate failed and left a gap"
    drawn = path(panels(figure)["second"])
    assert len(drawn.get_segments()) == 2
    np.testing.assert_allclose(drawn.get_array(), [-0.5, 0.0125])
    assert visualization.information_plane(rows()).get_suptitle() == ""
    lost = [row._replace(of_input=math.nan) for row in rows()]
    lost = visualization.information_plane(lost, together=True)
    assert lost.get_suptitle() == "10 estimates failed and left a gap"
    lost.draw_without_rendering()
    at_the_end = visualization.information_plane(rows(second_10={"of_target": math.nan}))
    end = [one for one in panels(at_the_end)["second"].collections if one.zorder == 4][1]
    np.testing.assert_allclose(end.get_offsets(), [[2.0, 2.0]])
    smoothed = visualization.information_by_epoch(broken, smooth=3)
    line = smoothed.axes[0].get_lines()[2].get_ydata()
    np.testing.assert_allclose(line[[0, 1, 3, 4]], savgol_filter([1.0, 2.0, 2.0, 1.5], 3, 2))
    assert math.isnan(line[2])


def test_both_informations_by_epoch_with_the_most_that_classes_allow():
    figure = visualization.information_by_epoch(rows(), classes=10)
    left, right = figure.axes
    for axes, values, margin in ((left, ACROSS, 0.1), (right, UPWARDS, 0.05)):
        assert axes.get_xlabel() == "epoch"
        for line, band, layer in zip(axes.get_lines(), axes.collections, values, strict=False):
            np.testing.assert_array_equal(line.get_xdata(), EPOCHS)
            np.testing.assert_allclose(line.get_ydata(), values[layer])
            assert line.get_label() == layer
            corners = band.get_paths()[0].vertices
            start = corners[corners[:, 0] == 0][:, 1]
            expected = values[layer][0] + np.array([-1, 1]) * 1.959964 * margin
            np.testing.assert_allclose([start.min(), start.max()], expected, atol=1e-6)
    np.testing.assert_allclose(right.get_lines()[-1].get_ydata(), math.log(10))
    assert said(figure)[:4] == ["first", "second", "95 % interval", "log 10"]
    assert len(visualization.information_by_epoch(rows()).axes[1].get_lines()) == 2


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("smooth", [None, 5])
def test_nothing_is_cut_off(count, smooth):
    many = [
        row._replace(layer=f"encoder.blocks.{i}.attention.output")
        for row in rows()
        for i in range(count)
        if row.layer == "first"
    ]
    for figure in (
        visualization.information_plane(many, smooth=smooth),
        visualization.information_by_epoch(many, smooth=smooth, classes=10),
    ):
        figure.draw_without_rendering()
        box = figure.legends[0].get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y0 >= 0
        assert min(axes.get_window_extent().y0 for axes in figure.axes) > box.y1
    assert len([axes for axes in figure.axes if axes.get_xlabel()]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rows": []}, "`rows` must hold a record at least, got none"),
        ({"rows": pd.DataFrame({"epoch": [1]})}, "`rows` must have .* it lacks 'loss'"),
        ({"rows": [*rows(), rows()[0]]}, "`rows` must hold one row of layer 'first' for each"),
        ({"rows": rows(), "smooth": 2}, "`smooth` must be more than 2 records, or None, got 2"),
        ({"rows": rows(), "smooth": 6}, "`smooth` must be at most 5, the records of layer 'first'"),
        ({"rows": rows(), "level": 95}, "`level` must lie between 0 and 1, got 95"),
    ],
)
def test_bad_arguments(arguments, words):
    for draw in (visualization.information_plane, visualization.information_by_epoch):
        with pytest.raises(ValueError, match=words):
            draw(**arguments)
