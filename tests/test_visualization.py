"""Pictures: they draw what they are given, in the colors that its unit asks for."""

import math

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.patches import Rectangle

from captum_mi import visualization
from captum_mi.attr import METHODS
from captum_mi.maps import TokenScores, token_scores
from captum_mi.visualization.page import broken, size_of, width_of
from captum_mi.visualization.scale import LOOKS, Scale
from captum_mi.visualization.words import break_lines, words_of

SCORES = TokenScores(
    ("<bos>", "red", "heart", "<eos>"), (0.75, 0.5, -0.25, -1.0), (True, False, False, True)
)
BLACK = np.zeros((4, 4, 3))
GRAY = 0.35  # what black becomes


def picture(axes):
    return np.asarray(axes.get_images()[0].get_array())


def pictures(figure):
    """The images on a page, in the order in which they were placed."""
    return [axes.get_images()[0] for axes in figure.axes if axes.get_images()]


def written(figure):
    """The texts on a page."""
    return [text.get_text() for text in figure.axes[0].texts]


def word_colors(figure):
    """The colors of the words on a page, by the word."""
    sheet = figure.axes[0]
    found = {}
    for box in (patch for patch in sheet.patches if isinstance(patch, Rectangle)):
        (left, top), right, bottom = box.get_xy(), box.get_width(), box.get_height()
        for text in sheet.texts:
            x, y = text.get_position()
            if left < x < left + right and top < y < top + bottom:
                found.setdefault(text.get_text(), []).append(box.get_facecolor()[:3])
    return found


def bars(figure):
    """The labels of the color bars."""
    return [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]


def color(name, place):
    return pytest.approx(colormaps[name](place)[:3])


def lines_of(figure):
    """How many lines the words of a page take."""
    return len({patch.get_xy()[1] for patch in figure.axes[0].patches})


@pytest.mark.parametrize("unit", ["cosine", "score"])
def test_signed_numbers_have_zero_in_the_middle_of_the_colors(unit):
    heat = torch.tensor([[[[0.0, 1.0], [-4.0, 2.0]]]])
    figure = visualization.heat_map(heat, unit=unit, title="a heart")
    axes, bar = figure.axes
    image = axes.get_images()[0]
    assert (image.norm.vmin, image.norm.vmax) == (-4.0, 4.0)
    np.testing.assert_allclose(image.cmap(image.norm(0.0))[:3], [0.97, 0.97, 0.97], atol=0.01)
    assert axes.get_title() == "a heart"
    assert bar.get_ylabel() == f"against  ←  parts of the {unit}  →  for"
    assert [text.get_text() for text in bar.get_yticklabels()] == ["-4.00", "0", "+4.00"]
    assert heat.tolist() == [[[[0.0, 1.0], [-4.0, 2.0]]]]


@pytest.mark.parametrize(("unit", "label"), [("nats", "nats"), ("bits", "bits"), (None, "relevan")])
def test_other_numbers_begin_at_zero(unit, label):
    axes, bar = visualization.heat_map([[0.0, 1.0], [-4.0, 2.0]], unit=unit).axes
    image = axes.get_images()[0]
    assert (image.norm.vmin, image.norm.vmax) == (0.0, 2.0)
    assert image.cmap(image.norm(-4.0)) == image.cmap(image.norm(0.0))
    assert bar.get_ylabel().startswith(label)
    assert [text.get_text() for text in bar.get_yticklabels()] == ["0", "1.00", "2.00"]
    white, purple = Scale.of(unit, 1.0).colors([0.0, 1.0])
    assert white == color("Purples", 0.0)
    assert purple == color("Purples", 1.0)


def test_every_method_has_a_unit_that_can_be_drawn():
    assert {method.unit for method in METHODS.values()} <= set(LOOKS)


def test_an_unknown_unit_is_refused():
    for draw in (
        lambda: visualization.heat_map([[1.0]], unit="meters"),
        lambda: visualization.overlay(BLACK, np.ones((4, 4)), unit="meters"),
        lambda: visualization.colored_tokens(SCORES, unit="meters"),
        lambda: visualization.explanation(BLACK, [np.eye(4)], [SCORES], ["a"], unit="meters"),
    ):
        with pytest.raises(ValueError, match=r"`unit` must be one of 'cosine', .* 'meters'"):
            draw()


def test_numbers_have_the_digits_that_tell_them_apart():
    assert [Scale("cosine", 0.2).number(value) for value in (0.1, -0.0501, -0.0001)] == [
        "+0.100",
        "-0.050",
        "+0.000",
    ]
    assert Scale("cosine", 0.8).number(0.256) == "+0.26"
    assert Scale("nats", 171.0).number(6.4) == "6"
    assert Scale(None, 1e-6).number(2.5e-7) == "2.5e-07"


@pytest.mark.parametrize("dtype", [np.uint8, float])
def test_overlay_shows_the_pale_gray_image_where_the_map_is_zero(dtype):
    image = np.zeros((2, 2, 3), dtype)
    image[0, 0] = (255, 0, 0) if dtype is np.uint8 else (1.0, 0, 0)
    figure = visualization.overlay(image, np.array([[0.0, 3.0], [-3.0, 0.0]]))
    drawn = picture(figure.axes[0])
    np.testing.assert_allclose(drawn[0, 0], [GRAY + (1 - GRAY) / 3] * 3, atol=1e-6)
    np.testing.assert_allclose(drawn[1, 1], GRAY, atol=1e-6)
    red, blue = (0.9 * np.array(colormaps["RdBu_r"](end)[:3]) + 0.1 * GRAY for end in (1.0, 0.0))
    np.testing.assert_allclose(drawn[0, 1], red, atol=1e-6)
    np.testing.assert_allclose(drawn[1, 0], blue, atol=1e-6)


def test_overlay_shows_the_image_where_numbers_without_a_sign_are_below_zero():
    heat = np.eye(4) - 5 * (1 - np.eye(4))
    drawn = picture(visualization.overlay(BLACK, heat, unit=None).axes[0])
    np.testing.assert_allclose(drawn[0, 1], GRAY)
    np.testing.assert_allclose(drawn[0, 0], 0.9 * np.array(colormaps["Purples"](1.0)[:3]) + 0.035)


def test_a_map_of_zeros_is_drawn_white():
    image = visualization.heat_map(np.zeros((3, 3))).axes[0].get_images()[0]
    assert (image.norm.vmin, image.norm.vmax) == (-1.0, 1.0)


def test_words_are_colored_by_one_scale_and_special_tokens_are_summed():
    figure = visualization.colored_tokens(SCORES, title="words")
    texts = written(figure)
    assert "words" in texts
    assert not {"<bos>", "<eos>"} & set(texts)
    assert texts[texts.index("red") + 1] == "+0.50"
    assert texts[texts.index("heart") + 1] == "-0.25"
    assert texts[texts.index("rest") + 1] == "-0.25"
    colors = word_colors(figure)
    assert list(colors) == ["red", "heart", "rest"]
    assert colors["red"] == [color("RdBu_r", 1.0)]
    assert colors["heart"] == colors["rest"] == [color("RdBu_r", 0.25)]
    assert "red raises the cosine, blue lowers it" in texts
    assert bars(figure) == ["against  ←  parts of the cosine  →  for"]


def test_the_rest_may_set_the_scale():
    scores = TokenScores(("a", "<eos>"), (1.0, -4.0), (False, True))
    colors = word_colors(visualization.colored_tokens(scores))
    assert colors["rest"] == [color("RdBu_r", 0.0)]
    assert colors["a"] == [color("RdBu_r", 0.625)]


def test_words_without_special_tokens_have_no_rest():
    scores = TokenScores(("a", "heart"), (0.1, 0.2), (False, False))
    figure = visualization.colored_tokens(scores)
    assert not [text for text in written(figure) if text.startswith("rest")]


def test_words_in_nats():
    scores = TokenScores(("a", "heart", "[SEP]"), (0.0, 20.0, 40.0), (False, False, True))
    figure = visualization.colored_tokens(scores, unit="nats")
    colors = word_colors(figure)
    assert colors["a"] == [color("Purples", 0.0)]
    assert colors["heart"] == [color("Purples", 0.5)]
    assert colors["rest"] == [color("Purples", 1.0)]
    assert bars(figure) == ["nats"]
    assert "the darker, the more nats are needed" in written(figure)


def test_texts_share_one_scale():
    weak = TokenScores(("blue",), (0.25,), (False,))
    figure = visualization.sentences([SCORES, weak], ["with: one", "with: two"], caption="note")
    colors = word_colors(figure)
    assert colors["red"] == [color("RdBu_r", 1.0)]
    assert colors["blue"] == [color("RdBu_r", 0.75)]
    assert {"with: one", "with: two", "note"} <= set(written(figure))
    with pytest.raises(ValueError, match=r"zip\(\)"):
        visualization.sentences([SCORES, weak], ["one"])


def test_losses_are_written_below_the_scores():
    losses = [[math.nan, 0.3, -0.02, math.nan]]
    plain = written(visualization.sentences([SCORES], ["one"]))
    assert not [text for text in plain if "lost without" in text]
    figure = visualization.sentences([SCORES], ["one"], losses=losses)
    texts = written(figure)
    assert texts[texts.index("red") + 1 :][:2] == ["+0.50", "+0.30"]
    assert texts[texts.index("heart") + 1 :][:2] == ["-0.25", "-0.02"]
    assert texts[texts.index("rest") + 1 :] == ["-0.25"]
    assert texts.index("evidence") < texts.index("lost without") < texts.index("red")
    assert "lost without: what the cosine loses if that" in " ".join(texts)
    with pytest.raises(ValueError, match=r"zip\(\)"):
        visualization.sentences([SCORES], ["one"], losses=[[0.1, 0.2]])


def test_long_texts_wrap_inside_the_page():
    words = TokenScores(("token",) * 77, (0.1,) * 77, (False,) * 77)
    figure = visualization.colored_tokens(words)
    ticks = [tick for axes in figure.axes for tick in axes.get_xticklabels() if axes.get_xlabel()]
    assert max(tick.get_window_extent().x1 for tick in ticks) < figure.bbox.width
    width, height = figure.get_size_inches()
    boxes = figure.axes[0].patches
    assert len(boxes) == 77
    assert max(box.get_x() + box.get_width() for box in boxes) <= width - 0.15
    assert max(box.get_y() for box in boxes) < height - 0.25
    assert lines_of(figure) == len(
        break_lines(*words_of([words], None), 6.15, Scale("cosine", 0.1))
    )
    places = {box.get_xy() for box in boxes}
    assert len(places) == 77


def test_pieces_of_a_word_touch_and_stay_on_a_line():
    scale = Scale("cosine", 1.0)
    joined = (False, False, True, True)
    scores = TokenScores(("a", "photo", "graph", "er"), (0.1, 0.2, 0.3, 0.4), (False,) * 4, joined)
    boxes = visualization.colored_tokens(scores).axes[0].patches
    ends = [box.get_x() + box.get_width() for box in boxes]
    assert boxes[1].get_x() == pytest.approx(ends[0] + 0.06)
    assert [box.get_x() for box in boxes[2:]] == pytest.approx(ends[1:3])
    (words,) = words_of([scores], None)
    whole = sum(word.width(scale) for word in words[1:])
    lines = break_lines(words, whole + 0.1, scale)
    assert [[word.text for word in line] for line in lines] == [["a"], ["photo", "graph", "er"]]
    narrow = break_lines(words, words[1].width(scale) + 0.1, scale)
    assert [word.text for line in narrow for word in line] == list(scores.tokens)
    assert len(narrow) > 2


def test_an_explanation_shows_the_image_once_and_one_scale_for_all_maps():
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0] = 255
    figure = visualization.explanation(
        image,
        [torch.ones(4, 4), -torch.ones(4, 4) / 2],
        [SCORES, TokenScores(("blue",), (0.25,), (False,))],
        ["a red heart: cosine 0.512", "two"],
        losses=[[math.nan, 0.3, -0.02, math.nan], [0.4]],
        caption="method nib",
    )
    shown, first, second = (np.asarray(one.get_array()) for one in pictures(figure))
    np.testing.assert_allclose(shown, image / 255)
    gray = GRAY + (1 - GRAY) / 3
    ends = np.array([colormaps["RdBu_r"](place)[:3] for place in (1.0, 0.25)])
    np.testing.assert_allclose(first[0, 0], 0.9 * ends[0] + 0.1 * gray)
    np.testing.assert_allclose(second[0, 0], 0.675 * ends[1] + 0.325 * gray)  # 0.9 * (1 - 0.5 ** 2)
    assert word_colors(figure)["blue"] == [color("RdBu_r", 0.75)]
    assert bars(figure) == ["against  ←  parts of the cosine  →  for"] * 2
    texts = written(figure)
    assert {"a red heart: cosine 0.512", "two", "method nib", "+0.30", "+0.40"} <= set(texts)
    assert "red raises the cosine, blue lowers it" in texts


def test_an_explanation_in_nats():
    figure = visualization.explanation(
        BLACK, [np.eye(4), 2 * np.eye(4)], [SCORES] * 2, ["one", "two"], unit="nats"
    )
    first, second = (np.asarray(one.get_array()) for one in pictures(figure)[1:])
    np.testing.assert_allclose(second[0, 0], 0.9 * np.array(colormaps["Purples"](1.0)[:3]) + 0.035)
    np.testing.assert_allclose(first[0, 1], GRAY)
    assert first[0, 0].mean() > second[0, 0].mean()
    assert bars(figure) == ["nats"] * 2


def test_an_explanation_needs_as_many_of_everything():
    for heats, tokens, titles in (
        ([np.eye(4)], [SCORES], ["one", "two"]),
        ([np.eye(4)] * 2, [SCORES], ["one"]),
        ([np.eye(4)], [SCORES] * 2, ["one"]),
    ):
        with pytest.raises(ValueError, match=r"zip\(\)"):
            visualization.explanation(BLACK, heats, tokens, titles)


@pytest.mark.parametrize("shape", [(40, 40), (20, 80), (80, 20)])
def test_what_stands_on_a_page_does_not_overlap(shape):
    image = np.zeros((*shape, 3))
    words = TokenScores(("token",) * 25, (0.1,) * 25, (False,) * 25)
    figure = visualization.explanation(
        image, [np.ones(shape)] * 2, [words, SCORES], ["long " * 40, "short"], caption="note " * 40
    )
    figure.draw_without_rendering()
    boxes = [axes.get_window_extent() for axes in figure.axes[1:]]
    boxes += [text.get_window_extent() for text in figure.axes[0].texts]
    starts, ends = np.array([[box.min + 1, box.max - 1] for box in boxes]).transpose(1, 0, 2)
    meet = ((starts[:, None] < ends) & (ends[:, None] > starts)).all(-1)
    assert meet.sum() == len(boxes)
    assert starts.min() > 0
    assert (ends < figure.bbox.size).all()
    drawn = figure.axes[3].get_window_extent()
    assert drawn.width / drawn.height == pytest.approx(shape[1] / shape[0])


def test_a_gallery_wraps_its_maps_and_gives_each_its_scale_and_note():
    columns = [f"m{i}" for i in range(13)]
    units = ["cosine"] * 11 + ["nats", None]
    heats = [[(i + 1) * np.eye(4) for i in range(13)], [None, *[-np.eye(4)] * 12]]
    figure = visualization.gallery(
        [BLACK, BLACK],
        heats,
        columns=columns,
        rows=["a heart", "a star"],
        units=units,
        notes=[[f"drop {i} %" for i in range(13)]] * 2,
        caption="drop: lower is better",
    )
    strips, maps = pictures(figure)[:3], pictures(figure)[3:]
    assert [strip.get_cmap().name for strip in strips] == ["RdBu_r", "Purples", "Purples"]
    assert len(maps) == 14 + 13
    for i, (name, unit) in enumerate(zip(columns, units, strict=True)):
        end = np.array(colormaps["RdBu_r" if unit == "cosine" else "Purples"](1.0)[:3])
        np.testing.assert_allclose(np.asarray(maps[i + 1].get_array())[0, 0], 0.9 * end + 0.035)
        assert written(figure).count(name) == written(figure).count(f"drop {i} %") == 2
    below_zero = [np.asarray(one.get_array())[0, 0] for one in maps[-3:]]
    blue = np.array(colormaps["RdBu_r"](0.0)[:3])
    np.testing.assert_allclose(below_zero[0], 0.9 * blue + 0.035)
    np.testing.assert_allclose(below_zero[1:], GRAY)  # what has no sign is at least zero
    tops = {round(one.axes.get_position().y1, 6) for one in maps}
    assert len(tops) == 4  # two bands of seven for each image
    texts = " ".join(written(figure))
    assert "red raises the cosine, blue lowers it: m0, m1" in texts
    assert "the darker, the more nats are needed: m11" in texts
    assert "each map has a scale of its own" in texts
    assert "drop: lower is better" in texts


def test_a_gallery_is_signed_unless_told():
    figure = visualization.gallery([BLACK], [[-np.eye(4)]], columns=["nib"], rows=["a"])
    assert figure.axes[0].texts[0].get_text() == "red raises the cosine, blue lowers it: nib"
    with pytest.raises(ValueError, match=r"`units` must be one of .*, got 'meters'"):
        visualization.gallery([BLACK], [[None]], columns=["a"], rows=["a"], units=["meters"])


def test_texts_break_between_words_and_only_in_those_wider_than_a_line():
    wide = width_of("red heart", 10)
    assert broken("a red heart\n\nb", wide, 10) == ["a red", "heart", "", "b"]
    assert broken("ab", 0.01, 10) == ["a", "b"]
    name = "a Black_footed_Albatross_of_Hawaii!"
    assert broken(name, width_of("Black_footed_", 10), 10) == [
        "a",
        "Black_footed_",
        "Albatross_of_",
        "Hawaii!",
    ]
    assert broken("mmmmm m", width_of("mm", 10), 10) == ["mm", "mm", "m", "m"]
    assert width_of("red", 20) == pytest.approx(2 * width_of("red", 10), rel=0.02)


def test_images_fit_where_they_are_shown():
    assert size_of(np.zeros((10, 40, 3)), 3.0, 2.0) == (3.0, 0.75)
    assert size_of(np.zeros((40, 10, 3)), 3.0, 2.0) == (0.5, 2.0)


def test_token_scores_know_the_pieces_of_a_word():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[UNK]", "[CLS]", "[SEP]", "a", "photo", "##graph", "##er"]
    vocabulary = {word: i for i, word in enumerate(words)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece(cleanup=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    ids = torch.tensor([[1, *tokenizer("a photographer a")["input_ids"], 2]])
    (scores,) = token_scores(torch.ones(1, 7, 1), ids, tokenizer)
    assert scores.tokens == ("[CLS]", "a", "photo", "graph", "er", "a", "[SEP]")
    assert scores.joined == (False, False, False, True, True, False, False)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"one map \(H, W\), got shape \(2, 3, 3\)"):
        visualization.heat_map(np.zeros((2, 3, 3)))
    assert visualization.heat_map(np.zeros((1, 1, 1, 5))).axes[0].get_images()[0].get_size() == (
        1,
        5,
    )
    with pytest.raises(ValueError, match=r"shape \(H, W, 3\), got \(4, 4\)"):
        visualization.overlay(np.zeros((4, 4)), np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"has size \(3, 3\), but `image` \(4, 4\); draw it over"):
        visualization.overlay(BLACK, np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"has size \(3, 3\), but `image` \(4, 4\); draw it over"):
        visualization.explanation(BLACK, [np.zeros((3, 3))], [SCORES], ["one"])
