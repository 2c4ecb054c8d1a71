"""The environment of its own that ``benchmark-mi`` needs, and what is drawn in it.

Its versions of JAX, NumPy and SciPy are older than those that this package is used with.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import which

from captum_mi.benchmarks import _suite_samples

REQUIREMENTS = """\
benchmark-mi==0.1.3
jax==0.4.26
jaxlib==0.4.26
numpy<2
scipy<1.13
"""
NEWEST, OLDEST = 11, 9
"""Of Python 3: no wheels of pandas 1, which benchmark-mi needs, were built for newer ones."""

VERSION = "import sys; print(*sys.version_info[:2])"


def cache() -> Path:
    """Returns the folder that keeps the environment and the samples."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "captum_mi" / "suite"


def sample_file(
    samples: int, seed: int, *, environment: Path | None = None, python: str | None = None
) -> Path:
    """Returns the file of the samples of every task, which is drawn if it is not there.

    Args:
        samples: N, of each task.
        seed: of each task.
        environment: folder of a virtual environment that has ``benchmark-mi``, or of one to make
            if it is not there; None for one in the cache.
        python: the interpreter to make it with; None for this one, or one of ``PATH``.

    Raises:
        OSError: if the environment could not be made, or the samples not drawn in it.
        ValueError: if no interpreter suits, or the environment has no ``benchmark-mi``.
    """
    path = cache() / f"{samples}-samples-seed-{seed}.npz"
    if not path.exists():
        interpreter = _prepared(environment or cache() / "environment", python)
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"{samples:,} samples of each task, seed {seed}: drawing {path}", flush=True)
        script = [_suite_samples.__file__, path, "--samples", samples, "--seed", seed]
        _run([interpreter, *script], f"the samples of seed {seed} were not drawn")
    return path


def _prepared(folder: Path, python: str | None) -> Path:
    """Returns the interpreter of the environment, which is made if it is not there."""
    interpreter = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ours = folder / "benchmark-mi.txt"
    if interpreter.exists() and _succeeds([interpreter, "-c", "import bmi.benchmark"]):
        return interpreter
    if folder.exists() and not ours.exists():
        raise ValueError(
            f"`--environment` {folder} has no benchmark-mi that can be imported; name a folder"
            " that is not there, and it is made"
        )
    maker = _interpreter(python)
    print(f"benchmark-mi needs an environment of its own, 0.8 GB: making {folder} with {maker}")
    folder.mkdir(parents=True, exist_ok=True)
    ours.write_text(REQUIREMENTS)  # first: an installation that was cut off goes on
    _run([maker, "-m", "venv", folder], f"{maker} made no environment")
    _run(
        [interpreter, "-m", "pip", "install", "--prefer-binary", "-r", ours],
        "pip, which needs a network, did not install benchmark-mi; run again to go on, or name an"
        " environment that has it by `--environment`",
    )
    return interpreter


def _interpreter(python: str | None) -> str:
    """Returns an interpreter that ``benchmark-mi`` can be installed for."""
    minors = range(NEWEST, OLDEST - 1, -1)
    others = filter(None, (which(f"python3.{minor}") for minor in minors))
    for candidate in [sys.executable, *others] if python is None else [python]:
        if _minor(candidate) in minors:
            return candidate
    named = f"`--python` {python} is none" if python else "none was found"
    raise ValueError(
        f"benchmark-mi needs Python 3.{OLDEST} to 3.{NEWEST}, and {named}; name one by"
        f" `--python`, such as /usr/bin/python3.{NEWEST}"
    )


def _minor(python: str) -> int | None:
    """Returns the m of Python 3.m; None if that is no interpreter of Python 3."""
    try:
        said = subprocess.run([python, "-c", VERSION], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    major, minor = said.stdout.split()
    return int(minor) if major == "3" else None


def _succeeds(command: Sequence[object]) -> bool:
    return _status(command, quiet=True) == 0


def _run(command: Sequence[object], failure: str) -> None:
    status = _status(command)
    if status:
        raise OSError(f"{failure} (exit status {status}, reason above)")


def _status(command: Sequence[object], *, quiet: bool = False) -> int:
    """Runs an interpreter, and returns its exit status.

    ``-I`` hides from it the folder of the script, whose modules are named like others, and what
    this process's environment adds.
    """
    program, *arguments = map(str, command)
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run(
        [program, "-I", *arguments],
        stdout=output,
        stderr=output,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        check=False,
    ).returncode
