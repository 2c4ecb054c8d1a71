"""The layout of the package: which part may import which, and where each thing has its home."""

import ast
import re
from pathlib import Path
from statistics import median

PACKAGE = Path(__file__).parents[1] / "captum_mi"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = [
    {"_checks", "_lazy", "_protocols", "_training", "_records", "_state_file", "_intervention"},
    {"maps"},
    {"estimators", "datasets", "visualization"},
    {"models", "attr", "infoplane", "infomax"},
    {"metrics", "explanation"},
    {"evaluation"},
    {"benchmarks"},
    {"cli"},
    {"__main__"},
]
"""From the ground up: a part imports what lies below it."""

ASIDE = {"models": {"attr"}, "_intervention": {"_checks"}, "infomax": {"models"}}
"""What a part may import of its own floor."""


def name_of(path):
    return str(path.relative_to(PACKAGE))


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    """Yields the full names that a file imports, those of type checks too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_part_has_a_floor():
    assert {part_of(path) for path in FILES} - {"__init__"} <= set().union(*FLOORS)


def test_imports_run_downwards():
    upwards = set()
    for path in FILES:
        part = part_of(path)
        if part == "__init__":  # loads every part when it is first used
            continue
        (own,) = (i for i, floor in enumerate(FLOORS) if part in floor)
        allowed = set().union(*FLOORS[:own]) | ASIDE.get(part, set()) | {part}
        parts = {name.split(".")[1] for name in imports_of(path) if name.startswith("captum_mi.")}
        upwards |= {f"{name_of(path)} -> {other}" for other in parts - allowed}
    assert not upwards


def test_no_modules_import_each_other():
    """Inside a part there is no circle either."""
    modules = {}
    for path in FILES:
        parts = ("captum_mi", *path.relative_to(PACKAGE).with_suffix("").parts)
        modules[".".join(parts).removesuffix(".__init__")] = path
    wanted = {}
    for module, path in modules.items():
        homes = {name if name in modules else name.rpartition(".")[0] for name in imports_of(path)}
        wanted[module] = homes & set(modules) - {module, "captum_mi"}
    del wanted["captum_mi"]
    while free := {module for module, others in wanted.items() if not others & set(wanted)}:
        wanted = {module: others for module, others in wanted.items() if module not in free}
    assert not wanted, "these import each other, or what does"


def test_private_names_stay_in_their_part():
    """Those of the ground floor, such as ``_checks``, are private to the package as a whole."""
    strangers = {
        f"{name_of(path)} -> {name}"
        for path in FILES
        for name in imports_of(path)
        if name.startswith("captum_mi.")
        and name.split(".")[1] not in FLOORS[0] | {part_of(path)}
        and any(part.startswith("_") for part in name.split(".")[2:])
    }
    assert not strangers


def test_one_door_to_the_private_names_of_other_libraries():
    through = {
        name_of(path)
        for path in FILES
        for name in imports_of(path)
        if not name.startswith(("captum_mi", "__future__"))
        and any(part.startswith("_") for part in name.split("."))
    }
    assert through == {"attr/_captum.py"}


def test_files_stay_small():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert not {name: length for name, length in lengths.items() if length > 400}
    assert median(lengths.values()) <= 160


def test_suppressions_stay_few():
    texts = [path.read_text() for path in FILES]
    found = sum(len(re.findall("# (?:noqa|type: ignore)", text)) for text in texts)
    assert 1000 * found <= 4 * sum(len(text.splitlines()) for text in texts)


def test_docstrings_of_functions_start_with_a_verb():
    """In the third person, as PyTorch's newer ones do; properties may be nouns."""
    others = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            text = ast.get_docstring(node)
            if text is None or "property" in {ast.unparse(one) for one in node.decorator_list}:
                continue
            first = text.split()[0]
            if not re.fullmatch("[A-Z][a-z]+s,?", first) or first in {"This", "Is"}:
                others.add(f"{name_of(path)} {node.name}: {text.splitlines()[0]}")
    assert not others
