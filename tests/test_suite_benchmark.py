"""The suite of tasks of known information: tables, figure and command, on made-up tasks."""

import csv
import json
import math
import warnings

import numpy as np
import pytest

from captum_mi.benchmarks import __main__ as command
from captum_mi.benchmarks import suite
from captum_mi.benchmarks._suite_figure import heat_map
from captum_mi.benchmarks._suite_results import Result, summary, table
from captum_mi.benchmarks.suite import Task, measure, read
from captum_mi.estimators import KSG, Estimate, KozachenkoLeonenko

NAN = math.nan


def result(task, dims, estimator, error, std_error=0.1, *, seed=0, refused="", warned=""):
    truth = 1.0
    return Result(
        task, f"{task} title", *dims, 50, seed, estimator, truth, truth + error, error, std_error,
        2.0, refused, warned,
    )  # fmt: skip


RESULTS = [
    result("narrow", (5, 4), "a", 0.1, 0.06, seed=0),
    result("narrow", (5, 4), "a", -0.3, seed=1),
    result("narrow", (5, 4), "b", 0.0, seed=0),
    result("narrow", (5, 4), "b", NAN, NAN, seed=1, refused="too wide"),
    result("swissroll_x", (2, 1), "a", -0.4, seed=0, warned="far"),
    result("swissroll_x", (2, 1), "a", -0.4, seed=1, warned="far"),
    result("swissroll_x", (2, 1), "b", -0.6, seed=0),
    result("swissroll_x", (2, 1), "b", -0.6, seed=1),
    result("between", (6, 5), "a", 0.0, seed=0),
    result("between", (6, 5), "a", 0.0, seed=1),
    result("between", (6, 5), "b", 0.3, seed=0),
    result("between", (6, 5), "b", 0.3, seed=1),
    result("wide", (25, 30), "a", 0.5, seed=0),
    result("wide", (25, 30), "a", 0.1, seed=1),
    result("wide", (25, 30), "b", NAN, NAN, seed=0, refused="too wide"),
    result("wide", (25, 30), "b", NAN, NAN, seed=1, refused="too wide"),
    result("half", (25, 24), "a", 0.0, seed=0),
    result("half", (25, 24), "a", 0.0, seed=1),
    result("half", (25, 24), "b", 0.0, seed=0),
    result("half", (25, 24), "b", 0.0, seed=1),
]


class Constant(KSG):
    """Returns 1 ± 0.25 nats, warns of two columns and refuses three."""

    def estimate(self, x, y):
        if x.shape[1] == 3:
            raise ValueError("`x` has 3 columns")
        if x.shape[1] == 2:
            warnings.warn("doubtful", stacklevel=2)
            warnings.warn("doubtful", stacklevel=2)
            warnings.warn("far", stacklevel=2)
        return Estimate(1.0, 0.25, len(x))


def test_table():
    assert table(RESULTS).splitlines() == [
        "estimate - truth, nats    d  truth                a                b",
        "narrow                    5+4  1.000   -0.100 ± 0.080          refused",
        "swissroll_x               2+1  1.000   -0.400 ± 0.100   -0.600 ± 0.100",
        "between                   6+5  1.000   +0.000 ± 0.100   +0.300 ± 0.100",
        "wide                    25+30  1.000   +0.300 ± 0.100          refused",
        "half                    25+24  1.000   +0.000 ± 0.100   +0.000 ± 0.100",
    ]


def test_summary():
    _, heads, *lines = summary(RESULTS).splitlines()
    assert heads.split("  ")[-5:] == ["above 0.3", "refused", "warned", "in interval", "seconds"]
    for group in ("all tasks (5)", "to 5+5 (1)", "from 25+25 (1)"):
        assert group in heads
    # a: (.2 + .4 + 0 + .3 + 0) / 5; b: (.6 + .3 + 0) / 3, where .3 is not above itself
    assert " ".join(lines[0].split()) == "a 0.180 0.200 0.300 1 0 1 60 % 20.0"
    assert " ".join(lines[1].split()) == "b 0.300 (3) refused refused 1 2 0 43 % 20.0"


def test_summary_of_a_group_without_tasks():
    line = summary(RESULTS[8:10]).splitlines()[2]
    assert " ".join(line.split()) == "a 0.000 - - 0 0 0 100 % 4.0"


def test_heat_map_says_every_error():
    figure = heat_map(RESULTS, {"a": "OneEstimator", "b": "KSG"})
    upper, lower = figure.axes[:2]
    said = [[text.get_text() for text in axes.texts] for axes in (upper, lower)]
    assert said[0] == [
        "-0.10", "refused", "-0.40", "-0.60", "+0.00", "+0.30", "+0.30", "refused", "+0.00", "+0.00"
    ]  # fmt: skip
    assert said[1] == ["0.180", "0.300 (3)", "0.200", "refused", "0.300", "refused"]
    labels = [[text.get_text() for text in axes.get_yticklabels()] for axes in (upper, lower)]
    assert labels[0][0] == "narrow title:  1.00"
    assert labels[1] == [
        f"mean absolute error, {group}" for group in ("all tasks", "to 5+5", "from 25+25")
    ]
    heads = [text.get_text() for text in upper.get_xticklabels()]
    assert heads == ["a\nOne\nEstimator", "b\nKSG"]
    colors = upper.images[0].get_array()
    np.testing.assert_allclose(colors[:, 0], [-0.1, -0.4, 0, 0.3, 0], atol=1e-15)
    assert colors.mask[:, 1].tolist() == [True, False, False, True, False]
    assert "50 samples of each, mean error of 2 draws" in figure.get_suptitle()
    assert "draws" not in heat_map(RESULTS[::4], {"a": "A", "b": "B"}).get_suptitle()


def test_measure_keeps_values_warnings_and_refusals():
    tasks = [
        Task(f"of {dim}", f"title {dim}", 0.75, np.zeros((9, dim)), np.zeros((9, 4)))
        for dim in (1, 2, 3)
    ]
    found = measure({7: tasks, 8: tasks[:1]}, {"constant": Constant()})
    assert [one[:8] for one in found] == [
        (f"of {dim}", f"title {dim}", dim, 4, 9, seed, "constant", 0.75)
        for dim, seed in [(1, 7), (2, 7), (3, 7), (1, 8)]
    ]
    assert [one[8:11] for one in found[::3]] == [(1.0, 0.25, 0.25)] * 2
    assert np.isnan(found[2][8:11]).all()
    assert [one.refused for one in found] == ["", "", "`x` has 3 columns", ""]
    assert [one.warned for one in found] == ["", "doubtful | far", "", ""]
    assert all(0 <= one.seconds < 5 for one in found)


def write(path, seed):
    """Writes samples of three tasks of 60 pairs each."""
    generator = np.random.default_rng(seed)
    arrays, told = {}, []
    for number, name in enumerate(["plain", "student-1", "student-2"]):
        x = generator.standard_normal((60, number + 1)).astype("f4" if number else "f8")
        arrays |= {f"x{number}": x, f"y{number}": x[:, :1] + generator.standard_normal((60, 1))}
        told.append({"name": name, "title": name.title(), "truth": 0.5 + number})
    np.savez(path, tasks=np.array(json.dumps(told)), **arrays)
    return path


def test_read_chooses_tasks_by_name(tmp_path):
    path = write(tmp_path / "samples.npz", 0)
    everything = read(path)
    assert [one[:3] for one in everything] == [
        ("plain", "Plain", 0.5),
        ("student-1", "Student-1", 1.5),
        ("student-2", "Student-2", 2.5),
    ]
    assert [(one.x.shape, one.x.dtype) for one in everything] == [
        ((60, 1), np.float64),
        ((60, 2), np.float32),
        ((60, 3), np.float32),
    ]
    assert [one.name for one in read(path, ["student*"])] == ["student-1", "student-2"]
    (second,) = read(path, ["student-2"])
    np.testing.assert_array_equal(second.y, everything[2].y)
    with pytest.raises(ValueError, match=r"no task is named 'gamma'; there are\n  plain\n  stud"):
        read(path, ["plain", "gamma"])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command with the samples of ``write``, and tells what it asked for."""
    asked = []

    def drawn(samples, seed, **places):
        asked.append((samples, seed, places))
        return write(tmp_path / f"{seed}.npz", seed)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["benchmarks", "mi", "--out", str(tmp_path), *arguments])
        command.main()
        return asked

    monkeypatch.setattr(suite, "sample_file", drawn)
    monkeypatch.setattr(command, "FIGURES", {})  # which take minutes
    monkeypatch.setattr(command.mutual_information, "uncompressed", lambda *_, **__: [])
    return run


def test_the_command_writes_and_prints(run, tmp_path, capsys):
    options = ["--samples", "60", "--seeds", "3", "4", "--tasks", "student*", "--python", "python3"]
    asked = run("--suite", *options, "--methods", "ksg", "kl", "--environment", "there")
    places = {"environment": suite.Path("there"), "python": "python3"}
    assert asked == [(60, 3, places), (60, 4, places)]
    with (tmp_path / "suite.csv").open() as file:
        rows = list(csv.DictReader(file))
    keys = ("seed", "task", "estimator")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        (str(seed), task, name)
        for seed in (3, 4)
        for task in ("student-1", "student-2")
        for name in ("ksg", "kl")
    ]
    task = read(tmp_path / "4.npz", ["student-2"])[0]
    expected = KozachenkoLeonenko().estimate(task.x, task.y)
    last = rows[-1]
    assert [float(last[key]) for key in ("truth", "estimate", "error", "std_error")] == [
        2.5, expected.value, expected.value - 2.5, expected.std_error
    ]  # fmt: skip
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "60 samples of each task, seed 3, 4"
    assert said[2].startswith("student-1")
    assert [line.split()[0] for line in said[7:9]] == ["ksg", "kl"]
    assert said[-1] == f"wrote {tmp_path / 'suite'}.csv and {tmp_path / 'suite'}.png"
    assert (tmp_path / "suite.png").stat().st_size > 10_000


def test_the_command_takes_every_estimator_and_task_by_default(run, tmp_path):
    places = {"environment": None, "python": None}
    assert run("--suite") == [(5000, 0, places)]
    with (tmp_path / "suite.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(suite.UNTRAINED)
    assert {row["estimator"] for row in rows} == set(suite.UNTRAINED)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "--quick"], "`--quick` and `--only` choose among figures"),
        (["--suite", "--only", "table2"], "`--quick` and `--only` choose among figures"),
        (["--samples", "60"], "`--samples` needs `--suite`"),
        (["--python", "python3"], "`--python` needs `--suite`"),
        (["--suite", "--tasks", "gamma"], "no task is named 'gamma'"),
    ],
)
def test_options_that_do_not_belong_together(run, arguments, message, capsys):
    with pytest.raises(SystemExit):
        run(*arguments)
    assert message in capsys.readouterr().err
