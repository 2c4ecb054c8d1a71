"""Pictures: they draw what they are given, with zero in the middle of the colors."""

import numpy as np
import pytest
import torch

from captum_mi import visualization
from captum_mi.maps import TokenScores
from captum_mi.visualization import tokens

SCORES = TokenScores(
    ("<bos>", "red", "heart", "<eos>"), (9.0, 0.5, -0.25, -7.0), (True, False, False, True)
)


def picture(axes):
    return np.asarray(axes.get_images()[0].get_array())


def test_heat_map_is_centered_at_zero_with_a_color_bar():
    heat = torch.tensor([[[[0.0, 1.0], [-4.0, 2.0]]]])
    figure = visualization.heat_map(heat, title="a heart")
    axes, bar = figure.axes
    image = axes.get_images()[0]
    assert (image.norm.vmin, image.norm.vmax) == (-4.0, 4.0)
    np.testing.assert_allclose(image.cmap(image.norm(0.0))[:3], [0.97, 0.97, 0.97], atol=0.01)
    assert axes.get_title() == "a heart"
    assert "against" in bar.get_ylabel()
    assert heat.tolist() == [[[[0.0, 1.0], [-4.0, 2.0]]]]


@pytest.mark.parametrize("dtype", [np.uint8, float])
def test_overlay_shows_the_gray_image_where_the_map_is_zero(dtype):
    image = np.zeros((2, 2, 3), dtype)
    image[0, 0] = (255, 0, 0) if dtype is np.uint8 else (1.0, 0, 0)
    figure = visualization.overlay(image, np.array([[0.0, 3.0], [-3.0, 0.0]]))
    drawn = picture(figure.axes[0])
    np.testing.assert_allclose(drawn[0, 0], [1 / 3] * 3, atol=1e-6)
    np.testing.assert_allclose(drawn[1, 1], 0, atol=1e-6)
    assert drawn[0, 1, 0] > drawn[0, 1, 2]
    assert drawn[1, 0, 2] > drawn[1, 0, 0]


def test_a_map_of_zeros_is_drawn_white():
    figure = visualization.heat_map(np.zeros((3, 3)))
    image = figure.axes[0].get_images()[0]
    assert (image.norm.vmin, image.norm.vmax) == (-1.0, 1.0)


def test_tokens_take_their_scale_from_the_words_alone():
    figure = visualization.colored_tokens(SCORES, title="words")
    axes = figure.axes[0]
    texts = {text.get_text().split("\n")[0]: text for text in axes.texts}
    assert list(texts) == list(SCORES.tokens)
    assert texts["red"].get_text() == "red\n+0.500"
    red = texts["red"].get_bbox_patch().get_facecolor()
    heart = texts["heart"].get_bbox_patch().get_facecolor()
    assert red[0] > red[2]
    assert heart[2] > heart[0]
    assert red[0] < 0.5  # the strongest word has the end of the scale, dark red
    assert texts["<bos>"].get_bbox_patch().get_facecolor()[:3] == pytest.approx(
        (0.867,) * 3, abs=0.01
    )


def test_long_texts_wrap():
    words = TokenScores(tuple("abcdefghij"), tuple(range(10)), (False,) * 10)
    axes = visualization.colored_tokens(words).axes[0]
    columns = [text.get_position()[0] for text in axes.texts]
    lines = {text.get_position()[1] for text in axes.texts}
    assert max(columns) < tokens.LINE_WIDTH
    assert len(lines) == 4


def test_the_picture_grows_with_the_text():
    words = TokenScores(("token",) * 70, (0.1,) * 70, (False,) * 70)
    short = visualization.explanation(np.zeros((4, 4, 3)), [np.ones((4, 4))], [SCORES], ["one"])
    long = visualization.explanation(np.zeros((4, 4, 3)), [np.ones((4, 4))], [words], ["one"])
    assert long.get_size_inches()[1] > 2 * short.get_size_inches()[1]


def test_explanation_has_a_row_per_text():
    image = np.zeros((4, 4, 3), np.uint8)
    figure = visualization.explanation(
        image,
        [torch.ones(4, 4), -torch.ones(4, 4)],
        [SCORES, SCORES],
        ["one", "two"],
        caption="note",
    )
    titles = [axes.get_title() for axes in figure.axes]
    assert titles.count("image") == 2
    assert "one" in titles
    assert "two" in titles
    assert figure.get_supxlabel() == "note"


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"one map \(H, W\), got shape \(2, 3, 3\)"):
        visualization.heat_map(np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match=r"shape \(H, W, 3\), got \(4, 4\)"):
        visualization.overlay(np.zeros((4, 4)), np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"has size \(3, 3\), but `image` \(4, 4\); draw it over"):
        visualization.overlay(np.zeros((4, 4, 3)), np.zeros((3, 3)))
