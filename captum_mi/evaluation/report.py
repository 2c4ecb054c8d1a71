"""What an evaluation found: a table, its files, a page of examples, a plot of a sweep."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from matplotlib.figure import Figure

from captum_mi import visualization
from captum_mi._records import Record
from captum_mi.attr.methods import METHODS
from captum_mi.evaluation.rows import Row

SCORES = ("image_drop", "image_increase", "text_drop", "text_increase")
GAPS = ("image_gap", "text_gap")
POINTING = ("hit", "wrong", "exact", "mass_inside", "other_negative")
BETTER = {"image_drop": "lower", "image_increase": "higher"}
BETTER |= {"text_drop": "lower", "text_increase": "higher"}
PANELS = {
    "image_gap": "completeness gap, image (median)",
    "text_gap": "completeness gap, text (median)",
    "maps_per_second": "maps per second",
    "hit": "pointing accuracy (higher is better)",
    "exact": "maximum on the object (higher is better)",
    "mass_inside": "share of the evidence inside (higher is better)",
}
"""What a sweep draws beside the scores -> its title."""
LEAST_PAIRS = 30
"""With fewer pairs a standard error is itself so uncertain that no comparison should rest on it."""

Line = dict[str, Any]


def summarize(records: Sequence[Record], rows: Sequence[Row]) -> list[Line]:
    """Averages the records of each row.

    Returns:
        for each row its name, the number of pairs and of failures, the mean and the standard error
        of each score, maps per second (of the median pair), median completeness gaps of a method
        that has them, passes per pair, and where pairs have masks the pointing scores.
    """
    lines = []
    for row in rows:
        own = [record for record in records if record.get("row") == row.name]
        good = [record for record in own if "error" not in record]
        line: Line = {"row": row.name, "pairs": len(good), "failed": len(own) - len(good)}
        lines.append(line)
        if not good:
            continue
        for name in SCORES:
            known = [record[name] for record in good if name in record]
            line[name], line[f"{name}_se"] = _mean_and_error(known)
        seconds = median(record["image_seconds"] + record["text_seconds"] for record in good)
        line["maps_per_second"] = 2 / seconds
        for name in GAPS:
            if known := [record[name] for record in good if name in record]:
                line[name] = median(known)
        for name in ("forward", "backward"):
            line[name] = mean(record[name] for record in good)
        judged = [record for record in good if "hit" in record]
        if judged:
            for name in POINTING:
                line[name], line[f"{name}_se"] = _mean_and_error([one[name] for one in judged])
    return lines


def advantage(
    records: Sequence[Record], row: str, other: str, score: str
) -> tuple[float, float, int]:
    """Returns the mean difference ``other - row`` of a score, its SE, and the number of pairs."""
    of = {
        name: {
            record["index"]: record[score]
            for record in records
            if record.get("row") == name and score in record
        }
        for name in (row, other)
    }
    common = sorted(set(of[row]) & set(of[other]))
    differences = [of[other][index] - of[row][index] for index in common]
    return *_mean_and_error(differences), len(common)


def table(lines: Sequence[Line]) -> str:
    """Returns the lines as text, scores with their standard errors if pairs are enough."""
    pointed = any("hit" in line for line in lines)
    width = max(len("method"), *(len(line["row"]) for line in lines))
    heads = ["image drop", "image increase", "text drop", "text increase"]
    head = f"{'method':{width}}  {heads[0]:>13}  {heads[1]:>14}  {heads[2]:>13}  {heads[3]:>14}"
    head += f"  {'maps/s':>7}  {'passes':>11}"
    with_gaps = any("image_gap" in line for line in lines)
    if with_gaps:
        head += f"  {'gap, %':>11}"
    if pointed:
        head += f"  {'pointing':>8}  {'wrong':>5}  {'exact':>5}  {'mass':>5}"
    text = [head]
    for line in lines:
        if not line["pairs"]:
            text.append(f"{line['row']:{width}}  failed on all {line['failed']} pairs")
            continue
        cells = [f"{line[name]:6.2f}" for name in SCORES]
        if line["pairs"] >= LEAST_PAIRS:
            errors = [f"{line[f'{name}_se']:4.2f}" for name in SCORES]
            cells = [f"{cell} ± {error}" for cell, error in zip(cells, errors, strict=True)]
        shown = f"{line['row']:{width}}  {cells[0]:>13}  {cells[1]:>14}  {cells[2]:>13}"
        shown += f"  {cells[3]:>14}  {line['maps_per_second']:7.1f}"
        passes = f"{line['forward']:g} / {line['backward']:g}"
        shown += f"  {passes:>11}"
        if with_gaps:
            gaps = [f"{100 * line[name]:.2g}" for name in GAPS if name in line]
            shown += f"  {' / '.join(gaps) or '-':>11}"
        if "hit" in line:
            shown += f"  {line['hit']:8.3f}  {line['wrong']:5.3f}  {line['exact']:5.3f}"
            shown += f"  {line['mass_inside']:5.3f}"
        if line["failed"]:
            shown += f"  failed on {line['failed']} pairs"
        text.append(shown)
    if any(0 < line["pairs"] < LEAST_PAIRS for line in lines):
        text.append(
            f"fewer than {LEAST_PAIRS} pairs are too few for standard errors, and for comparisons"
        )
    return "\n".join(text)


def comparisons(records: Sequence[Record], rows: Sequence[Row]) -> list[str]:
    """Returns sentences on nib's image drop against the controls' and m2ib's, if pairs suffice."""
    names = {row.name for row in rows}
    said = []
    for other in ("random", "patches", "inverted", "m2ib"):
        if not {"nib", other} <= names:
            continue
        gain, error, count = advantage(records, "nib", other, "image_drop")
        if count < LEAST_PAIRS or not error > 0:  # no difference at all
            continue
        said.append(
            f"nib's image drop is {abs(gain):.2f} ± {error:.2f} {'below' if gain > 0 else 'above'}"
            f" that of {other} ({abs(gain) / error:.1f} standard errors of the pairs' differences)"
        )
    return said


def write_csv(lines: Sequence[Line], path: Path) -> None:
    """Writes the lines as CSV; a line without a score leaves it empty."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(lines)


def write_json(lines: Sequence[Line], path: Path, settings: dict[str, Any]) -> None:
    """Writes the lines and the settings they belong to as JSON."""
    rows = [
        {name: None if value != value else value for name, value in line.items()}  # NaN: unknown
        for line in lines
    ]
    path.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n")


def examples(records: Sequence[Record], rows: Sequence[Row]) -> Figure | None:
    """Draws the maps of the first pairs, methods as columns; None if no record kept its map."""
    kept = [record for record in records if "heat" in record]
    if not kept:
        return None
    cells = {(record["index"], record["row"]): record for record in kept}
    indices = sorted({record["index"] for record in kept})
    names = [row.name for row in rows]
    firsts = [next(record for record in kept if record["index"] == index) for index in indices]
    of_pair = [[cells.get((index, name)) for name in names] for index in indices]
    return visualization.gallery(
        [torch.tensor(first["pixels"]).permute(1, 2, 0) for first in firsts],
        [[None if one is None else torch.tensor(one["heat"]) for one in line] for line in of_pair],
        columns=names,
        rows=[first["text"] for first in firsts],
        units=[_unit(name) for name in names],
        notes=[
            [f"drop {one['image_drop']:.0f}" if one else "" for one in line] for line in of_pair
        ],
        caption="drop: hundredths of the cosine that are lost where only what the map shows"
        " remains; lower is better",
    )


def _unit(name: str) -> visualization.Unit:
    """Returns what the numbers of a row are: its method's, relevance for noise."""
    method = METHODS.get(name.split()[0])
    if method is not None:
        return method.unit
    return None if name in ("random", "patches") else "cosine"


def sweep_plot(lines: Sequence[Line], name: str, values: Sequence[float]) -> Figure:
    """Draws every score over the values of a setting, one line for each method.

    Args:
        lines: the summary, whose rows are called "method name=value".
        name: the setting.
        values: its values.
    """
    methods = list(dict.fromkeys(line["row"].split()[0] for line in lines))
    by_row = {line["row"]: line for line in lines}
    titles = {score: f"{score.replace('_', ' ')} ({BETTER[score]} is better)" for score in SCORES}
    titles |= PANELS
    panels = [panel for panel in titles if any(panel in line for line in lines)]
    columns = -(-len(panels) // 2)
    figure = Figure(figsize=(3.7 * columns + 2, 7), layout="constrained")
    grid = figure.subplots(2, columns, squeeze=False).flatten()
    for axes, panel in zip(grid, panels, strict=False):
        for method in methods:
            known = [
                (value, by_row[f"{method} {name}={value:g}"])
                for value in values
                if panel in by_row.get(f"{method} {name}={value:g}", {})
            ]
            axes.errorbar(
                [value for value, _ in known],
                [line[panel] for _, line in known],
                yerr=[line.get(f"{panel}_se", 0.0) for _, line in known],
                marker="o",
                capsize=2,
                label=method,
            )
        axes.set_title(titles[panel], fontsize="medium")
        axes.set_xlabel(name)
        if name == "beta":
            axes.set_xscale("log")
        else:
            axes.set_xticks(values)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=8)
    pairs = max(line["pairs"] for line in lines)
    figure.suptitle(f"{name}: means over {pairs} pairs, with standard errors")
    return figure


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return (values[0] if values else float("nan")), float("nan")
    return mean(values), stdev(values) / len(values) ** 0.5
