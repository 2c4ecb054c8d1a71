"""NIB on a block of every tower of many architectures, against hook and rerun."""

import pytest
from oracles import assert_same, narrowed
from zoo import FAMILIES, build

from captum_mi.attr import NarrowingIB

DUAL = ("image", "text")
SINGLE = ("GPT-2", "Llama", "DeBERTa", "DeBERTa-v2", "MPNet")
ENCODER_DECODER = ("T5", "Marian", "Whisper")
TOWERS = {
    **dict.fromkeys(FAMILIES, DUAL),
    **dict.fromkeys(SINGLE, ("text",)),
    **dict.fromkeys(ENCODER_DECODER, ("encoder", "decoder")),
    "FLAVA": ("image", "text", "multimodal"),
    "LLaVA": ("image", "features", "text"),
}
CASES = [(family, tower) for family, towers in TOWERS.items() for tower in towers]
PACKED = [("Qwen2-VL", "image"), ("Qwen2.5-VL", "image")]
INPUTS = [
    ("CLIP", "image", ""),
    ("CLIP", "text", r"\.self_attn"),
    ("GPT-2", "text", ""),
    ("GPT-2", "text", r"\.attn"),
    ("Llama", "text", ""),
    ("Llama", "text", r"\.self_attn"),
    ("T5", "encoder", ""),
    ("T5", "encoder", r"\.layer\.0"),
    ("MPNet", "text", ""),
    ("DeBERTa", "text", r"\.attention"),
    ("Qwen2-VL", "text", r"\.self_attn"),
]
BATCHED = [
    (family, tower) for family in (*ENCODER_DECODER, *SINGLE, "CLIP") for tower in TOWERS[family]
]


def explain(tower, batch, layer, n_steps=5, **options):
    inputs, *further = tower.batch(batch)
    method = NarrowingIB(tower.forward_func, layer)
    return method.attribute(
        inputs, target=1, additional_forward_args=tuple(further), n_steps=n_steps, **options
    )


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("family", "name"), [case for case in CASES if case not in PACKED])
def test_output_of_a_block(family, name, batch):
    tower = build(family)[name]
    layer = tower.layer()
    expected = narrowed(tower.forward_func, tower.batch(batch), layer, 1)
    assert_same(explain(tower, batch, layer), expected, tower.tolerance)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("family", "name", "suffix"), INPUTS)
def test_input_of_a_module(family, name, suffix, batch):
    """Hidden states alone are narrowed: no position bias, no rotary table, no mask."""
    tower = build(family)[name]
    layer = tower.layer(suffix)
    expected = narrowed(tower.forward_func, tower.batch(batch), layer, 1, at_input=True)
    found = explain(tower, batch, layer, attribute_to_layer_input=True)
    assert_same(found, expected, tower.tolerance)


@pytest.mark.parametrize(("family", "name"), PACKED)
def test_packed_patches_of_one_image_get_a_batch_axis(family, name):
    tower = build(family)[name]
    layer = tower.layer()
    expected = narrowed(tower.forward_func, tower.batch(1), layer, 1)
    assert expected.ndim == 2
    assert_same(explain(tower, 1, layer), expected[None], tower.tolerance)


@pytest.mark.parametrize(("family", "name"), PACKED)
def test_packed_patches_of_several_images_are_refused(family, name):
    tower = build(family)[name]
    with pytest.raises(ValueError, match=r"batch"):
        explain(tower, 2, tower.layer())


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("family", "name"), BATCHED)
def test_steps_run_together(family, name, batch):
    """The last block of the tower runs a handful of times, not once for every step."""
    tower, calls = build(family)[name], []
    handle = tower.last().register_forward_hook(lambda *_: calls.append(None))
    try:
        explain(tower, batch, tower.layer(), n_steps=20)
    finally:
        handle.remove()
    assert 1 < len(calls) <= 8
