"""The benchmark of the estimators' speed and memory, small."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import zscore

from captum_mi.benchmarks import mi_speed
from captum_mi.benchmarks.mi_speed import Timing, kernel_density_memory, table
from captum_mi.estimators import KSG, KozachenkoLeonenko, WeightedKozachenkoLeonenko


def test_every_estimator_is_timed():
    rows = mi_speed.main(sizes=(100, 200), dims=(2, 4))
    assert [row[:3] for row in rows[:4]] == [
        ("KL", 100, 2),
        ("KL", 200, 2),
        ("WKL", 100, 2),
        ("WKL", 200, 2),
    ]
    assert len(rows) == 12
    assert all(0 < seconds < 60 for row in rows for seconds in row[3:6])


def test_what_may_take_too_long_is_skipped():
    rows = mi_speed.main(sizes=(100, 100_000), dims=(2,), patience=1.0)
    assert all(row.ours and row.trees and row.scikit_learn for row in rows[::2])
    assert [row[3:] for row in rows[1::2]] == [(None,) * 4] * 3


def test_table():
    lines = table([Timing("KL", 2000, 8, 3.0, 2.0, 12.0), Timing("KL", 20000, 8, 5.0, None, 1.0)])
    assert lines.splitlines()[1:] == [
        "KL           2000   8     3.000     2.000     12.000         -        1.50          0.25"
        "            -",
        "KL          20000   8     5.000         -      1.000         -           -          5.00"
        "            -",
        "-: skipped, for it might have taken too long",
        "no times of ennemi: `pip install ennemi` adds them",
    ]


def test_table_with_ennemi():
    rows = [Timing("KL", 2000, 8, 3.0, 2.0, 12.0, 4.0), Timing("WKL", 2000, 8, 3.0, 2.0, None)]
    _, first, second, *notes = table(rows).splitlines()
    assert first.split()[3:] == ["3.000", "2.000", "12.000", "4.000", "1.50", "0.25", "0.75"]
    assert second.split()[-3:] == ["1.50", "-", "-"]
    assert notes == [
        "-: skipped, for it might have taken too long",
        "ennemi: on one core; it has no WKL, and KSG of two columns alone",
    ]


@pytest.fixture
def ennemi(monkeypatch):
    """Stands in for ennemi, and keeps what it is asked."""
    calls = []
    module = ModuleType("ennemi")
    module.__spec__ = ModuleSpec("ennemi", None)
    module.estimate_entropy = lambda x, **options: calls.append((x.shape, options))
    module.estimate_mi = lambda y, x, **options: calls.append((y, x, options))
    monkeypatch.setitem(sys.modules, "ennemi", module)
    return calls


def test_ennemi_is_asked_for_the_same(ennemi):
    x, y = mi_speed._normals(50, 2)
    spaces = [np.hstack([x, y]), x, y]
    mi_speed._by_ennemi(KozachenkoLeonenko(k=2), spaces)()
    options = {"k": 2, "multidim": True}
    assert ennemi == [((50, 4), options), ((50, 2), options), ((50, 2), options)]
    assert mi_speed._by_ennemi(WeightedKozachenkoLeonenko(), spaces) is None
    assert mi_speed._by_ennemi(KSG(), spaces) is None
    ennemi.clear()
    mi_speed._by_ennemi(KSG(k=5), [spaces[0][:, ::2], x[:, :1], y[:, :1]])()
    ((first, second, options),) = ennemi
    assert options == {"k": 5, "preprocess": False}
    np.testing.assert_array_equal(first, y[:, 0])
    np.testing.assert_array_equal(second, x[:, 0])


@pytest.mark.usefixtures("ennemi")
def test_ennemi_is_timed():
    found = {row[:3]: row.ennemi is not None for row in mi_speed.main(sizes=(100,), dims=(2, 4))}
    assert found == {
        ("KL", 100, 2): True,
        ("WKL", 100, 2): False,
        ("KSG", 100, 2): True,
        ("KL", 100, 4): True,
        ("WKL", 100, 4): False,
        ("KSG", 100, 4): False,
    }


def test_without_ennemi(monkeypatch):
    monkeypatch.setattr(mi_speed, "find_spec", lambda name: None)
    assert all(row.ennemi is None for row in mi_speed.main(sizes=(100,), dims=(2,)))


def test_ennemi_estimates_what_ksg_does():
    pytest.importorskip("ennemi")
    x, y = (zscore(samples, ddof=1) for samples in mi_speed._normals(300, 1))
    found = mi_speed._by_ennemi(KSG(), [np.hstack([x, y]), x, y])()
    # whose digamma is off by up to 1.2e-5
    assert found.item() == pytest.approx(KSG().estimate(x, y).value, abs=3e-5)


def test_kernel_density_holds_no_matrix():
    memory = kernel_density_memory(12_000, 4, bandwidth=0.4)  # a matrix would be 1,152 MB
    assert 0 <= memory.after - memory.before < 100
    assert memory.before > 20  # MB, of the interpreter and its libraries
