"""``captum-mi estimate``: what it reads, what it prints, and what it says about bad input."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from captum_mi.cli import main
from captum_mi.cli._variables import read_variables
from captum_mi.datasets import CorrelatedNormals, GaussianBumps
from captum_mi.estimators import (
    ESTIMATORS,
    KSG,
    MINE,
    NEURAL,
    PCA,
    Compressed,
    CopulaNeighbors,
    MutualInformation,
    Training,
    mutual_info_matrix,
)


@pytest.fixture
def samples():
    return CorrelatedNormals(1.0, dim_x=3, dim_y=2).sample(400, seed=3)


def nats(out):
    return float(re.search(r"mutual information (-?\d+\.\d+) nats", out).group(1))


def test_without_a_file_the_truth_is_known(capsys):
    assert main(["estimate"]) == 0
    out = capsys.readouterr().out
    assert "the truth is 2.000 nats" in out
    rows = re.findall(
        r"^([\w-]+) +(\d\.\d+) +(\d\.\d+) +(\d\.\d+) to (\d\.\d+)$", out, re.MULTILINE
    )
    assert [row[0] for row in rows] == [
        name for name in ESTIMATORS if name not in ("plugin", *NEURAL)
    ]
    for _, value, error, low, high in rows:
        assert abs(float(value) - 2) < 0.15
        assert float(high) - float(low) == pytest.approx(2 * 1.96 * float(error), abs=3e-3)


def test_every_layout_gives_the_same(samples, tmp_path, capsys):
    x, y = samples
    expected = CopulaNeighbors().estimate(x, y)
    table = np.hstack([x, y])
    np.savez(tmp_path / "two.npz", first=x, second=y)
    np.savez(tmp_path / "named.npz", y=y, other=y[:3], x=x)
    np.save(tmp_path / "one.npy", table)
    np.savetxt(tmp_path / "plain.csv", table, delimiter=",")
    header = "a,b,c,d,e"
    np.savetxt(tmp_path / "header.csv", table, delimiter=",", header=header, comments="")
    np.savetxt(tmp_path / "table.tsv", table, delimiter="\t")
    columns = ["--x", "0-2", "--y", "3,4"]
    for arguments in (
        ["two.npz"],
        ["two.npz", "--x", "first", "--y", "second"],
        ["named.npz"],
        ["one.npy", *columns],
        ["plain.csv", *columns],
        ["header.csv", *columns],
        ["header.csv", "--x", "a,b,c", "--y", "d,e"],
        ["table.tsv", *columns],
    ):
        assert main(["estimate", str(tmp_path / arguments[0]), *arguments[1:]]) == 0
        out = capsys.readouterr().out
        assert nats(out) == pytest.approx(expected.value, abs=1e-3)
        assert "x (400, 3), y (400, 2): 400 samples" in out


def test_methods_labels_and_json(samples, tmp_path, capsys):
    x, _ = samples
    labels = np.where(x[:, 0] > 0, "high", "low")
    rows = ["height,width,depth,kind"]
    for row, label in zip(x.tolist(), labels, strict=True):
        rows.append(",".join([*map(repr, row), label]))
    (tmp_path / "table.csv").write_text("\n".join(rows))
    arguments = ["estimate", str(tmp_path / "table.csv"), "--x", "height,width", "--y", "kind"]
    arguments += [
        "--discrete",
        "--method",
        "ksg",
        "--k",
        "5",
        "--out",
        str(tmp_path / "a" / "b.json"),
    ]
    assert main(arguments) == 0
    expected = KSG(5).estimate_discrete(x[:, :2], labels)
    assert nats(capsys.readouterr().out) == pytest.approx(expected.value, abs=1e-3)
    written = json.loads((tmp_path / "a" / "b.json").read_text())
    assert written["nats"] == pytest.approx(expected.value)
    assert written["estimator"] == expected.estimator
    assert written["interval"] == pytest.approx(expected.interval(0.95))
    assert written["samples"] == 400


def test_images_are_compressed_first(tmp_path, capsys):
    x, y = GaussianBumps(2.0).sample(500, seed=1)
    np.savez(tmp_path / "images.npz", x=x, y=y)
    arguments = ["estimate", str(tmp_path / "images.npz"), "--compress", "pca:2"]
    assert main(arguments) == 0
    expected = Compressed(MutualInformation(), x=PCA(2), y=PCA(2)).estimate(x, y)
    assert nats(capsys.readouterr().out) == pytest.approx(expected.value, abs=1e-3)


def test_a_critic_reads_images_as_they_are(tmp_path, capsys, monkeypatch):
    quick = Training(steps=20, batch_size=16)
    monkeypatch.setitem(ESTIMATORS, "mine", lambda: MINE(hidden=(8,), training=quick))
    x, y = GaussianBumps(2.0, size=8).sample(100, seed=1)
    np.savez(tmp_path / "images.npz", x=x, y=y)
    assert main(["estimate", str(tmp_path / "images.npz"), "--method", "mine"]) == 0
    out = capsys.readouterr().out
    expected = MINE(hidden=(8,), training=quick).estimate(x, y)
    assert nats(out) == pytest.approx(expected.value, abs=1e-3)
    assert "MINE(critic='separable', hidden=(8,), training=Training(steps=20" in out


def test_narrow_variables_are_left_as_they_are(samples, tmp_path, capsys):
    x, y = samples
    np.savez(tmp_path / "two.npz", x=x, y=y)
    assert main(["estimate", str(tmp_path / "two.npz"), "--compress", "pca:2"]) == 0
    expected = Compressed(MutualInformation(), x=PCA(2)).estimate(x, y)
    assert nats(capsys.readouterr().out) == pytest.approx(expected.value, abs=1e-3)


def test_labels_are_read_as_they_are_written(tmp_path):
    big = 10**18
    rows = [f"{i}, {big + i % 4} " for i in range(8)]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    x, y = read_variables(tmp_path / "t.csv", discrete=True)
    assert x.tolist() == [[float(i)] for i in range(8)]
    assert y.tolist() == [str(big + i % 4) for i in range(8)]


def test_the_variables_called_x_and_y_are_meant(tmp_path):
    (tmp_path / "two.csv").write_text("y,x\n2,3\n5,6\n")
    (tmp_path / "three.csv").write_text("z,y,x\n1,2,3\n4,5,6\n")
    np.savez(tmp_path / "two.npz", y=[[2], [5]], x=[[3], [6]])
    for name in ("two.csv", "three.csv", "two.npz"):
        x, y = read_variables(tmp_path / name)
        assert x.tolist() == [[3], [6]]
        assert y.tolist() == [[2], [5]]


def test_a_table_in_npy_keeps_its_numbers(tmp_path):
    np.save(tmp_path / "t.npy", np.array([[1, 2, 7], [3, 4, 8]], dtype=np.float32))
    x, y = read_variables(tmp_path / "t.npy", "2,0", "1", discrete=True)
    assert x.dtype == np.float32
    assert x.tolist() == [[7, 1], [8, 3]]
    assert y.tolist() == [2, 4]


@pytest.mark.parametrize(
    ("text", "x", "y", "shape"),
    [
        ("a;b\n1;2\n3;4\n", None, None, (2, 1)),
        ("2019,2020\n1,2\n3,4\n", "2019", "2020", (2, 1)),
        ("2019,2020\n1,2\n3,4\n", "0", "1", (3, 1)),
        ("\ufeffa,b\n1,2\n\n3,4\n , \n", "a", "b", (2, 1)),
        ('"one, two",b\n1,2\n3,4\n', "0", "1", (2, 1)),
        ('"one, two",b\n1,2\n3,4\n', None, None, (2, 1)),
        ("a,a\n1,2\n3,4\n", None, None, (2, 1)),
        ("1,2\n", None, None, (1, 1)),
    ],
)
def test_headers_and_delimiters(text, x, y, shape, tmp_path):
    (tmp_path / "t.CSV").write_text(text, encoding="utf-8")
    assert [part.shape for part in read_variables(tmp_path / "t.CSV", x, y)] == [shape, shape]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.npz"], "No such file or directory: 'nowhere.npz'"),
        (["notes.txt"], r"FILE must be a .npz, .npy, .csv or .tsv file, got 'notes.txt'"),
        (["broken.npz"], "'broken.npz' cannot be read"),
        (["nowhere.csv"], "No such file or directory: 'nowhere.csv'"),
        (["three.npz"], "'three.npz' holds the arrays a, b, c; say which of them x is, with `--x`"),
        (["three.npz", "--x", "b"], "'three.npz' holds .* say which of them y is, with `--y`"),
        (["three.npz", "--x", "a,b", "--y", "c"], "`--x` and `--y` must name one array each"),
        (["one.npz"], "'one.npz' holds the arrays a; it must hold two, x and y"),
        (["empty.csv"], "'empty.csv' cannot be read .No columns to parse from file"),
        (["blank.csv"], "'blank.csv' cannot be read .it is empty"),
        (["table.csv", "--x", "1-0", "--y", "2"], "`--x` names '1-0', but 'table.csv' holds the c"),
        (["latin.csv"], "'latin.csv' cannot be read .it is no UTF-8 text; save it as UTF-8."),
        (["two.npz", "table.csv"], "there is no 'table.csv' here; captum-mi estimate --help lists"),
        (["two.npz", "--x", "q", "--y", "b"], "`--x` names 'q', but .* the arrays a, b$"),
        (["short.npz"], "`x` and `y` must have the same number of samples, got 20 and 19"),
        (["nan.npz"], "`x` must be finite, got NaN or infinity in 1 of 20 rows"),
        (["constant.npz", "--method", "ksg"], "`y` has constant columns, 0"),
        (["image.npz", "--method", "ksg"], r"x has shape \(20, 4, 4\); give `--compress pca:4`"),
        (
            ["table.csv", "--y", "1"],
            "'table.csv' holds the columns 0, 1, 2; say which of them x is, with `--x`",
        ),
        (["table.csv", "--x", "0", "--y", "7"], "`--y` names '7', but .* the columns 0, 1, 2$"),
        (["table.csv", "--x", "0-9", "--y", "1"], "`--x` names '0-9', but 'table.csv' holds"),
        (["table.csv", "--x", "0", "--y", "1,2", "--discrete"], "`--y` must name one column of la"),
        (["ragged.csv"], r"'ragged.csv' cannot be read \(Expected 2 fields in line 2, saw 3\)"),
        (["hole.csv"], "column '1' has '' in row 2, among numbers or texts; drop the row"),
        (["hole.csv", "--method", "kl"], "column '1' has '' in row 2, which is no number; drop"),
        (
            ["hole.csv", "--discrete", "--method", "kl"],
            "column '1' .* row 2, which is no label",
        ),
        (
            ["twice.csv", "--x", "a", "--y", "b"],
            "`--x` names 'a', but .* columns a, a, b; give its number",
        ),
        (["objects.npz"], "'objects.npz' cannot be read .it holds no array of numbers"),
        (["flat.npz", "--compress", "pca:2"], "`N of --compress` must be at most 1, the rank of"),
        (["--compress", "zip:4"], "`--compress` must be pca:N or autoencoder:N, got"),
        (["--k", "3", "--method", "ksg"], "`--k` needs a FILE"),
        (["--out", "demo.json"], "`--out` needs a FILE"),
        (["cube.npy"], r"'cube.npy' cannot be read .Must pass 2-d input. shape=\(2, 2, 2\)"),
        (
            ["two.npz", "--method", "magic"],
            "`--method` must be one of 'auto', 'copula', .*, got 'mag",
        ),
        (["two.npz", "--method", "wkl", "--k", "0"], "`--k` must be at least 1, got 0"),
        (
            ["two.npz", "--method", "wkl", "--k", "30"],
            "at least 31 samples .* or choose a smaller `--k`",
        ),
        (
            ["two.npz", "--method", "kde", "--k", "3"],
            "`--k` is for copula, .*; kde takes none",
        ),
        (["two.npz", "--compress", "zip:4"], "`--compress` must be pca:N or autoencoder:N, got"),
        (
            ["two.npz", "--compress", "pca"],
            "`--compress` must be pca:N or autoencoder:N, got 'pca'",
        ),
        (["labels.npz", "--discrete", "--method", "wkl"], "`x of label 9` must hold at least 6"),
        (
            ["same.npz", "--method", "kl"],
            "at distance 0 .*; take `--method auto`, use `--discrete` with .* as `y`, drop",
        ),
        (
            ["same.npz", "--method", "kde"],
            "no best bandwidth.*drop repeated samples, or give `bandwidth of KernelDensity in Py",
        ),
        (["short-wide.npz", "--method", "kde"], "`y` is degenerate: 20 .* with `--compress pca:N`"),
        (["short-wide.npz", "--compress", "pca:30"], "at least 30 .* lower `N of --compress`"),
        (
            ["texts.npz", "--method", "ksg"],
            "`x` must hold numbers, got texts; use `--discrete`",
        ),
        (
            ["two.npz", "--method", "ksg", "--jitter", "nan"],
            "`--jitter` must be at least 0 and finite",
        ),
        (["nan.npz", "--x", "y", "--y", "x", "--compress", "pca:1"], "`y` must be finite"),
        (["nan-wide.npz", "--compress", "pca:1"], "`y` must be finite"),
        (
            ["two-labels.npz", "--discrete", "--method", "ksg"],
            r"`y` must be \(20,\), one for each",
        ),
        (["two.npz", "--out", "."], "`--out` must name a file, '.' is a folder"),
        (["two.npz", "--out", "table.csv/a.json"], "`--out` cannot be written: .*table.csv'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20, 1))
    np.savez("two.npz", a=a, b=b)
    np.savez("one.npz", a=a)
    (tmp_path / "latin.csv").write_bytes("höhe,b\n1,2\n3,4\n".encode("latin-1"))
    np.savez("three.npz", a=a, b=b, c=b)
    np.savez("short.npz", x=a, y=b[1:])
    np.savez("nan.npz", x=np.where(np.arange(20)[:, None] == 3, np.nan, a), y=b)
    np.savez("constant.npz", x=a, y=np.ones((20, 1)))
    np.savez("image.npz", x=rng.normal(size=(20, 4, 4)), y=b)
    wide = rng.normal(size=(40, 40))
    np.savez("short-wide.npz", x=wide[:20], y=wide[20:40])
    np.savez("nan-wide.npz", x=wide[:20], y=np.where(np.eye(20, 40) > 0, np.nan, wide[:20]))
    np.savez("texts.npz", x=np.where(a[:, 0] > 0, "high", "low"), y=b)
    np.savez("two-labels.npz", x=a, y=np.ones((20, 2), dtype=int))
    np.savez("labels.npz", x=a, y=np.where(np.arange(20) < 2, 9, 1))
    np.savez("same.npz", x=np.repeat(a[:10], 2, axis=0), y=np.repeat(b[:10], 2, axis=0))
    np.save("cube.npy", np.zeros((2, 2, 2)))
    (tmp_path / "broken.npz").write_bytes(b"PK no zip")
    (tmp_path / "table.csv").write_text("1,2,3\n4,5,6\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "blank.csv").write_text(" ,\n")
    (tmp_path / "hole.csv").write_text("1,2\n3,\n5,6\n")
    (tmp_path / "twice.csv").write_text("a,a,b\n1,2,3\n4,5,6\n")
    np.savez("objects.npz", x=np.array([{}, {}]), y=b)
    np.savez("flat.npz", x=np.hstack([a, a, 2 * a]), y=b)
    (tmp_path / "ragged.csv").write_text("1,2\n4,5,6\n")
    assert main(["estimate", *arguments]) == 2
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if "warning" not in line]
    assert len(lines) == 1
    assert re.search(words, lines[0])
    variables = ("x", "y", "(x, y)", "x of label 9", "bandwidth of KernelDensity in Python")
    for name in re.findall("`([^`]*)`", err):
        assert name.startswith(("--", "N of --")) or name in variables


def test_a_table_of_many_columns_is_a_matrix(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    a = rng.standard_normal(200)
    table = pd.DataFrame({"a": a, "b": a + rng.standard_normal(200), "c": rng.standard_normal(200)})
    table["pet"] = np.where(a > 0, "cat", "dog")
    table.loc[3, "b"] = np.nan
    table.to_csv(tmp_path / "table.csv", index=False)
    monkeypatch.chdir(tmp_path)
    assert main(["estimate", "table.csv", "--permutations", "39", "--out", "found/all.csv"]) == 0
    out = capsys.readouterr().out
    assert "200 rows, 4 columns\n  continuous: a, b, c\n  label: pet\n" in out
    expected = mutual_info_matrix(table, permutations=39)
    written = pd.read_csv("found/all.csv")
    assert len(written) == 6
    for row in written.itertuples():
        assert row.nats == pytest.approx(expected.values.loc[row.column, row.other])
        assert row.std_error == pytest.approx(expected.std_errors.loc[row.column, row.other])
        assert row.p_value == pytest.approx(expected.p_values.loc[row.column, row.other])
    assert written.nats.is_monotonic_decreasing
    assert re.search(r"^  0\.\d{3}      0\.\d{3}  0\.025  a, pet$", out, re.MULTILINE)
    assert re.search(r"  b, c  \(not told from independence\)$", out, re.MULTILINE)
    assert (tmp_path / "found" / "all.png").stat().st_size > 5000
    assert main(["estimate", "table.csv", "--method", "ksg"]) == 2
    assert "name `--x` and `--y` for another `--method`" in capsys.readouterr().err


def test_texts_and_a_test_of_independence(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    a = rng.standard_normal(200)
    pet = np.where(a > 0, "cat", "dog")
    pd.DataFrame({"a": a, "pet": pet, "c": -a}).to_csv(tmp_path / "t.csv", index=False)
    monkeypatch.chdir(tmp_path)
    arguments = ["estimate", "t.csv", "--x", "a", "--y", "pet", "--out", "found.json"]
    assert main([*arguments, "--permutations", "19"]) == 0
    out = capsys.readouterr().out
    assert "KSG was chosen: one variable is a label, the other is in an order.\n" in out
    assert "test of independence, 19 permutations: p = 0.0500" in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["p_value"] == 0.05
    assert found["notes"][0].startswith("KSG was chosen")
    assert found["nats"] == pytest.approx(MutualInformation().estimate(a, pet).value, abs=1e-6)
