"""The side environment of the suite, with interpreters that only write down what they are asked."""

import ast
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from captum_mi.benchmarks import _suite_environment, _suite_samples
from captum_mi.benchmarks._suite_environment import REQUIREMENTS, cache, sample_file
from captum_mi.benchmarks.suite import read

FAKE = """\
#!/bin/sh
here=$(dirname "$0")
[ "$1" = -I ] && shift && isolated=yes
case "$*" in
  *version_info*) echo "3 {minor}"; exit ;;
esac
echo "$@" >> {log}
case "$*" in
  "-c import bmi.benchmark") [ -e "$here/bmi" ] ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip install "*) [ -z "$OFFLINE" ] && touch "$here/bmi" ;;
  *) [ -n "$isolated" ] && [ "$JAX_PLATFORMS" = cpu ] && [ -z "$BROKEN" ] && echo drawn > "$2" ;;
esac
"""


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "log"


@pytest.fixture
def python(log, tmp_path):
    """Returns the path of an interpreter, by its own word of Python 3.11."""
    return fake(tmp_path / "python3.11", log, 11)


def fake(path, log, minor):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FAKE.format(log=log, minor=minor))
    path.chmod(0o755)
    return str(path)


def asked(log):
    """Returns what interpreters were asked since the last time."""
    lines = log.read_text().splitlines() if log.exists() else []
    log.write_text("")
    return lines


def test_the_environment_is_made_once_and_samples_are_kept(python, log, tmp_path, capsys):
    folder = tmp_path / "cache" / "captum_mi" / "suite"
    assert cache() == folder
    path = sample_file(60, 1, python=python)
    assert path == folder / "60-samples-seed-1.npz"
    assert path.read_text() == "drawn\n"
    environment = folder / "environment"
    script = Path(_suite_samples.__file__)
    assert asked(log) == [
        f"-m venv {environment}",
        f"-m pip install --prefer-binary -r {environment}/benchmark-mi.txt",
        f"{script} {path} --samples 60 --seed 1",
    ]
    assert (environment / "benchmark-mi.txt").read_text() == REQUIREMENTS
    said = capsys.readouterr().out
    assert f"making {environment} with {python}" in said
    assert f"60 samples of each task, seed 1: drawing {path}" in said

    assert sample_file(60, 1, python="nowhere") == path
    assert asked(log) == []
    other = sample_file(60, 2, python="nowhere")
    assert asked(log) == [
        "-c import bmi.benchmark",
        f"{script} {other} --samples 60 --seed 2",
    ]
    assert sample_file(70, 1) == folder / "70-samples-seed-1.npz"


def test_an_installation_that_was_cut_off_goes_on(python, log, monkeypatch):
    monkeypatch.setenv("OFFLINE", "yes")
    with pytest.raises(OSError, match=r"pip, which needs a network, .* \(exit status 1, reason"):
        sample_file(60, 1, python=python)
    monkeypatch.delenv("OFFLINE")
    asked(log)
    assert sample_file(60, 1, python=python).exists()
    assert [line.split()[1] for line in asked(log)[:3]] == ["import", "venv", "pip"]


def test_an_environment_that_is_there_is_used_and_never_changed(python, log, tmp_path):
    mine = tmp_path / "mine"
    fake(mine / "bin" / "python", log, 11)
    with pytest.raises(ValueError, match=rf"`--environment` {mine} has no benchmark-mi"):
        sample_file(60, 1, environment=mine, python=python)
    assert asked(log) == ["-c import bmi.benchmark"]
    (mine / "bin" / "bmi").touch()
    path = sample_file(60, 1, environment=mine)
    assert [line.split()[0] for line in asked(log)] == ["-c", _suite_samples.__file__]
    assert path.parent == cache()


def test_samples_that_were_not_drawn(python, monkeypatch):
    monkeypatch.setenv("BROKEN", "yes")
    with pytest.raises(OSError, match=r"the samples of seed 5 were not drawn \(exit status 1"):
        sample_file(60, 5, python=python)


@pytest.mark.parametrize("minor", [8, 12, 13])
def test_an_interpreter_that_does_not_suit(log, tmp_path, minor):
    unfit = fake(tmp_path / "python", log, minor)
    with pytest.raises(ValueError, match=rf"Python 3.9 to 3.11, and `--python` {unfit} is none"):
        sample_file(60, 1, python=unfit)
    assert not cache().exists()
    with pytest.raises(ValueError, match="`--python` /no/such/python is none"):
        sample_file(60, 1, python="/no/such/python")


def test_another_interpreter_is_looked_for(log, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", fake(tmp_path / "new", log, 13))
    monkeypatch.setattr(_suite_environment, "which", lambda name: None)
    with pytest.raises(ValueError, match="none was found; name one by `--python`"):
        sample_file(60, 1)
    found = {"python3.10": fake(tmp_path / "ten", log, 10), "python3.9": "/no/such"}
    monkeypatch.setattr(_suite_environment, "which", found.get)
    assert _suite_environment._interpreter(None) == found["python3.10"]
    monkeypatch.setattr(sys, "executable", fake(tmp_path / "old", log, 9))
    assert _suite_environment._interpreter(None) == sys.executable


class Pair:
    """A task of the suite's package: X in float32, and Y is X, the seed added."""

    name, mutual_information = "Pair", np.float32(0.5)

    def sample(self, samples, seed):
        x = np.arange(samples, dtype="f4")[:, None]
        return x, x.astype(float) + seed


@pytest.fixture
def bmi(monkeypatch):
    """Stands in for the suite's package; tasks may be added."""
    tasks = {"first": Pair()}
    benchmark = ModuleType("bmi.benchmark")
    benchmark.BENCHMARK_TASKS = tasks
    monkeypatch.setitem(sys.modules, "bmi", ModuleType("bmi"))
    monkeypatch.setitem(sys.modules, "bmi.benchmark", benchmark)
    return tasks


def draw(path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["script", str(path), "--samples", "4", "--seed", "9"])
    _suite_samples.main()


def test_the_script_draws_every_task(bmi, tmp_path, monkeypatch):
    bmi["second"] = SimpleNamespace(
        name="Title", mutual_information=2, sample=lambda samples, seed: (np.ones((4, 3)),) * 2
    )
    path = tmp_path / "samples.npz"
    draw(path, monkeypatch)
    first, second = read(path)
    assert first[:3] == ("first", "Pair", 0.5)
    assert second[:3] == ("second", "Title", 2.0)
    assert first.x.dtype == np.float32
    np.testing.assert_array_equal(first.x, [[0], [1], [2], [3]])
    np.testing.assert_array_equal(first.y, [[9], [10], [11], [12]])
    assert second.y.shape == (4, 3)
    assert list(tmp_path.iterdir()) == [path]


def test_the_script_leaves_no_half_of_a_file(bmi, tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="disk full"):
        draw(tmp_path / "samples.npz", monkeypatch)
    assert not (tmp_path / "samples.npz").exists()


def test_the_script_needs_nothing_of_ours():
    tree = ast.parse(Path(_suite_samples.__file__).read_text())
    found = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [node.names[0].name])
    }
    assert found == {"__future__", "argparse", "bmi", "json", "numpy", "pathlib", "tqdm", "typing"}
    ast.parse(Path(_suite_samples.__file__).read_text(), feature_version=(3, 9))
