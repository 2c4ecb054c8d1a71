"""The file of a plane, cut anywhere, and the phases that its rows hold."""

import math

import numpy as np
import pytest

from captum_mi.infoplane import Row, phases, read_rows
from captum_mi.infoplane.rows import append_rows, write_rows

LAYERS = ("conv.1", "head")


def row(epoch, layer="head", of_input=1.0, error=0.1):
    return Row(epoch, 0.5 / (1 + epoch), layer, of_input, error, 1 / 3, 1e-17, 0.9, 10_000, 0.5)


def epoch_of(number, layers=LAYERS):
    return [row(number, layer, 0.1 + number / 7) for layer in layers]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "plane.csv"


def test_rows_come_back_to_the_last_bit(path):
    rows = [*epoch_of(0), row(1)._replace(loss=math.nan, layer="conv.1", hidden=0.25), row(1)]
    write_rows(path, rows[:2])
    append_rows(path, rows[2:])
    assert list(map(str, read_rows(path, LAYERS))) == list(map(str, rows))
    assert read_rows(path)[0] == rows[0]
    assert [one.name for one in path.parent.iterdir()] == ["plane.csv"]


def test_a_file_cut_at_any_byte_goes_on(path):
    write_rows(path, [])
    whole = [epoch_of(0), epoch_of(1), epoch_of(2)]
    ends = [path.stat().st_size]
    for rows in whole:
        append_rows(path, rows)
        ends.append(path.stat().st_size)
    text = path.read_bytes()
    for length in range(len(text) + 1):
        path.write_bytes(text[:length])
        left = sum(length >= end for end in ends[1:])
        assert read_rows(path, LAYERS) == [one for rows in whole[:left] for one in rows]
        write_rows(path, read_rows(path, LAYERS))
        for rows in whole[left:]:
            append_rows(path, rows)
        assert path.read_bytes() == text


def test_a_killed_rewrite_leaves_the_old_file(path, monkeypatch):
    write_rows(path, epoch_of(0))
    text = path.read_bytes()
    monkeypatch.setattr(type(path), "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_rows(path, [])
    assert path.read_bytes() == text


def test_epochs_that_are_written_twice_count_once(path):
    write_rows(path, [*epoch_of(0), *epoch_of(1), *epoch_of(1), *epoch_of(0)])
    assert read_rows(path, LAYERS) == [*epoch_of(0), *epoch_of(1)]


@pytest.mark.parametrize(
    ("rows", "layers", "message"),
    [
        (epoch_of(0), ("head",), "holds the layers conv.1, which are not recorded here"),
        ([*epoch_of(0), *epoch_of(1)], (*LAYERS, "new"), "lacks the layers new at epoch 0"),
        ([row(0), *epoch_of(1)], LAYERS, "lacks the layers conv.1 at epoch 0"),
        ([row(0), *epoch_of(1)], None, "lacks the layers conv.1 at epoch 0"),
    ],
)
def test_the_file_of_another_plane_is_an_error(path, rows, layers, message):
    write_rows(path, rows)
    with pytest.raises(ValueError, match=message):
        read_rows(path, layers)


def test_damage_is_an_error(path):
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has the columns a, b, not a plane's"):
        read_rows(path)
    write_rows(path, epoch_of(0))
    path.write_text(path.read_text().replace("0.9", "0.9,7"))
    with pytest.raises(ValueError, match="line 2 is damaged; remove it"):
        read_rows(path)


def found(path, error=0.05, **options):
    rows = [row(epoch, of_input=value, error=error) for epoch, value in enumerate(path)]
    return [(one.kind, one.first, one.last) for one in phases(rows, **options)]


def test_phases_of_known_paths():
    rise, fall = [0.0, 1.0, 2.0, 3.0], [2.0, 1.0]
    assert found(rise) == [("fitting", 0, 3)]
    assert found(fall) == [("compression", 0, 1)]
    assert found(rise + fall) == [("fitting", 0, 3), ("compression", 3, 5)]
    assert found(fall + rise) == [("compression", 0, 2), ("fitting", 2, 5)]
    assert found([1.0, 0.0, 2.0, 1.0]) == [
        ("compression", 0, 1),
        ("fitting", 1, 2),
        ("compression", 2, 3),
    ]


def test_small_steps_add_up_and_small_waves_do_not_count():
    assert found(np.linspace(0, 1, 50)) == [("fitting", 0, 49)]
    waves = 0.03 * np.sin(np.arange(50))
    assert not found(1 + waves)
    assert [kind for kind, _, _ in found(np.linspace(2, 0, 50) + waves)] == ["compression"]


def test_changes_are_signed_and_layers_apart():
    rows = [row(epoch, layer, sign * epoch) for epoch in range(3) for layer, sign in SIGNS.items()]
    rise, fall = phases(rows[::-1])
    assert {rise.layer: rise.change, fall.layer: fall.change} == {"up": 2.0, "down": -2.0}
    assert not phases([])
    assert not phases(rows[:1])


SIGNS = {"up": 1.0, "down": -1.0, "flat": 0.0}


def test_estimates_that_failed_are_left_out():
    assert found([0.0, math.nan, 1.0]) == [("fitting", 0, 2)]
    assert not found([math.nan, math.nan])


def test_a_path_that_does_not_move_has_a_phase_one_time_in_twenty_at_most():
    rng = np.random.default_rng(0)
    for n_epochs in (5, 100):
        paths = 1 + 0.05 * rng.standard_normal((400, n_epochs))
        assert sum(bool(found(path)) for path in paths) <= 0.05 * 400
        loose = sum(bool(found(path, level=0.5)) for path in paths)
        assert 0.05 * 400 < loose < 0.5 * 400


def test_level_is_checked():
    with pytest.raises(ValueError, match="`level` must lie between 0 and 1, got 95"):
        phases([], level=95)
