"""Pictures of information in parts: one signed scale, the means below, everything on the page."""

import math

import numpy as np
import pytest
import torch
from matplotlib import colormaps

from captum_mi import visualization
from captum_mi.datasets import Scenes

GRAY = 0.35  # what black becomes
BLACK = np.zeros((64, 64, 3), np.uint8)
TOTAL = torch.tensor([[1.0, -4.0], [2.0, 2.0]])[None, None]  # mean 0.25
DECISION = torch.tensor([[0.5, 0.0], [2.0, -0.5]])[None, None]  # mean 0.5
REDUNDANT = TOTAL - DECISION  # mean -0.25
PARTS = (TOTAL, DECISION, REDUNDANT)
NAMES = {"support_titles": ["a heart"], "query_titles": ["a star"]}


def pictures(figure):
    """What the pictures show, in the order in which they were placed; legends have one row."""
    shown = [np.asarray(axes.get_images()[0].get_array()) for axes in figure.axes if axes.images]
    return [pixels for pixels in shown if len(pixels) > 1]


def written(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def bars(figure):
    """The label and the ticks of the color bars."""
    return [
        (axes.get_xlabel(), [tick.get_text() for tick in axes.get_xticklabels()])
        for axes in figure.axes
        if axes.get_xlabel()
    ]


def over_black(values, extent, colors="RdBu_r"):
    """The colors of numbers over a black image, written out."""
    values = np.asarray(values, dtype=float)
    signed = colors == "RdBu_r"
    place = (values / extent + 1) / 2 if signed else values / extent
    far = np.clip(np.abs(values) if signed else values, 0, None) / extent
    strength = 0.9 * (1 - (1 - far[..., None]) ** 2)
    return strength * colormaps[colors](place)[..., :3] + (1 - strength) * GRAY


def corners(pixels):
    """The corners of an interpolated 2x2 map are its places."""
    return pixels[:: len(pixels) - 1, :: len(pixels) - 1]


def on_the_page(figure):
    """Checks that nothing on a page overlaps or is cut off."""
    figure.draw_without_rendering()
    boxes = [axes.get_window_extent() for axes in figure.axes[1:]]
    boxes += [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    labels = [axes.xaxis.label for axes in figure.axes if axes.get_xlabel()]
    labels += [tick for axes in figure.axes if axes.get_xlabel() for tick in axes.get_xticklabels()]
    boxes += [label.get_window_extent() for label in labels]
    starts, ends = np.array([[box.min + 1, box.max - 1] for box in boxes]).transpose(1, 0, 2)
    meet = ((starts[:, None] < ends) & (ends[:, None] > starts)).all(-1)
    assert meet.sum() == len(boxes)
    assert starts.min() > 0
    assert (ends < figure.bbox.size).all()


def test_the_parts_share_one_signed_scale():
    figure = visualization.decomposition([BLACK], *PARTS)
    image, *maps = pictures(figure)
    np.testing.assert_array_equal(image, 0)
    for drawn, part in zip(maps, PARTS, strict=True):
        np.testing.assert_allclose(corners(drawn), over_black(part[0, 0], 4.0), atol=1e-6)
    assert bars(figure) == [("pointwise nats", ["-4.00", "0", "+4.00"])]
    for biggest in range(3):  # wherever the largest number is
        parts = [part * (10 if i == biggest else 1) for i, part in enumerate(PARTS)]
        extent = max(float(part.abs().max()) for part in parts)
        label = f"+{extent:.1f}" if extent > 5 else f"+{extent:.2f}"
        assert bars(visualization.decomposition([BLACK], *parts))[0][1][-1] == label


def test_below_each_map_stands_the_mean_of_its_places():
    texts = written(visualization.decomposition([BLACK], *PARTS))
    means = [text for text in texts if text.startswith("mean")]
    assert means == ["mean +0.25 nats", "mean +0.50 nats", "mean -0.25 nats"]
    assert texts.index("total") < texts.index("decision") < texts.index("redundant")
    assert "total = decision + redundant" in texts
    spot = torch.zeros(1, 1, 192, 192)
    spot[..., ::3, ::3] = 9.0  # what 64x64 pixels do not show
    means = written(visualization.decomposition([BLACK], spot, spot, 0 * spot))
    assert [text for text in means if text.startswith("mean")] == [
        "mean +1.0 nats",
        "mean +1.0 nats",
        "mean +0.0 nats",
    ]


@pytest.mark.parametrize("size", [(2, 2), (64, 64)])
def test_maps_may_have_the_size_of_the_layer_or_of_the_image(size):
    part = torch.randn(1, 1, *size, dtype=torch.double)
    drawn = pictures(visualization.decomposition([BLACK], part, part, part.numpy()))[1:]
    extent = float(part.abs().max())
    for one in drawn:
        assert one.shape == (64, 64, 3)
        np.testing.assert_allclose(corners(one), over_black(corners(part[0, 0]), extent))


def test_each_image_has_its_row_and_its_own_maps():
    images = [np.zeros((64, 96, 3)), np.full((64, 96, 3), 0.5), np.zeros((32, 48, 3))]
    parts = [torch.full((3, 1, 2, 3), value) for value in (1.0, 0.25, 0.75)]
    for part in parts:
        part *= torch.tensor([1.0, 2.0, -4.0]).reshape(3, 1, 1, 1)
    figure = visualization.decomposition(images, *parts, titles=["one", "two", "three"])
    drawn = pictures(figure)
    assert [pixels.shape[:2] for pixels in drawn[::4]] == [(64, 96), (64, 96), (32, 48)]
    np.testing.assert_allclose(drawn[1], over_black(np.full((64, 96), 1.0), 4.0))
    np.testing.assert_allclose(drawn[11], over_black(np.full((32, 48), -3.0), 4.0))
    texts = written(figure)
    places = [texts.index(text) for text in ("one", "mean +2.00 nats", "three", "mean -3.00 nats")]
    assert places == sorted(places)
    tops = {round(axes.get_position().y1, 6) for axes in figure.axes[2:] if axes.images}
    assert len(tops) == 3


def test_a_cam_has_its_own_scale_and_a_mask_that_of_shares():
    cam, mask = [torch.tensor([[[[0.0, 20.0], [-20.0, 10.0]]]]), torch.tensor([[[[0.0, 0.5]]]])]
    mask = mask.expand(1, 1, 2, 2)
    figure = visualization.decomposition([BLACK], *PARTS, cam=cam, mask=mask)
    drawn = pictures(figure)
    assert len(drawn) == 6
    expected = over_black([[0.0, 20.0], [0.0, 10.0]], 20.0, "Purples")
    np.testing.assert_allclose(corners(drawn[1]), expected, atol=1e-6)
    np.testing.assert_allclose(corners(drawn[2]), over_black(TOTAL[0, 0], 4.0), atol=1e-6)
    np.testing.assert_allclose(corners(drawn[5]), over_black(mask[0, 0], 1.0, "Purples"))
    twice = [torch.cat([part, part]) for part in PARTS]
    weak = pictures(visualization.decomposition([BLACK] * 2, *twice, cam=torch.cat([cam, cam / 9])))
    np.testing.assert_allclose(weak[6], drawn[1])
    texts = written(figure)
    assert "mean 0.25" in texts
    assert texts.index("Grad-CAM") < texts.index("total") < texts.index("mask")
    assert "mask: from 0, replaced by noise, to 1, kept" in texts
    assert [text for text in texts if text.startswith("Grad-CAM: ")]
    one = written(visualization.decomposition([BLACK], *PARTS, mask=mask))
    assert not [text for text in one if text.startswith("Grad-CAM")]


def test_the_cap_is_spoken_of_where_it_is_known():
    for draw in (
        lambda **cap: visualization.decomposition([BLACK], *PARTS, **cap),
        lambda **cap: visualization.episode([BLACK], [BLACK], TOTAL, DECISION, **NAMES, **cap),
    ):
        assert "cap 8.04 nats: the most that a place can get" in written(draw(cap=8.035))
        assert not [text for text in written(draw()) if text.startswith("cap")]
        with pytest.raises(ValueError, match="`cap` must be positive, got 0"):
            draw(cap=0)


def test_an_episode_shows_its_support_and_the_information_of_each_query():
    support = [np.full((8, 8, 3), i / 10) for i in range(9)]
    query = [BLACK, np.full((64, 64, 3), 255, np.uint8)]
    total, decision = torch.cat([TOTAL, -TOTAL / 2]), torch.cat([DECISION, 0 * DECISION])
    figure = visualization.episode(
        support,
        query,
        total,
        decision,
        support_titles=[f"way {i}" for i in range(9)],
        query_titles=["taken for way 1", "taken for way 2"],
        caption="9 ways",
    )
    drawn = pictures(figure)
    assert len(drawn) == 9 + 2 * 4
    for pixels, expected in zip(drawn, support, strict=False):
        np.testing.assert_array_equal(pixels, expected)
    first, second = drawn[9:13], drawn[13:]
    np.testing.assert_array_equal(first[0], 0)
    np.testing.assert_array_equal(second[0], 1)
    expected = colormaps["RdBu_r"](np.array([[0.625, 0.0], [0.75, 0.75]]))[..., :3]
    np.testing.assert_allclose(first[1], expected)  # as it is, place by place
    np.testing.assert_allclose(corners(first[2]), over_black(TOTAL[0, 0], 4.0), atol=1e-6)
    np.testing.assert_allclose(corners(first[3]), over_black(DECISION[0, 0], 4.0), atol=1e-6)
    np.testing.assert_allclose(second[1][0, 1], colormaps["RdBu_r"](0.75)[:3])
    np.testing.assert_allclose(second[3], 1)
    texts = written(figure)
    means = [text for text in texts if text.startswith("mean")]
    assert means == [f"mean {number} nats" for number in ("+0.25", "+0.50", "-0.12", "+0.00")]
    order = ["support", "way 0", "way 8", "taken for way 1", "total on query", "taken for way 2"]
    places = [texts.index(text) for text in [*order, "9 ways"]]
    assert places == sorted(places)
    assert bars(figure) == [("pointwise nats", ["-4.00", "0", "+4.00"])]
    tops = [round(axes.get_position().y1, 6) for axes in figure.axes[2:11]]
    assert sorted(tops.count(top) for top in set(tops)) == [4, 5]  # two bands of support
    on_the_page(figure)


@pytest.mark.parametrize(
    ("count", "more"), [(1, ()), (1, ("cam", "mask")), (2, ("mask",)), (3, ("cam",))]
)
def test_nothing_on_the_page_overlaps_or_is_cut_off(count, more):
    parts = [torch.randn(count, 1, 7, 7) * 100 for _ in range(3)]
    figure = visualization.decomposition(
        [scene.image for scene in map(Scenes(count).__getitem__, range(count))],
        *parts,
        cap=123456.0,
        titles=["long " * 40, "/a/long/path" * 20, ""][:count],
        caption="note " * 40,
        **{name: torch.rand(count, 1, 7, 7) for name in more},
    )
    on_the_page(figure)


@pytest.mark.parametrize("shape", [(40, 40), (20, 80), (80, 20)])
def test_an_episode_stays_on_its_page(shape):
    image = np.zeros((*shape, 3))
    part = torch.randn(2, 1, shape[0] // 10, shape[1] // 10)
    figure = visualization.episode(
        [image] * 5,
        [image] * 2,
        part,
        part,
        support_titles=["Black_footed_Albatross_of_Hawaii", "a", "a heart that is red", "b", "c"],
        query_titles=["long " * 40, "short"],
    )
    on_the_page(figure)
    drawn = figure.axes[-1].get_window_extent()
    assert drawn.width / drawn.height == pytest.approx(shape[1] / shape[0])


def test_what_is_given_stays_as_it_is():
    parts = [part.clone().requires_grad_() for part in PARTS]
    visualization.decomposition([BLACK], *parts)
    for part, expected in zip(parts, PARTS, strict=True):
        assert torch.equal(part, expected)


def test_wrong_maps_are_refused():
    names = ["total", "decision", "redundant", "cam", "mask"]
    for name in names:
        good = dict(zip(names, [*PARTS, TOTAL, TOTAL.clamp(0, 1)], strict=True))
        for wrong in (torch.ones(1, 4, 1), torch.ones(1, 2, 2, 2), torch.ones(2, 1, 2, 2)):
            shape = str(tuple(wrong.shape)).replace("(", r"\(").replace(")", r"\)")
            said = rf"`{name}` must have shape \(1, 1, h, w\), .* got {shape}; give maps.patch_map"
            with pytest.raises(ValueError, match=said):
                visualization.decomposition([BLACK], **{**good, name: wrong})
        for value in (math.nan, math.inf):
            wrong = TOTAL.clone()
            wrong[..., 0] = value
            with pytest.raises(ValueError, match=rf"`{name}` must be finite, .* at 2 places"):
                visualization.decomposition([BLACK], **{**good, name: wrong})
        said = rf"`{name}` of shape \(1, 1, 2, 8\) is no map of an image of 64x64; draw it over"
        with pytest.raises(ValueError, match=said):
            visualization.decomposition([BLACK], **{**good, name: torch.ones(1, 1, 2, 8)})
    with pytest.raises(ValueError, match=r"`mask` must be in \[0, 1\], got numbers from -4 to 2"):
        visualization.decomposition([BLACK], *PARTS, mask=TOTAL)
    with pytest.raises(ValueError, match=r"`decision` must be finite"):
        visualization.episode([BLACK], [BLACK], TOTAL, TOTAL * math.nan, **NAMES)


def test_wrong_images_and_titles_are_refused():
    with pytest.raises(ValueError, match="`images` must hold an image at least, got none"):
        visualization.decomposition([], *PARTS)
    with pytest.raises(ValueError, match=r"`image` must have shape \(H, W, 3\), got \(3, 64, 64\)"):
        visualization.decomposition(np.zeros((1, 3, 64, 64)), *PARTS)
    with pytest.raises(ValueError, match="`titles` must hold one for each of 1 images, got 2"):
        visualization.decomposition([BLACK], *PARTS, titles=["a", "b"])
    with pytest.raises(ValueError, match="`support` must hold an image at least, got none"):
        visualization.episode([], [BLACK], TOTAL, DECISION, **NAMES)
    for wrong in NAMES:
        with pytest.raises(ValueError, match=f"`{wrong}` must hold one for each of 1 im.*, got 2"):
            visualization.episode([BLACK], [BLACK], TOTAL, DECISION, **{**NAMES, wrong: ["a", "b"]})


def test_pointwise_nats_have_zero_in_the_middle_of_the_colors():
    axes, bar = visualization.heat_map([[1.0, -2.0]], unit="pointwise nats").axes
    image = axes.get_images()[0]
    assert (image.norm.vmin, image.norm.vmax) == (-2.0, 2.0)
    assert image.cmap.name == "RdBu_r"
    assert bar.get_ylabel() == "pointwise nats"
