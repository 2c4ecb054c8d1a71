"""``captum-mi evaluate``: every method on the pairs of a data set."""

from __future__ import annotations

import argparse
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from captum_mi._checks import check_positive, enumerated
from captum_mi.attr.methods import METHODS, ready_methods
from captum_mi.cli._data import DATA_FLAGS, FITTED_FLAGS, TO_FIT, add_data_flags, read_pairs
from captum_mi.cli._options import MODEL_FLAGS, add_model_flags, check_out, in_flags
from captum_mi.evaluation.controls import CONTROLS

if TYPE_CHECKING:
    from captum_mi._records import Record
    from captum_mi.evaluation.report import Line
    from captum_mi.evaluation.rows import Row

HELP = "which method explains a model best on your data"
DESCRIPTION = (
    "Explain every image-text pair of a data set with every method, and judge the maps. Where only"
    " what a map shows remains of the image, or of the text, the similarity should lose little"
    " (drop, in percent) or even win (increase, percent of the pairs). The table gives both with"
    " their standard errors, maps per second, the encoder passes of a pair, forward / backward, and"
    " by how much the sums of the image's and of the text's map miss what the similarity gains"
    " along the path (gap, median); on scenes also whether the map points at the object that the"
    " text names. Paths of nib start at a blank input, of nib-zero at the zero latent (the"
    " published method), of nib-mean at the mean of 256 pairs, evenly spread over the data (without"
    " --data, of other scenes), which m2ib-prior takes its noise from. Writes table.csv,"
    " table.json, examples.png and the records of all pairs to --out; with --sweep SETTING"
    " SETTING.csv, SETTING.json and SETTING.png."
)
EXAMPLES = """\
examples:
  captum-mi evaluate
      every method on 200 scenes that the package draws, with the embedded CLIP
  captum-mi evaluate --data Flickr8k/captions.txt --image-folder Flickr8k/Images --samples 1000 \\
      --model openai/clip-vit-base-patch32 --out flickr8k
  captum-mi evaluate --data tiny-imagenet-200/train --class-names tiny-imagenet-200/words.txt
  captum-mi evaluate --data jxie/flickr8k --split test --text-column caption_0
  captum-mi evaluate --sweep n_steps 3 5 8 10 13 15 18 20 --out steps
  captum-mi evaluate --sweep beta --methods m2ib --samples 50 --out beta
  accelerate launch --multi_gpu --num_processes 4 -m captum_mi evaluate --out many
      four processes, on GPUs or, without any, on CPUs; on many machines as accelerate says

what --data reads (pip install "captum_mi[data]"):
  a folder    images with metadata.csv or .jsonl (file_name, text), one folder for each class, or
              0000.txt beside 0000.jpg (img2dataset); Parquet; webdataset tars
  a table     of images' paths and captions: CSV, TSV, JSON, JSON lines, Parquet; COCO's captions,
              Flickr8k.token.txt, Conceptual Captions' "caption<TAB>address"
  a name      of a data set on the Hugging Face hub
Of several captions of an image the first counts. A run that was killed goes on when the same
command is given again.
"""
FLAGS = MODEL_FLAGS | DATA_FLAGS | FITTED_FLAGS
FLAGS |= {"methods": "--methods", "sweep": "--sweep", "texts": "the caption"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    controls = [f"{name} ({words})" for name, words in CONTROLS.items()]
    add_data_flags(parser, 200)
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help=(
            f"the table's rows: {' '.join(ready_methods())}, and to compare with,"
            f" {enumerated(controls)}; default: all; with --sweep nib, for beta m2ib"
        ),
    )
    add_model_flags(parser)
    parser.add_argument(
        "--masks",
        type=int,
        default=500,
        metavar="N",
        help="masks of rise (default: 500)",
    )
    parser.add_argument(
        "--compat",
        choices=["nib"],
        help=(
            "score texts as the NIB paper's code does, to compare with its tables: it leaves out"
            " the token in which the model gathers the text"
        ),
    )
    parser.add_argument(
        "--sweep",
        nargs="+",
        metavar=("SETTING", "VALUE"),
        help=(
            "instead of the table, run --methods once for each VALUE of n_steps (--steps),"
            " hidden_state (--hidden-state) or beta (m2ib's weight of the nats); without VALUEs for"
            " those of the NIB paper"
        ),
    )
    parser.add_argument(
        "--examples",
        type=int,
        default=4,
        metavar="N",
        help="draw the maps of the first N pairs side by side (default: 4)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("evaluation"),
        metavar="FOLDER",
        help="where to write, and to go on with a run that was killed (default: evaluation)",
    )


def run(options: argparse.Namespace) -> None:
    """Evaluates methods, writes the tables and the figure, prints the table."""
    from captum_mi.evaluation import report
    from captum_mi.evaluation.processes import Processes
    from captum_mi.evaluation.published import published_text_confidence
    from captum_mi.evaluation.rows import check_methods, sweep_rows, table_rows
    from captum_mi.evaluation.run import Evaluation, evaluate
    from captum_mi.explanation import TowerStatistics
    from captum_mi.models import load_clip
    from captum_mi.models.towers import hidden_states

    for name in ("samples", "steps", "masks"):
        check_positive(f"--{name}", getattr(options, name))
    check_methods(options.methods or [])
    if options.examples < 0:
        raise ValueError(f"`--examples` must not be negative, got {options.examples}")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"`--out` must be a folder, {str(options.out)!r} is a file")
    check_out(options.out / "table.csv")
    pairs, source = read_pairs(options, options.samples)
    model, processor = load_clip(options.model)
    states = options.hidden_state
    hidden_states(model, states)
    arguments = {"n_steps": options.steps, "n_masks": options.masks}

    @cache
    def fitted(states: tuple[int | None, int | None]) -> TowerStatistics:
        to_fit, _ = read_pairs(options, TO_FIT, others=True)
        try:
            return TowerStatistics.fit(model, processor, to_fit, states)
        except ValueError as error:
            names = enumerated([name for name in METHODS if METHODS[name].start == "fitted"])
            raise ValueError(
                f"{names} start at statistics of the data, but {error}; without them give others"
                " as `--methods`"
            ) from error

    text_confidence = published_text_confidence if options.compat == "nib" else None
    processes = Processes()
    try:
        model.to(processes.device)  # before statistics are fitted
        setting, values = None, []
        if options.sweep:
            setting, *given = options.sweep
            values = [_number(value) for value in given]
            rows, values = sweep_rows(
                setting, values, options.methods or [], model, states, fitted, **arguments
            )
        else:
            rows = table_rows(
                options.methods or [*ready_methods(), *CONTROLS], states, fitted, **arguments
            )
        settings = {
            "data": source,
            "samples": len(pairs),
            "model": options.model or "embedded",
            "rows": [row.name for row in rows],
            "hidden_states": list(states),
            "steps": options.steps,
            "masks": options.masks,
            "compat": options.compat,
            "examples": options.examples,
            "version": version("captum_mi"),
        }
        records = evaluate(
            Evaluation(model, processor, text_confidence=text_confidence),
            pairs,
            rows,
            options.out,
            settings=settings,
            examples=options.examples,
            processes=processes,
            report=lambda message: print(in_flags(message, options.flags), file=sys.stderr),
        )
        if all("row" not in record for record in records):
            raise ValueError(f"no pair could be read, the first for: {records[0]['error']}")
        if processes.first:
            lines = report.summarize(records, rows)
            _report(options.out, lines, records, rows, settings, setting, values)
    finally:
        processes.close()


def _report(
    folder: Path,
    lines: list[Line],
    records: list[Record],
    rows: list[Row],
    settings: dict[str, object],
    setting: str | None,
    values: list[float],
) -> None:
    from captum_mi.evaluation import report

    base = setting or "table"
    written = [folder / f"{base}.csv", folder / f"{base}.json"]
    report.write_csv(lines, written[0])
    report.write_json(lines, written[1], settings)
    figure = (
        report.examples(records, rows)
        if setting is None
        else report.sweep_plot(lines, setting, values)
    )
    if figure is not None:
        written.append(folder / ("examples.png" if setting is None else f"{setting}.png"))
        figure.savefig(written[-1], dpi=120)
    skipped = sum("row" not in record for record in records)
    read = len({record["index"] for record in records}) - skipped
    print(f"{settings['data']}: {read} pairs, {skipped} skipped")
    print(report.table(lines))
    for line in report.comparisons(records, rows):
        print(line)
    print(f"\nwrote {', '.join(str(path) for path in written)}")


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"`--sweep` takes numbers, got {value!r}") from None
