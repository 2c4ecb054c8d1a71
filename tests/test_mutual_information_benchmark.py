"""The benchmark of the estimators: points, files and figures, with as little work as possible."""

import csv
import re

import pytest

from captum_mi.benchmarks import __main__ as command
from captum_mi.benchmarks import mutual_information
from captum_mi.benchmarks.mutual_information import Effort, root_mean_squares
from captum_mi.estimators import Autoencoder, KozachenkoLeonenko


@pytest.fixture
def tiny(monkeypatch):
    effort = Effort(300, (0, 3), (0, 2), 2, 16)
    monkeypatch.setattr(mutual_information, "QUICK", effort)
    monkeypatch.setattr(mutual_information, "FULL", effort)
    monkeypatch.setattr(mutual_information, "FRESH", 200)
    monkeypatch.setattr(mutual_information, "SIZES", (4,))
    yield
    mutual_information._principal.cache_clear()
    mutual_information._autoencoder.cache_clear()


@pytest.mark.parametrize(
    ("function", "name", "count"),
    [
        (mutual_information.gaussian_images, "figure3", 3 * 8 * 2 + 2),
        (mutual_information.rectangles, "figure4", 3 * 8 * 2 + 2),
        (mutual_information.autoencoder_against_pca, "figure6", 3 * 3 * 2),
        (mutual_information.uncompressed, "table2", 3 * 8 + 2 * 4),
    ],
)
@pytest.mark.usefixtures("tiny")
def test_every_figure_is_written(function, name, count, tmp_path):
    rows = function(tmp_path / "new", quick=True)
    assert len(rows) == count
    with (tmp_path / "new" / f"{name}.csv").open() as file:
        assert list(csv.DictReader(file)) == [
            {key: "" if value is None else str(value) for key, value in row._asdict().items()}
            for row in rows
        ]
    assert (tmp_path / "new" / f"{name}.png").stat().st_size > 10_000


@pytest.mark.usefixtures("tiny")
def test_a_point_is_the_estimate_of_the_seeded_parameters(tmp_path):
    points = mutual_information.gaussian_images(tmp_path, quick=True)
    (point,) = (p for p in points if (p.code, p.estimator, p.truth) == ("parameters", "KL", 3))
    sampler = mutual_information.SAMPLERS["2-D Gaussians"](3, 4, 1)
    expected = KozachenkoLeonenko().estimate(*sampler.parameters.sample(300, 1))
    assert (point.estimate, point.std_error) == (expected.value, expected.std_error)
    assert len(root_mean_squares(points)) == 3 * 8 + 1


@pytest.mark.usefixtures("tiny")
def test_a_compressor_is_trained_once():
    arguments = ("rectangles", 4, 4, mutual_information.QUICK)
    first = mutual_information._autoencoder(*arguments)
    assert isinstance(first, Autoencoder)
    assert mutual_information._autoencoder(*arguments) is first


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("name", "title", "line", "estimators"),
    [
        ("figure6", "root mean squared error, nats,", "anti-PCA PCA", ["WKL"]),
        ("table2", "mean squared error, square nats,", "4 raw", ["KL", "KSG", "KDE", "KDE"]),
    ],
)
def test_the_command_prints_a_line_for_each_code(
    name, title, line, estimators, tmp_path, capsys, monkeypatch
):
    arguments = ["mi", "--quick", "--only", name, "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["benchmarks", *arguments])
    command.main()
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first == f"{name}: {title} over the known informations"
    (found,) = (one.strip() for one in lines if one.strip().startswith(f"{line} "))
    assert re.findall(r"([A-Z]+)(?: ML| LSE)? [\d.e+]+", found[len(line) :]) == estimators
    assert last == f"  wrote {tmp_path / name}.csv and {tmp_path / name}.png"
