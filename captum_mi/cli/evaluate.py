"""``captum-mi evaluate``: every method on the pairs of a data set."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_mi._checks import check_choice, check_positive
from captum_mi.cli._options import (
    MODEL_FLAGS,
    add_model_flags,
    check_out,
    in_flags,
    warn_of_embedded,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from captum_mi._records import Record
    from captum_mi.evaluation.report import Line
    from captum_mi.evaluation.rows import Row

HELP = "which method explains a model best on your data"
DESCRIPTION = (
    "Explain every image-text pair of a data set with every method, and judge the maps. Where only"
    " what a map shows remains of the image, or of the text, the similarity should lose little"
    " (drop, in percent) or even win (increase, percent of the pairs). The table gives both with"
    " their standard errors, maps per second, and the encoder passes of a pair, forward / backward;"
    " on scenes also whether the map points at the object that the text names. Writes table.csv,"
    " table.json, examples.png and the records of all pairs to --out; with --sweep SETTING"
    " SETTING.csv, SETTING.json and SETTING.png."
)
EXAMPLES = """\
examples:
  captum-mi evaluate
      every method on 200 scenes that the package draws, with the embedded CLIP
  captum-mi evaluate --images Flickr8k/Images --captions Flickr8k/captions.txt --samples 1000 \\
      --model openai/clip-vit-base-patch32 --hidden-state 9 --out flickr8k
  captum-mi evaluate --classes tiny-imagenet-200/train --class-names tiny-imagenet-200/words.txt
  captum-mi evaluate --sweep n_steps 3 5 8 10 13 15 18 20 --out steps
  captum-mi evaluate --sweep beta --methods m2ib --samples 50 --out beta
  accelerate launch --multi_gpu --num_processes 4 -m captum_mi evaluate --out many
      four processes, on GPUs or, without any, on CPUs; on many machines as accelerate says

layouts of --captions (found out by reading the file):
  Flickr8k             captions.txt with the header "image,caption", or Flickr8k.token.txt
  Conceptual Captions  lines "caption<TAB>address", each image in the folder by its file name; or no
                       file: img2dataset's folder, every image beside its .txt or .json
  any                  CSV or TSV with a header, JSON (list, mapping, COCO), JSON lines
Of several captions of an image the first counts. A run that was killed goes on when the same
command is given again.
"""
FLAGS = MODEL_FLAGS | {
    "captions": "--captions",
    "class_names": "--class-names",
    "folder": "--images",
    "methods": "--methods",
    "sweep": "--sweep",
    "template": "--template",
    "texts": "the caption",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    data = parser.add_argument_group("data (default: scenes)")
    data.add_argument("--images", metavar="FOLDER", help="a folder of images with captions")
    data.add_argument(
        "--captions",
        metavar="FILE",
        help="the captions of --images (default: a .txt or .json beside each image)",
    )
    data.add_argument(
        "--classes", metavar="FOLDER", help="a folder with one folder of images per class"
    )
    data.add_argument(
        "--class-names",
        metavar="FILE",
        help="lines 'folder<TAB>name' for --classes (default: the folders' own names)",
    )
    data.add_argument(
        "--template",
        metavar="TEXT",
        default="a photo of a {}",
        help="text for an image of --classes, {} the class (default: 'a photo of a {}')",
    )
    data.add_argument(
        "--samples",
        type=int,
        default=200,
        metavar="N",
        help="pairs, evenly spread over the data set (default: 200)",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help=(
            "the table's rows: nib m2ib rise gradcam chefer attention mfaba fastig, and to compare"
            " with, ig (Captum's IntegratedGradients), random and patches (noise on pixels, on"
            " patches), inverted (nib with its sign turned); default: all; with --sweep nib, for"
            " beta m2ib"
        ),
    )
    add_model_flags(parser)
    parser.add_argument(
        "--masks", type=int, default=500, metavar="N", help="masks of rise (default: 500)"
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
            "instead of the table, run --methods once for each VALUE of n_steps (--steps), layer"
            " (--hidden-state) or beta (m2ib's weight of the nats); without VALUEs for those of the"
            " NIB paper"
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
    from captum_mi.attr import METHODS
    from captum_mi.evaluation import report
    from captum_mi.evaluation.controls import CONTROLS
    from captum_mi.evaluation.processes import Processes
    from captum_mi.evaluation.rows import sweep_rows, table_rows
    from captum_mi.evaluation.run import Evaluation, evaluate
    from captum_mi.models import load_clip
    from captum_mi.models.towers import hidden_states

    for name in ("samples", "steps", "masks"):
        check_positive(f"--{name}", getattr(options, name))
    for method in options.methods or ():
        check_choice("--methods", method, (*METHODS, *CONTROLS))
    if options.examples < 0:
        raise ValueError(f"`--examples` must not be negative, got {options.examples}")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"`--out` must be a folder, {str(options.out)!r} is a file")
    check_out(options.out / "table.csv")
    pairs, source = _pairs(options)
    model, processor = load_clip(options.model)
    states = hidden_states(model, options.hidden_state)
    arguments = {"n_steps": options.steps, "n_masks": options.masks}
    setting, values = None, []
    if options.sweep:
        setting, *given = options.sweep
        values = [_number(value) for value in given]
        rows, values = sweep_rows(
            setting, values, options.methods or [], model, states, **arguments
        )
    else:
        rows = table_rows(options.methods or [*METHODS, *CONTROLS], states, **arguments)
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
    processes = Processes()
    try:
        records = evaluate(
            Evaluation(model.to(processes.device), processor, compat=options.compat),
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
            lines = report.summarise(records, rows)
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


def _pairs(options: argparse.Namespace) -> tuple[Sequence[Any], str]:
    """Returns the pairs to evaluate on, evenly spread, and what they are."""
    from captum_mi.datasets import captioned_images, class_folders, scene_pairs
    from captum_mi.evaluation.pointing import SEED

    if options.images and options.classes:
        raise ValueError("`--images` and `--classes` exclude each other; give one of them")
    for name, needed in {"captions": "images", "class_names": "classes"}.items():
        if getattr(options, name) and not getattr(options, needed):
            raise ValueError(f"`--{name.replace('_', '-')}` needs `--{needed} FOLDER`")
    if options.images:
        pairs = captioned_images(options.images, options.captions)
        source = f"{options.images} with {options.captions or 'captions beside the images'}"
    elif options.classes:
        options.flags = options.flags | {"folder": "--classes"}
        pairs = class_folders(options.classes, options.template, class_names=options.class_names)
        source = f"{options.classes}, {options.template!r}"
    else:
        return scene_pairs(options.samples, SEED), "scenes of two objects, one named"
    warn_of_embedded(options)
    count = min(options.samples, len(pairs))
    return [pairs[i * len(pairs) // count] for i in range(count)], source


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"`--sweep` takes numbers, got {value!r}") from None
