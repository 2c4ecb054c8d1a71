"""The benchmark of the estimators' speed and memory, small."""

from captum_mi.benchmarks import mi_speed
from captum_mi.benchmarks.mi_speed import Timing, kernel_density_memory, table


def test_every_estimator_is_timed():
    rows = mi_speed.main(sizes=(100, 200), dims=(2, 4))
    assert [row[:3] for row in rows[:4]] == [
        ("KL", 100, 2),
        ("KL", 200, 2),
        ("WKL", 100, 2),
        ("WKL", 200, 2),
    ]
    assert len(rows) == 12
    assert all(0 < seconds < 60 for row in rows for seconds in row[3:])


def test_what_may_take_too_long_is_skipped():
    rows = mi_speed.main(sizes=(100, 100_000), dims=(2,), patience=1.0)
    assert all(row.ours and row.trees and row.scikit_learn for row in rows[::2])
    assert [row[3:] for row in rows[1::2]] == [(None, None, None)] * 3


def test_table():
    lines = table([Timing("KL", 2000, 8, 3.0, 2.0, 12.0), Timing("KL", 20000, 8, 5.0, None, 1.0)])
    assert lines.splitlines()[1:] == [
        "KL           2000   8     3.000     2.000     12.000        1.50          0.25",
        "KL          20000   8     5.000         -      1.000           -          5.00",
        "-: skipped, for it might have taken too long",
    ]


def test_kernel_density_holds_no_matrix():
    memory = kernel_density_memory(12_000, 4, bandwidth=0.4)  # a matrix would be 1,152 MB
    assert 0 <= memory.after - memory.before < 100
    assert memory.before > 20  # MB, of the interpreter and its libraries
