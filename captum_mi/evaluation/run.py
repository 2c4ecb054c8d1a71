"""Which method explains an image-text model best? Every method on every pair of a data set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from tqdm.auto import tqdm

from captum_mi._records import (
    Record,
    RecordWriter,
    check_settings,
    read_records,
    write_settings,
)
from captum_mi.evaluation.passes import count_passes
from captum_mi.evaluation.pointing import judge
from captum_mi.evaluation.processes import Processes
from captum_mi.evaluation.samples import Sample, Scored, read_sample
from captum_mi.maps import image_seen, min_max, patch_size
from captum_mi.metrics.confidence import Confidence, confidence

if TYPE_CHECKING:
    from captum_mi._protocols import Processor
    from captum_mi.datasets import Pair
    from captum_mi.evaluation.rows import Row

THUMBNAIL = 32


class Evaluation:
    """Explains pairs with the rows of a table and judges the maps.

    Args:
        model: the image-text model.
        processor: its processor.
        text_confidence: scores a text before and after masking its words, such as
            ``published_text_confidence``; by default :func:`mask_words`.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Processor,
        *,
        text_confidence: Callable[[Sample, Tensor], Confidence] | None = None,
    ) -> None:
        """Stores the model."""
        self.model = model
        self.processor = processor
        self.text_confidence = text_confidence or mask_words

    def read(self, pair: Pair) -> Sample:
        """Reads, tokenizes and embeds a pair, see :func:`read_sample`."""
        return read_sample(self.model, self.processor, pair)

    def run(self, row: Row, sample: Sample, *, example: bool = False) -> Record:
        """Explains a sample with a row and judges both maps.

        Args:
            row: the row.
            sample: the pair.
            example: keep the map itself, for the page of examples.

        Returns:
            the pair's cosine, drop and increase of image and text (percent; not of a text of one
            word, which no map can change), completeness gaps of a method that has them, seconds
            per map beside the embedding of the other side, passes with it, and where the pair has
            masks whether the map points at the named object.

        Raises:
            ValueError: if the method fails on the sample.
        """
        with count_passes(self.model) as passes:
            (heat, image_gap), image_seconds = _timed(lambda: row.image_map(sample))
            (scores, text_gap), text_seconds = _timed(lambda: row.token_scores(sample))
        image = confidence(lambda x: sample.to_text(x)[:, 0], sample.pixels, min_max(heat))
        record: Record = {
            "cosine": float(image.before),
            "image_drop": float(image.drop()),
            "image_increase": float(image.increase()),
            "image_seconds": image_seconds,
            "text_seconds": text_seconds,
            "forward": sample.passes.forward + passes.forward,
            "backward": sample.passes.backward + passes.backward,
        }
        gaps = {"image_gap": image_gap, "text_gap": text_gap}
        record |= {name: gap for name, gap in gaps.items() if gap is not None}
        if (~sample.text.special).sum() > 1:
            text = self.text_confidence(sample, scores)
            record["text_drop"] = float(text.drop())
            record["text_increase"] = float(text.increase())
        if sample.pair.named is not None and sample.pair.other is not None:
            named, other = (
                torch.from_numpy(mask) for mask in (sample.pair.named, sample.pair.other)
            )
            if heat.shape[-2:] == named.shape:
                half_a_patch = patch_size(self.model) / 2
                record |= asdict(judge(heat[0, 0].cpu(), named, other, tolerance=half_a_patch))
        if example:
            record["text"] = sample.pair.text
            record["pixels"] = _thumbnail(
                image_seen(sample.pixels, self.processor).permute(2, 0, 1)
            )
            record["heat"] = _thumbnail(heat[0].cpu())[0]
        return record


def mask_words(sample: Sample, scores: Tensor) -> Confidence:
    """Scores a sample's text before and after masking its words.

    Args:
        sample: the pair.
        scores: (1, 1, T) scores of its tokens.
    """
    text = sample.text
    masks = text.masks(text.embeddings, scores)
    return confidence(lambda x: text(x)[:, 0], text.embeddings, masks)


def evaluate(
    evaluation: Evaluation,
    pairs: Sequence[Pair],
    rows: Sequence[Row],
    folder: Path,
    *,
    settings: dict[str, Any],
    examples: int = 4,
    processes: Processes | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> list[Record]:
    """Runs every row on every pair; a run that was killed goes on where it stopped.

    One record per pair and row is appended to ``folder`` and flushed. A pair that cannot be read,
    or that a method fails on, is reported and recorded with its error, and the run goes on. Several
    processes share the pairs.

    Args:
        evaluation: the model.
        pairs: the data set.
        rows: the table's rows.
        folder: where the records are.
        settings: what the numbers depend on; a folder with others is refused.
        examples: how many of the first pairs keep their maps.
        processes: the processes that share the run.
        report: told of each pair that is skipped, and of a run that goes on.

    Returns:
        the records of all processes, in the order of the pairs.

    Raises:
        ValueError: if the folder holds a run with other settings.
    """
    processes = processes or Processes()
    records: list[Record] = []
    problem = None
    try:  # before any process goes on, all must
        folder.mkdir(parents=True, exist_ok=True)
        check_settings(folder, settings)
        records = read_records(folder)
    except (OSError, ValueError) as error:
        problem = str(error)
    processes.agree(problem)
    write_settings(folder, settings)  # on machines that share no disk each has its own
    done = {_key(record) for record in processes.gather(records) if "error" not in record}

    def missing(index: int) -> list[Row]:
        return [row for row in rows if (index, row.name) not in done]

    todo = [index for index in range(len(pairs)) if missing(index)]
    mine = todo[processes.index :: processes.count]
    if done and todo and processes.first:
        report(f"going on with a run that stopped: {len(pairs) - len(todo)} pairs are done")
    writer = RecordWriter(folder, processes.index)
    try:
        for index in tqdm(mine, desc="pairs", disable=not processes.first or not mine):
            pair = pairs[index]
            common = {"index": index, "sample": pair.name}
            try:
                sample = evaluation.read(pair)
            except ValueError as error:
                report(f"skipped {pair.name!r}: {error}")
                writer.append({**common, "error": str(error)})
                continue
            for row in missing(index):
                try:
                    found = evaluation.run(row, sample, example=index < examples)
                except ValueError as error:
                    report(f"{row.name} failed on {pair.name!r}: {error}")
                    found = {"error": str(error)}
                writer.append({**common, "row": row.name, **found})
    finally:
        writer.close()
    processes.wait()
    return _in_order(processes.gather(read_records(folder)), rows)


def _key(record: Record) -> tuple[int, str | None]:
    """Returns the pair's index and the row's name; None for a pair that could not be read."""
    return record["index"], record.get("row")


def _in_order(records: Iterable[Record], rows: Sequence[Row]) -> list[Record]:
    """Returns one record for each pair and row; an error only where nothing came of it."""
    places = {None: -1} | {row.name: i for i, row in enumerate(rows)}
    records = list(records)
    unique = {_key(record): record for record in records if "error" in record}
    unique |= {_key(record): record for record in records if "error" not in record}
    for index in {index for index, row in unique if row is not None}:
        unique.pop((index, None), None)
    return [
        unique[key]
        for key in sorted(unique, key=lambda key: (key[0], places.get(key[1], len(places))))
    ]


def _timed(make: Callable[[], Scored]) -> tuple[Scored, float]:
    """Returns what a function returns and how many seconds it takes."""
    begin = time.perf_counter()
    result = make()
    if result.values.is_cuda:
        torch.cuda.synchronize(result.values.device)
    return result, time.perf_counter() - begin


def _thumbnail(image: Tensor) -> list[Any]:
    """Returns the image at most 32 pixels to a side, rounded, (C, h, w)."""
    size = min(image.shape[-2], THUMBNAIL), min(image.shape[-1], THUMBNAIL)
    small = adaptive_avg_pool2d(image.detach(), size)
    rounded: list[Any] = [
        [[float(f"{value:.4g}") for value in line] for line in channel]
        for channel in small.tolist()
    ]
    return rounded
