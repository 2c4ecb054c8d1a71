"""``captum-mi evaluate``: its table, its records, and what a killed run leaves."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from families import build
from PIL import Image
from scipy.stats import sem

from captum_mi._records import RecordWriter, read_records
from captum_mi.attr.methods import ready_methods
from captum_mi.cli import main
from captum_mi.datasets import Pair, scene_pairs
from captum_mi.evaluation.controls import CONTROLS
from captum_mi.evaluation.method_row import MethodRow
from captum_mi.evaluation.passes import count_passes
from captum_mi.evaluation.published import headline, published, published_text_confidence
from captum_mi.evaluation.report import (
    advantage,
    comparisons,
    examples,
    summarize,
    sweep_plot,
    table,
)
from captum_mi.evaluation.rows import SWEEPS, sweep_rows, table_rows
from captum_mi.evaluation.run import Evaluation, evaluate
from captum_mi.explanation import TowerStatistics, attribute_image, attribute_text
from captum_mi.maps import image_map, min_max
from captum_mi.models import ImageTextSimilarity

QUICK = ["--methods", "nib", "chefer", "random", "--steps", "3", "--examples", "1"]
SCORES = ("image_drop", "image_increase", "text_drop", "text_increase")


def scores(record):
    return [record[name] for name in SCORES]


def run(folder, *arguments):
    assert main(["evaluate", *QUICK, "--samples", "3", *arguments, "--out", str(folder)]) == 0


def lines_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def without_speed(lines):
    return [
        {name: value for name, value in line.items() if name != "maps_per_second"} for line in lines
    ]


def test_the_table_is_the_mean_of_its_records(tmp_path, capsys):
    run(tmp_path / "run")
    records = read_records(tmp_path / "run")
    assert len(records) == 9
    lines = lines_of(tmp_path / "run" / "table.csv")
    assert [line["row"] for line in lines] == ["nib", "chefer", "random"]
    for line in lines:
        own = [record for record in records if record["row"] == line["row"]]
        for name in (*SCORES, "hit", "exact", "mass_inside", "other_negative"):
            values = [record[name] for record in own]
            assert float(line[name]) == pytest.approx(np.mean(values))
            assert float(line[f"{name}_se"]) == pytest.approx(sem(values), abs=1e-12)
        middle = np.median([one["image_seconds"] + one["text_seconds"] for one in own])
        assert float(line["maps_per_second"]) == pytest.approx(2 / middle)
        for name in ("image_gap", "text_gap"):
            gaps = [record[name] for record in own if name in record]
            assert float(line[name] or "nan") == pytest.approx(
                np.median(gaps or [np.nan]), nan_ok=True
            )
            assert bool(gaps) == (line["row"] == "nib")
    stored = json.loads((tmp_path / "run" / "table.json").read_text())
    assert stored["settings"]["samples"] == 3
    assert [line["row"] for line in stored["rows"]] == ["nib", "chefer", "random"]
    with Image.open(tmp_path / "run" / "examples.png") as page:
        assert page.size[0] > 500
    out = capsys.readouterr().out
    assert "3 pairs, 0 skipped" in out
    assert re.search(r"nib +-?\d+\.\d\d +\d+\.\d\d ", out)
    assert "±" not in out
    assert "that of random" not in out
    assert "fewer than 30 pairs are too few for standard errors, and for comparisons" in out


def test_examples_are_drawn_in_their_unit_with_their_drop():
    rows = table_rows(["nib", "m2ib", "random"], (3, 1))
    heat, pixels = (-torch.eye(4)).tolist(), torch.zeros(3, 4, 4).tolist()
    records = [
        {"index": 0, "text": "a heart", "row": row.name, "heat": heat, "image_drop": drop}
        | {"pixels": pixels}
        for row, drop in zip(rows[:2], (7.6, 12.0), strict=True)
    ]
    figure = examples(records, rows)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"a heart", "nib", "m2ib", "random", "drop 8", "drop 12"} <= set(texts)
    assert "red raises the cosine, blue lowers it: nib" in texts
    assert "the darker, the more nats are needed: m2ib" in texts
    assert "the darker, the more relevant: random" in texts
    assert len([axes for axes in figure.axes if axes.get_images()]) == 3 + 3  # scales, pictures
    assert examples([], rows) is None


def test_records_are_the_metrics_of_the_maps(embedded):
    model, processor = embedded
    evaluation = Evaluation(model, processor)
    sample = evaluation.read(scene_pairs(3, seed=4)[1])
    record = evaluation.run(MethodRow("nib", "nib", (3, 1), options={"n_steps": 4}), sample)
    similarity = ImageTextSimilarity(model, processor, [sample.pair.text])
    of_image = attribute_image(
        "nib", similarity, processor, sample.pixels, 0, hidden_state=3, n_steps=4
    )
    heat = image_map(of_image.values, sample.pixels, model=model)
    with torch.no_grad():
        before, after = (
            float(similarity(x)) for x in (sample.pixels, sample.pixels * min_max(heat))
        )
    assert record["cosine"] == pytest.approx(before)
    assert record["image_drop"] == pytest.approx(100 * max(before - after, 0), abs=1e-3)
    assert record["image_increase"] == 100 * (after > before)
    of_text = attribute_text(
        "nib", sample.to_image, processor, sample.encoded, 0, hidden_state=1, n_steps=4
    )
    for row, sign in zip(table_rows(["nib", "inverted"], (3, 1), n_steps=4), (1, -1), strict=True):
        torch.testing.assert_close(row.image_map(sample).values, sign * heat)
        scores = row.token_scores(sample).values[0, 0]
        torch.testing.assert_close(scores, sign * of_text.values[0].sum(-1))
    assert record["image_gap"] == pytest.approx(float(of_image.gap), abs=1e-6)
    assert record["text_gap"] == pytest.approx(float(of_text.gap), abs=1e-6)


@pytest.mark.parametrize("method", [*ready_methods(), *CONTROLS])
def test_every_row_runs_on_another_family(method):
    model, processor = build("siglip")
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    )
    pair = Pair("one", "a red circle", picture)
    fitted = partial(TowerStatistics.fit, model, processor, [pair, pair])
    (row,) = table_rows([method], (3, 3), fitted, n_steps=3, n_masks=20)
    evaluation = Evaluation(model, processor)
    record = evaluation.run(row, evaluation.read(pair), example=True)
    assert np.isfinite(scores(record)).all()
    assert "hit" not in record
    assert np.shape(record["heat"]) == (32, 32)
    assert np.shape(record["pixels"]) == (3, 32, 32)


def test_the_published_text_score_is_another(embedded):
    model, processor = embedded
    row = MethodRow("nib", "nib", (3, 1), options={"n_steps": 4})
    records = []
    for text_confidence in (None, published_text_confidence):
        evaluation = Evaluation(model, processor, text_confidence=text_confidence)
        records.append(evaluation.run(row, evaluation.read(scene_pairs(1)[0])))
    assert records[0]["image_drop"] == records[1]["image_drop"]
    assert records[0]["text_drop"] != pytest.approx(records[1]["text_drop"])


def test_passes_are_those_of_the_papers_table(embedded):
    model, processor = embedded
    evaluation = Evaluation(model, processor)
    sample = evaluation.read(scene_pairs(1)[0])
    expected = {
        # Per modality: the other encoder, one whole run, n suffixes, the last of them alone, and
        # both ends of the path for the completeness gap.
        "nib-zero": (2 * (10 + 3 + 2), 2 * 10),
        # A whole run on the blank input; three copies and three alone check the suffix.
        "nib": (2 * (1 + 2 + 10 + 6 + 2), 2 * 10),
        "gradcam": (2 * 3, 2),
        "chefer": (2 * 2, 2),
        "attention": (2 * 2, 2),
        "fastig": (2 * 3, 2),
        "mfaba": (2 * 13, 2 * 11),
        "rise": (2 * (1 + 5 + 30), 0),  # the suffix is checked with a few copies
        "random": (2, 0),
    }
    for method, (forward, backward) in expected.items():
        (row,) = table_rows([method], (3, 1), n_steps=10, n_masks=30)
        record = evaluation.run(row, sample)
        found = record["forward"], record["backward"]
        assert found == (forward, backward), method


def test_counting_leaves_no_hooks(embedded):
    model, _ = embedded
    before = sum(len(module._forward_hooks) for module in model.modules())
    with pytest.raises(ZeroDivisionError), count_passes(model):
        1 / 0  # noqa: B018
    assert sum(len(module._forward_hooks) for module in model.modules()) == before


def test_a_killed_run_goes_on_to_the_same_table(tmp_path, capsys):
    run(tmp_path / "whole")
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "captum_mi", "evaluate", *QUICK, "--samples", "3"]
    process = subprocess.Popen(
        [*command, "--out", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    records = folder / "records-0.jsonl"
    while not (records.exists() and records.read_text().count("\n") >= 2):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = read_records(folder)
    assert 2 <= len(before) < 9
    with records.open("a") as file:
        file.write('{"index": 2, "row": "ni')  # killed in the middle of a line
    capsys.readouterr()
    run(folder)
    said = capsys.readouterr().err
    assert re.search(r"going on with a run that stopped: [012] pairs are done", said)
    assert read_records(folder)[: len(before)] == before
    assert without_speed(lines_of(folder / "table.csv")) == without_speed(
        lines_of(tmp_path / "whole" / "table.csv")
    )
    finished = records.read_text()
    run(folder)  # nothing is left to do
    assert records.read_text() == finished


def test_two_processes_share_the_pairs_killed_and_resumed(tmp_path):
    run(tmp_path / "alone")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    command += ["--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["-m", "captum_mi", "evaluate", *QUICK, "--samples", "3"]
    folder = tmp_path / "two"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    options = {"env": environment, "stderr": subprocess.DEVNULL, "text": True}
    command += ["--out", str(folder)]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True, **options)
    while len(read_records(folder)) < 2:
        assert killed.poll() is None
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert 2 <= len(read_records(folder)) < 9
    resumed = subprocess.run(command, stdout=subprocess.PIPE, check=True, **options)
    assert resumed.stdout.count("3 pairs, 0 skipped") == 1
    parts = [path.name for path in sorted((tmp_path / "two").glob("records-*.jsonl"))]
    assert parts == ["records-0.jsonl", "records-1.jsonl"]
    alone, two = (
        {(one["index"], one["row"]): scores(one) for one in read_records(tmp_path / name)}
        for name in ("alone", "two")
    )
    assert alone.keys() == two.keys()
    for key, values in alone.items():
        assert two[key] == pytest.approx(values, abs=1e-3)


def test_other_arguments_on_the_same_folder_are_refused(tmp_path, capsys):
    run(tmp_path)
    assert main(["evaluate", *QUICK, "--samples", "4", "--out", str(tmp_path)]) == 2
    assert "holds a run with samples 3, not 4; choose another `--out`" in capsys.readouterr().err


def test_what_cannot_be_read_is_skipped_and_counted(tmp_path, capsys):
    for name in ("a.png", "c.png"):
        scene_pairs(1)[0].load().save(tmp_path / name)
    (tmp_path / "b.png").write_text("no image")
    rows = ["image,caption", "a.png,a red circle", "b.png,a blue square", "c.png," + "a " * 40]
    (tmp_path / "captions.csv").write_text("\n".join(rows))
    arguments = ["--data", str(tmp_path / "captions.csv")]
    for _ in range(2):
        run(tmp_path / "out", *arguments)
        captured = capsys.readouterr()
        assert "1 pairs, 2 skipped" in captured.out
    errors = {record["error"] for record in read_records(tmp_path / "out") if "error" in record}
    assert len(errors) == 2
    assert any("'b.png' cannot be read" in error or "b.png" in error for error in errors)
    assert any("at most 32" in error for error in errors)
    (line, *_) = lines_of(tmp_path / "out" / "table.csv")
    assert line["pairs"] == "1"
    assert line["image_drop_se"] == "nan"


def test_what_can_be_read_later_is_done_then(tmp_path, capsys):
    (tmp_path / "captions.csv").write_text("image,caption\na.png,a red circle\nb.png,a heart\n")
    scene_pairs(1)[0].load().save(tmp_path / "a.png")
    arguments = ["--data", str(tmp_path / "captions.csv")]
    run(tmp_path / "out", *arguments)
    assert "1 pairs, 1 skipped" in capsys.readouterr().out
    scene_pairs(2)[1].load().save(tmp_path / "b.png")
    run(tmp_path / "out", *arguments)
    assert "2 pairs, 0 skipped" in capsys.readouterr().out


def test_nothing_to_read_is_an_error(tmp_path, capsys):
    (tmp_path / "captions.csv").write_text("image,caption\na.png,a red circle\n")
    arguments = ["--data", str(tmp_path / "captions.csv")]
    assert main(["evaluate", *QUICK, *arguments, "--out", str(tmp_path / "out")]) == 2
    assert "no pair could be read, the first for: there is no image" in capsys.readouterr().err


def test_no_difference_is_no_division(tmp_path, capsys):
    run(tmp_path / "one", "--samples", "1", "--methods", "nib", "random")
    assert "that of random" not in capsys.readouterr().out
    stored = (tmp_path / "one" / "table.json").read_text()
    assert "NaN" not in stored


def test_one_word_has_no_text_score(embedded, tmp_path):
    scene_pairs(1)[0].load().save(tmp_path / "a.png")
    evaluation = Evaluation(*embedded)
    sample = evaluation.read(Pair("one", "circle", tmp_path / "a.png"))
    rows = table_rows(["random"], (3, 1))
    record = evaluation.run(rows[0], sample) | {"row": "random", "index": 0}
    assert "text_drop" not in record
    (line,) = summarize([record], rows)
    assert np.isnan(line["text_drop"])
    assert "nan" in table([line])


def test_damaged_files_are_named(tmp_path, capsys):
    run(tmp_path / "out")
    with (tmp_path / "out" / "records-0.jsonl").open("a") as file:
        file.write("damage\n")
    arguments = ["evaluate", *QUICK, "--samples", "3", "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert re.search(r"records-0.jsonl' line 10 is damaged", capsys.readouterr().err)
    (tmp_path / "out" / "settings.json").write_text("[1]")
    assert main(arguments) == 2
    assert "settings.json' cannot be read" in capsys.readouterr().err


def test_a_method_that_fails_is_reported_and_counted(embedded, tmp_path):
    evaluation = Evaluation(*embedded)
    rows = table_rows(["nib"], (3, 1), n_steps=3)
    broken = MethodRow("broken", "nib", (3, 1), {"method": "magic"})
    told = []
    records = evaluate(
        evaluation, scene_pairs(2), [*rows, broken], tmp_path, settings={}, report=told.append
    )
    good, bad = summarize(records, [*rows, broken])
    assert (good["pairs"], good["failed"]) == (2, 0)
    assert (bad["pairs"], bad["failed"]) == (0, 2)
    assert len(told) == 2
    assert "broken  failed on all 2 pairs" in table([good, bad])


def test_classes_become_prompts(tmp_path, capsys):
    for name in ("red_circle", "blue_square"):
        (tmp_path / "data" / name).mkdir(parents=True)
        scene_pairs(1)[0].load().save(tmp_path / "data" / name / "0.png")
    arguments = ["--data", str(tmp_path / "data"), "--template", "a {}", "--samples", "2"]
    run(tmp_path / "out", *arguments)
    out = capsys.readouterr().out
    assert "data --template 'a {}' (first text: 'a blue square'): 2 pairs, 0 skipped" in out
    kept = [one for one in read_records(tmp_path / "out") if "text" in one]
    assert {one["text"] for one in kept} == {"a blue square"}


def test_scenes_need_no_library_of_data_sets(tmp_path):
    code = (
        "import sys; import captum_mi, captum_mi.datasets; from captum_mi.cli import main;"
        "assert main(['evaluate', '--methods', 'random', '--samples', '1', '--out', 'a']) == 0;"
        "assert 'datasets' not in sys.modules; sys.modules['datasets'] = None;"
        "sys.exit(main(['evaluate', '--data', 'x', '--out', 'a']))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == (
        "captum-mi evaluate: `--data` is read by Hugging Face datasets: pip install"
        ' "captum_mi[data]"'
    )


@pytest.mark.parametrize(
    ("sweep", "rows"),
    [
        (["n_steps", "2", "3"], ["nib n_steps=2", "nib n_steps=3"]),
        (["beta", "0.1", "0.9", "--methods", "m2ib"], ["m2ib beta=0.1", "m2ib beta=0.9"]),
        (
            ["hidden_state", "1", "3", "--methods", "nib-mean"],
            ["nib-mean hidden_state=1", "nib-mean hidden_state=3"],
        ),
        (
            ["hidden_state", "--methods", "nib", "gradcam"],
            [f"{method} hidden_state={i}" for method in ("nib", "gradcam") for i in range(7)],
        ),
    ],
)
def test_sweeps(sweep, rows, tmp_path, capsys):
    command = ["evaluate", "--steps", "2", "--samples", "2", "--out", str(tmp_path / "out")]
    assert main([*command, "--sweep", *sweep]) == 0
    told = capsys.readouterr().err
    assert told.count("encoder.layers.3' (CLIPEncoderLayer) carries") == (
        sweep == ["hidden_state", "--methods", "nib", "gradcam"]
    )
    lines = lines_of(tmp_path / "out" / f"{sweep[0]}.csv")
    assert [line["row"] for line in lines] == rows
    with Image.open(tmp_path / "out" / f"{sweep[0]}.png") as plot:
        assert plot.size[0] > 1000


def test_more_steps_bring_the_map_nearer_to_its_limit(embedded):
    model, processor = embedded
    evaluation = Evaluation(model, processor)
    samples = [evaluation.read(pair) for pair in scene_pairs(3, seed=9)]

    def maps(n_steps):
        row = MethodRow("nib", "nib-zero", (3, 1), options={"n_steps": n_steps})
        return torch.cat([row.image_map(sample).values.flatten(1) for sample in samples])

    limit = maps(200)
    correlations = []
    for n_steps in (3, 5, 10, 20):
        pairs = zip(maps(n_steps), limit, strict=True)
        rows = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]
        correlations.append(float(torch.stack(rows).mean()))
    assert all(later > earlier - 0.01 for earlier, later in pairwise(correlations))
    # Nodes that come ever closer to the zero latent keep adding to the map: 20 is not the limit,
    # but from 10 on it hardly moves at any practical number.
    assert correlations[-1] == pytest.approx(0.8, abs=0.05)
    for pair in zip(maps(10), maps(20), strict=True):
        assert torch.corrcoef(torch.stack(pair))[0, 1] > 0.98


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "magic"], "`--methods` must be one of 'nib', 'nib-zero'.*got 'magic'"),
        (["--methods", "nib", "infonce"], "`--methods` infonce must be fitted before it explains"),
        (["--methods", "nib", "nib"], "`--methods` names 'nib' twice"),
        (["--samples", "0"], "`--samples` must be at least 1, got 0"),
        (["--steps", "-1"], "`--steps` must be at least 1, got -1"),
        (["--steps", "1"], "`--steps` must be at least 2 for nib, got 1"),
        (["--steps", "1", "--methods", "ig", "inverted"], "at least 2 for inverted, got 1"),
        (
            ["--steps", "1", "--sweep", "hidden_state", "2"],
            "`--steps` must be at least 2 for nib, got 1",
        ),
        (["--sweep", "n_steps", "1"], "`--sweep` n_steps must be at least 2 for nib, got 1"),
        (["--hidden-state", "9"], r"`--hidden-state N,M \(image, text\)` must be 0 to 6, .* image"),
        (["--hidden-state", "5"], r"`--hidden-state N,M .* must be 0 to 4, .* in the text tower"),
        (["--text-column", "x"], "`--text-column` needs `--data`"),
        (["--class-names", "x.txt"], "`--class-names` needs `--data`"),
        (
            ["--data", "away"],
            "`--data` 'away' is no file or folder, and not found on the hub: Couldn't reach",
        ),
        (["--data", "no-class"], "`--data` '.*no-class' cannot be read: "),
        (["--data", "one-class"], "`--data` '.*one-class' cannot be read: its images have"),
        (["--data", "out.csv"], "`--data` names the image .*, outside its folder"),
        (["--data", "out.csv", "--split", "x"], "`--split` is 'x', but `--data` has no splits"),
        (["--data", "out.csv", "--image-column", "x"], r"`--image-column` must .* got 'x'"),
        (
            ["--data", "out.csv", "--image-folder", "x"],
            "`--image-folder` must be a folder, got 'x'",
        ),
        (["--data", "out.csv", "--template", "a"], "`--template` must hold {}.*got 'a'"),
        (["--data", "out.csv", "--class-names", "x"], "`--class-names` is for classes"),
        (
            ["--sweep", "magic"],
            "`--sweep` must be one of 'n_steps', 'hidden_state', 'beta', got 'magic'",
        ),
        (["--sweep", "beta", "x"], "`--sweep` takes numbers, got 'x'"),
        (["--sweep", "n_steps", "2.5"], "`--sweep` n_steps takes whole numbers, got 2.5"),
        (["--sweep", "n_steps", "inf"], "`--sweep` n_steps takes finite values, .* got inf"),
        (["--sweep", "n_steps", "3", "3"], "takes finite values, each once, got 3"),
        (["--examples", "-1"], "`--examples` must not be negative, got -1"),
        (["--sweep", "beta", "0"], "`--sweep` beta takes positive values, got 0"),
        (["--sweep", "beta", "--methods", "nib"], "`--methods`: nib has no beta to sweep"),
        (
            ["--sweep", "hidden_state", "7"],
            "`--sweep` hidden_state takes 0 to 6, .* got 7",
        ),
        (["--sweep", "hidden_state", "-1"], "`--sweep` hidden_state takes 0 to 6, .* got -1"),
        (["--out", "out.csv"], "`--out` must be a folder, 'out.csv' is a file"),
        (["--out", "out.csv/deep"], "`--out` cannot be written: '.*out.csv' is no folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no-class").mkdir()
    (tmp_path / "one-class" / "heart").mkdir(parents=True)
    scene_pairs(1)[0].load().save(tmp_path / "one-class" / "heart" / "0.png")
    (tmp_path / "out.csv").write_text("image,caption\n../a.png,a heart\n")
    assert main(["evaluate", "--out", "out", *arguments]) == 2
    err = capsys.readouterr().err
    own = [line for line in err.splitlines() if line.startswith("captum-mi evaluate: ")]
    lines = [line for line in own if not line.startswith("captum-mi evaluate: warning: ")]
    assert len(lines) == 1
    assert re.search(words, lines[0])
    assert all(name.startswith("--") for name in re.findall("`([^`]*)`", lines[0]))
    assert not (tmp_path / "out").exists()


def test_sweeps_default_to_the_papers_values(embedded):
    model, _ = embedded
    rows, values = sweep_rows("n_steps", [], [], model, (3, 1))
    assert values == [3, 5, 8, 10, 13, 15, 18, 20]
    assert {row.method for row in rows} == {"nib"}
    assert len(sweep_rows("beta", [], [], model, (3, 1))[0]) == 18
    assert [row.hidden_states for row in sweep_rows("hidden_state", [], [], model, (3, 1))[0]] == [
        (i, min(i, 4)) for i in range(7)
    ]


def records_of(values):
    """One record per pair and row, with the values as image drops."""
    common = dict.fromkeys(SCORES, 50.0) | dict.fromkeys(("image_seconds", "text_seconds"), 1.0)
    common |= {"forward": 2, "backward": 0}
    return [
        {**common, "index": i, "row": row, "image_drop": value}
        for row, drops in values.items()
        for i, value in enumerate(drops)
    ]


@pytest.mark.parametrize(("pairs", "shown"), [(29, False), (30, True)])
def test_few_pairs_are_not_compared(pairs, shown):
    drops = np.random.default_rng(0).uniform(0, 9, (2, pairs))
    drops[0] -= 20
    rows = table_rows(["nib", "random"], (3, 1))
    records = records_of({"nib": drops[0].tolist(), "random": drops[1].tolist()})
    gain, error = np.mean(drops[1] - drops[0]), sem(drops[1] - drops[0])
    line = (
        f"nib's image drop is {gain:.2f} ± {error:.2f} below that of random ({gain / error:.1f}"
        " standard errors of the pairs' differences)"
    )
    assert comparisons(records, rows) == ([line] if shown else [])
    printed = table(summarize(records, rows))
    cell = f"{np.mean(drops[0]):6.2f} ± {sem(drops[0]):4.2f}"
    assert (cell in printed) == shown
    assert ("too few for standard errors" in printed) == (not shown)


def test_a_common_drop_of_all_pairs_is_no_comparison():
    rows = table_rows(["nib", "random"], (3, 1))
    assert comparisons(records_of({"nib": [1.0] * 30, "random": [2.0] * 30}), rows) == []


def test_noise_is_drawn_for_each_pair(embedded):
    evaluation = Evaluation(*embedded)
    first, second = (evaluation.read(pair) for pair in scene_pairs(2))
    for row in table_rows(["random", "patches"], (3, 1)):
        for draw in (row.image_map, row.token_scores):
            one, other = draw(first).values, draw(second).values
            torch.testing.assert_close(draw(first).values, one, rtol=0, atol=0)
            assert (one[..., :3] - other[..., :3]).abs().max() > 0.1


def test_advantage_is_paired():
    records = [
        {"index": i, "row": row, "image_drop": value}
        for row, values in {"nib": [1.0, 2.0, 4.0], "random": [3.0, 5.0, 6.0]}.items()
        for i, value in enumerate(values)
    ]
    gain, error, count = advantage(
        [*records, {"index": 7, "row": "nib", "error": "x"}], "nib", "random", "image_drop"
    )
    assert count == 3
    assert gain == pytest.approx(7 / 3)
    assert error == pytest.approx(sem([2.0, 3.0, 2.0]))


def test_a_writer_cuts_off_half_a_line(tmp_path):
    (tmp_path / "records-0.jsonl").write_text('{"index": 0}\n{"ind')
    writer = RecordWriter(tmp_path)
    writer.append({"index": 1})
    writer.close()
    assert read_records(tmp_path) == [{"index": 0}, {"index": 1}]


def test_the_headline_of_the_paper():
    found = headline()
    assert found["image"] == pytest.approx(9.00, abs=0.005)
    assert found["text"] == pytest.approx(58.83, abs=0.005)
    assert found["speed"] == pytest.approx(63.95, abs=0.005)


def test_published_tables():
    tables = published()
    methods = ["m2ib", "rise", "gradcam", "chefer", "attention", "mfaba", "fastig", "nib-zero"]
    lines = {
        "table2": methods,
        "table3": ["5", "10", "15", "20"],
        "table4": ["3", "6", "9"],
        "table5": [f"{beta:g}" for beta in SWEEPS["beta"][1]],
        "table6": ["3", "8", "13", "18"],
        "table7": ["2", "4", "5", "6", "7", "8"],
    }
    assert list(tables) == ["source", *lines, "table8"]
    for name, expected in lines.items():
        values = tables[name]["values"]
        assert list(values) == ["Conceptual Captions", "ImageNet", "Flickr8k"]
        columns = [*SCORES, "fps"] if name == "table2" else list(SCORES)
        for found in values.values():
            assert list(found) == expected
            assert all(list(scores) == columns for scores in found.values())
    assert list(tables["table8"]["values"]) == methods
    assert tables["table3"]["values"]["Flickr8k"]["20"]["text_drop"] == 0.8326
    assert tables["table4"]["values"]["ImageNet"]["3"]["text_increase"] == 31.9
    assert tables["table5"]["values"]["Conceptual Captions"]["0.9"]["image_drop"] == 2.9715
    assert tables["table5"]["values"]["ImageNet"]["0.04"]["text_drop"] == 1.7488
    assert tables["table6"]["values"]["ImageNet"]["13"]["text_increase"] == 57.3
    assert tables["table7"]["values"]["Flickr8k"]["5"]["image_increase"] == 27.4
    assert tables["table8"]["values"]["m2ib"] == {"forward": 22, "backward": 20}


def test_published_tables_agree_where_they_overlap():
    values = {name: table["values"] for name, table in published().items() if name != "source"}
    for data, methods in values["table2"].items():
        nib = {score: methods["nib-zero"][score] for score in SCORES}
        assert values["table3"][data]["10"] == values["table4"][data]["9"] == nib
        assert values["table4"][data]["6"] == values["table7"][data]["6"]
        text_drops = [line["text_drop"] for line in values["table3"][data].values()]
        assert text_drops == sorted(text_drops)


def test_a_sweeps_plot_shows_each_score_with_its_standard_error():
    scores = {"image_drop": (9.0, 0.5), "text_drop": (4.0, 0.25), "hit": (0.75, 0.1)}
    lines = []
    for shift, value in enumerate((2, 8)):
        line = {"row": f"nib n_steps={value}", "pairs": 3, "maps_per_second": 10.0}
        for name, (level, error) in scores.items():
            line |= {name: level + shift, f"{name}_se": error + shift}
        lines.append(line)
    figure = sweep_plot(lines, "n_steps", (2, 8))
    drawn = {axes.get_title().split(" (")[0]: axes for axes in figure.axes}
    for title, name in (
        ("image drop", "image_drop"),
        ("text drop", "text_drop"),
        ("pointing accuracy", "hit"),
    ):
        level, error = scores[name]
        (points,) = drawn[title].containers
        assert points.lines[0].get_xydata().tolist() == [[2, level], [8, level + 1]]
        (bars,) = points.lines[2]
        np.testing.assert_allclose(
            [[bar[0][1], bar[1][1]] for bar in bars.get_segments()],
            [[level - error, level + error], [level - error, level + error + 2]],
        )


def test_controls_make_the_maps_that_they_are_named_after(embedded):
    model, processor = embedded
    sample = Evaluation(model, processor).read(scene_pairs(1, seed=4)[0])
    rows = dict(zip(CONTROLS, table_rows(list(CONTROLS), (3, 1), n_steps=3), strict=True))
    assert {name: row.name for name, row in rows.items()} == {name: name for name in CONTROLS}
    of_pixels = IntegratedGradients(sample.to_text).attribute(sample.pixels, target=0)
    found, gap = rows["ig"].image_map(sample)
    expected = of_pixels.sum(1, keepdim=True).float()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
    with torch.no_grad():
        gained = float(sample.to_text(sample.pixels) - sample.to_text(sample.pixels * 0))
    assert gap == pytest.approx(abs(float(of_pixels.sum()) / gained - 1), abs=1e-3)
    text = sample.text
    start = text.embeddings.where(text.special[:, None], 0)
    of_words = IntegratedGradients(text).attribute(text.embeddings, baselines=start, target=0)
    scores, gap = rows["ig"].token_scores(sample)
    with torch.no_grad():
        gained = float(text(text.embeddings) - text(start))
    assert gap == pytest.approx(abs(float(of_words.sum()) / gained - 1), abs=1e-3)
    torch.testing.assert_close(scores[0], of_words.sum(1).float(), atol=1e-5, rtol=1e-3)
    # Pinned: the noise of a pair is part of every table that was written.
    noise = rows["random"].image_map(sample).values
    assert noise.shape == (1, 1, 64, 64)
    drawn = pytest.approx([0.1147115, 0.9001560, 0.7132899])
    assert noise[0, 0, 0, :3].tolist() == drawn
    patches = rows["patches"].image_map(sample).values
    assert patches[0, 0, 0, :4].tolist() == pytest.approx([0.1147115] * 4)  # half a patch's border
    assert patches[0, 0, 0, 60:].tolist() == pytest.approx([0.1394264] * 4)
    for name in ("random", "patches"):
        assert rows[name].token_scores(sample).values[0, 0, :3].tolist() == drawn
    nib = table_rows(["nib"], (3, 1), n_steps=3)[0]
    turned = rows["inverted"].image_map(sample)
    torch.testing.assert_close(turned.values, -nib.image_map(sample).values)
    assert turned.gap is None


def test_options_of_a_table_go_to_the_methods_that_take_them():
    rows = table_rows(["nib", "rise", "chefer", "inverted"], (3, 1), n_steps=4, n_masks=20)
    options = [row.row.options if row.name == "inverted" else row.options for row in rows]
    assert options == [{"n_steps": 4}, {"n_masks": 20}, {}, {"n_steps": 4}]
    with pytest.raises(TypeError, match=r"no method of nib, .* takes an argument 'n_stepz'"):
        table_rows(["nib"], (3, 1), n_stepz=4)


def test_a_row_that_starts_at_statistics_needs_them():
    for name in ("nib-mean", "m2ib-prior"):
        with pytest.raises(ValueError, match=f"`fitted` must give the statistics that {name} st"):
            table_rows([name])


def test_an_option_that_a_rows_method_does_not_take_is_refused(embedded):
    sample = Evaluation(*embedded).read(scene_pairs(1)[0])
    row = MethodRow("nib", "nib", (3, 1), options={"n_masks": 20})
    for explain in (row.image_map, row.token_scores):
        with pytest.raises(TypeError, match="NarrowingIB takes no argument 'n_masks'"):
            explain(sample)


def test_a_control_has_nothing_to_sweep(embedded):
    with pytest.raises(ValueError, match="`methods`: inverted has no n_steps to sweep"):
        sweep_rows("n_steps", [], ["inverted"], embedded[0], (3, 1))
    with pytest.raises(TypeError, match="takes an argument 'n_stepz'"):
        sweep_rows("n_steps", [], [], embedded[0], (3, 1), n_stepz=4)
