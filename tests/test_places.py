"""Where a layer has its places: maps of either axis order, signals, tokens behind a prefix."""

import pytest
import torch
from torch import nn

from captum_mi.attr.places import Places, prefix_before_map

IMAGE = torch.zeros(2, 3, 16, 24)


class Last(nn.Module):
    """A layer of maps (B, h, w, C): works on the last axis."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(5)

    def forward(self, x):
        return self.norm(x)


def vit():
    """Knows its patch size, 8, so that an image of 16 x 24 has 6 patches."""
    return nn.Sequential(nn.Conv2d(3, 5, 8, 8), nn.LayerNorm(5), nn.Identity())


FORMS = {  # shape of the value, layer, what is expected: axis, prefix, map sizes
    "maps": ((2, 5, 4, 6), nn.Conv2d(3, 5, 4, 4), 1, 0, (4, 6)),
    "maps of one row": ((2, 5, 1, 6), nn.Conv2d(3, 5, 4, 4), 1, 0, (1, 6)),
    "channels last": ((2, 4, 6, 5), Last(), 3, 0, (4, 6)),
    "signals": ((2, 5, 9), nn.Conv1d(3, 5, 4), 1, 0, (9,)),
    "volumes": ((2, 5, 2, 3, 4), nn.Conv3d(3, 5, 4), 1, 0, (2, 3, 4)),
    "tokens": ((2, 6, 5), nn.LayerNorm(5), 2, 0, (6,)),
    "tokens behind one": ((2, 7, 5), nn.LayerNorm(5), 2, 1, (6,)),
    "tokens that are no patches": ((2, 5, 5), nn.LayerNorm(5), 2, 0, (5,)),
    "tokens behind five": ((2, 11, 5), nn.LayerNorm(5), 2, 5, (6,)),
}


@pytest.fixture(params=FORMS.values(), ids=FORMS)
def form(request):
    """Returns a value, what its places must be, and the places found."""
    shape, layer, *expected = request.param
    value = torch.randn(shape)
    return value, expected, Places.of(value, layer, vit(), [IMAGE])


def rolled_out(value, axis, prefix):
    """The values of the places, one by one in reading order."""
    moved = value if axis == value.ndim - 1 else value.permute(0, *range(2, value.ndim), 1)
    return moved.reshape(len(value), -1, moved.shape[-1])[:, prefix:]


def test_places_are_found(form):
    value, (axis, prefix, sizes), places = form
    assert (places.axis, places.prefix, places.map_sizes) == (axis, prefix, sizes)
    assert places.shape == tuple(value.shape[1:])
    assert (places.count, places.channels) == (torch.Size(sizes).numel(), 5)


def test_values_are_those_of_the_places_in_reading_order(form):
    value, (axis, prefix, _), places = form
    assert torch.equal(places.values(value), rolled_out(value, axis, prefix))
    assert places.values(value).shape == (2, places.count, 5)


def test_what_is_put_there_is_found_there(form):
    value, (_, prefix, _), places = form
    new = torch.randn(2, places.count, 5)
    made = places.put(new, value)
    assert made.shape == value.shape
    assert torch.equal(places.values(made), new)
    assert torch.equal(places.put(places.values(value), value), value)
    if prefix:
        assert torch.equal(made[:, :prefix], value[:, :prefix])


def test_one_value_stands_behind_all_rows_and_gradients_go_to_the_places():
    places = Places((5, 4), axis=2, prefix=2)
    new = torch.randn(3, 3, 4).half().requires_grad_()
    before = torch.randn(1, 5, 4)
    made = places.put(new, before)
    assert made.dtype == torch.half
    assert torch.equal(made[:, :2], before[:, :2].half().expand(3, -1, -1))
    made[:, 1:3].sum().backward()
    assert new.grad.sum((0, 2)).tolist() == [12, 0, 0]


def test_a_map_has_each_number_at_its_place(form):
    value, (axis, prefix, sizes), places = form
    numbers = torch.arange(2.0 * places.count).reshape(2, -1) + 1
    found = places.map(numbers)
    if value.ndim == 3 and axis == 2:
        assert found.shape == (2, prefix + places.count, 1)
        assert torch.equal(found[:, prefix:, 0], numbers)
        assert not found[:, :prefix].any()
    else:
        assert found.shape == (2, 1, *sizes)
        assert torch.equal(found.flatten(1), numbers)
    # The same order as that of the values: the number of a place lies where its value does.
    value = places.put(numbers[..., None].expand(-1, -1, 5), torch.zeros(1, *places.shape))
    channel_axis = 1 if axis == 1 else value.ndim - 1
    first = value.narrow(channel_axis, 0, 1)
    assert torch.equal(first.reshape(found.shape), found)


def test_no_prefix_where_no_image_is_the_only_input():
    assert prefix_before_map(7, [IMAGE], vit()) == 1
    assert prefix_before_map(7, [torch.zeros(2, 7, dtype=torch.long)], vit()) == 0
    assert prefix_before_map(7, [IMAGE, torch.zeros(2, 7)], vit()) == 0
    assert prefix_before_map(7, [torch.zeros(2, 3)], vit()) == 0


def test_what_the_model_does_not_tell_the_sizes_may():
    square = torch.zeros(2, 3, 16, 16)
    assert prefix_before_map(17, [square], lambda image: image) == 1
    assert prefix_before_map(16, [square], lambda image: image) == 0
    with pytest.raises(ValueError, match="23 tokens are not the whole square patches"):
        prefix_before_map(23, [square], lambda image: image)


@pytest.mark.parametrize("shape", [(2, 5), (2,)])
def test_a_layer_without_places_is_refused(shape):
    model = nn.Sequential(nn.Conv2d(3, 5, 4), nn.Linear(5, 5))
    with pytest.raises(ValueError, match=r"layer '1' \(Linear\) must have places .*earlier"):
        Places.of(torch.zeros(shape), model[1], model, [IMAGE])


def test_three_axes_that_may_be_either_are_asked_for():
    model = nn.Sequential(nn.Conv1d(3, 5, 4), nn.Identity())
    with pytest.raises(
        ValueError, match=r"'1' \(Identity\) does not tell which axis of \(2, 5, 9\)"
    ):
        Places.of(torch.zeros(2, 5, 9), model[1], model, [torch.zeros(2, 3, 12)])
