"""Every example of a docstring and of the README runs and shows what it says."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import captum_mi
from captum_mi.datasets import Scenes

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(captum_mi.__path__, "captum_mi.")
    if not name.endswith("__main__")
]


@pytest.fixture(scope="module")
def names(embedded):
    clip, processor = embedded
    return {
        "torch": torch,
        "nn": nn,
        "clip": clip,
        "processor": processor,
        "scene": Scenes(1)[0],
        "pixels": torch.zeros(1, 3, 64, 64),
    }


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name, names):
    module = importlib.import_module(name)
    public = {}
    for source in ("attr", "models", "datasets"):
        package = importlib.import_module(f"captum_mi.{source}")
        public |= {item: getattr(package, item) for item in package.__all__}
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in finder.find(module, extraglobs=names | public | vars(module)):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_readme_snippet(tmp_path, monkeypatch):
    readme = Path(__file__).parents[1] / "README.md"
    (snippet,) = re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    values = {}
    exec(snippet, values)
    assert values["attribution"].shape == (1, 65, 128)
    assert values["heat"].shape == (1, 1, 64, 64)
    assert (tmp_path / "heat.png").stat().st_size > 5000


def test_readme_examples():
    readme = Path(__file__).parents[1] / "README.md"
    results = doctest.testfile(str(readme), module_relative=False)
    assert results.attempted == 6
    assert results.failed == 0


def test_readme_links():
    root = Path(__file__).parents[1]
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", (root / "README.md").read_text())
    assert len(targets) > 15
    assert not [target for target in targets if not (root / target).exists()]


def test_public_names():
    for name in captum_mi.__all__:
        assert getattr(captum_mi, name)
    assert set(captum_mi.__all__) <= set(dir(captum_mi))
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        captum_mi.missing  # noqa: B018


def test_the_version_is_the_projects():
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    (version,) = re.findall(r'^version = "(.*)"$', project, re.MULTILINE)
    assert captum_mi.__version__ == version
    assert "__version__" in dir(captum_mi)


def test_importing_the_package_pulls_nothing_heavy():
    code = (
        "import captum_mi, sys; print({'torch', 'transformers', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_attribution_does_not_need_transformers():
    code = "import captum_mi.attr, captum_mi.models, sys; print('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
