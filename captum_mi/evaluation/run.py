"""Which method explains an image-text model best? Every method on every pair of a data set."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from captum.attr import IntegratedGradients
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
from captum_mi.datasets import Pair
from captum_mi.evaluation.passes import Passes, count_passes
from captum_mi.evaluation.pointing import judge
from captum_mi.evaluation.processes import Processes
from captum_mi.evaluation.rows import Row
from captum_mi.explanation import attribute_image, attribute_text
from captum_mi.maps import image_map, image_seen, min_max, patch_size
from captum_mi.metrics.confidence import Confidence, confidence
from captum_mi.models import EmbeddedText, ImageTextSimilarity, TextImageSimilarity, tokenize

THUMBNAIL = 32


@dataclass(frozen=True)
class Sample:
    """A pair, read, tokenized and embedded.

    Attributes:
        pair: the pair.
        pixels: (1, 3, H, W) what the model sees of the image.
        encoded: the text's ``input_ids`` (1, T) and, where the model uses it, ``attention_mask``.
        to_text: similarity of images to the text.
        to_image: similarity of texts to the image.
        text: the text by its token embeddings.
        passes: what embedding both took; every method needs it.
    """

    pair: Pair
    pixels: Tensor
    encoded: dict[str, Tensor]
    to_text: ImageTextSimilarity
    to_image: TextImageSimilarity
    text: EmbeddedText
    passes: Passes


class Evaluation:
    """Explains pairs with the methods of a table and judges the maps.

    Args:
        model: the image-text model.
        processor: its processor.
        compat: "nib" scores texts as the NIB paper's code does, see ``EmbeddedText``.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,  # noqa: ANN401
        *,
        compat: Literal["nib"] | None = None,
    ) -> None:
        """Stores the model."""
        self.model = model
        self.processor = processor
        self.compat = compat
        self.device = next(model.parameters()).device

    def read(self, pair: Pair) -> Sample:
        """Reads, tokenizes and embeds a pair.

        Raises:
            ValueError: if the image cannot be read, or the text does not fit the model.
        """
        image = pair.load()
        pixels = self.processor.image_processor(images=[image], return_tensors="pt")
        encoded = tokenize(self.model, self.processor, [pair.text])
        with count_passes(self.model) as passes:
            to_text = ImageTextSimilarity(self.model, self.processor, [pair.text])
            to_image = TextImageSimilarity(self.model, self.processor, [image])
        return Sample(
            pair=pair,
            pixels=pixels["pixel_values"].to(self.device),
            encoded={name: value.to(self.device) for name, value in encoded.items()},
            to_text=to_text,
            to_image=to_image,
            text=EmbeddedText(to_image, self.processor, [pair.text]),
            passes=passes,
        )

    def run(self, row: Row, sample: Sample, *, example: bool = False) -> Record:
        """Explains a sample with a row's method and judges both maps.

        Args:
            row: the method.
            sample: the pair.
            example: keep the map itself, for the page of examples.

        Returns:
            the pair's cosine, drop and increase of image and text (percent; not of a text of one
            word, which no map can change), seconds per map beside the embedding of the other side,
            passes with it, and where the pair has masks whether the map points at the named object.

        Raises:
            ValueError: if the method fails on the sample.
        """
        with count_passes(self.model) as passes:
            heat, image_seconds = _timed(lambda: self.image_map(row, sample))
            scores, text_seconds = _timed(lambda: self.token_scores(row, sample))
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
        if (~sample.text.special).sum() > 1:
            text = self._text_confidence(sample, scores)
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

    def image_map(self, row: Row, sample: Sample) -> Tensor:
        """(1, 1, H, W) signed map of the image."""
        size = sample.pixels.shape[-2:]
        if row.method in ("random", "patches"):
            side = 1 if row.method == "random" else patch_size(self.model)
            noise = torch.rand(1, 1, size[0] // side, size[1] // side, generator=_dice(sample))
            return image_map(noise.to(sample.pixels), size)
        if row.method == "ig":
            attribution = IntegratedGradients(sample.to_text).attribute(
                sample.pixels, target=0, internal_batch_size=64
            )
            return image_map(attribution, size).float()
        attribution = attribute_image(
            _method(row),
            sample.to_text,
            sample.pixels,
            0,
            hidden_state=row.states[0],
            **row.options,
        )
        return _sign(row) * image_map(attribution, size, model=self.model)

    def token_scores(self, row: Row, sample: Sample) -> Tensor:
        """(1, 1, T) signed scores of the tokens."""
        ids = sample.encoded["input_ids"]
        if row.method in ("random", "patches"):
            return torch.rand(1, 1, ids.shape[1], generator=_dice(sample)).to(sample.pixels)
        if row.method == "ig":
            text = sample.text
            attribution = IntegratedGradients(text).attribute(
                text.embeddings,
                baselines=text.embeddings * text.special[:, None],
                target=0,
                internal_batch_size=64,
            )
            summed: Tensor = attribution.sum(1, keepdim=True).float()
            return summed
        attribution = attribute_text(
            _method(row),
            sample.to_image,
            self.processor,
            sample.encoded,
            0,
            hidden_state=row.states[1],
            **row.options,
        )
        return _sign(row) * attribution.sum(-1)[:, None]

    def _text_confidence(self, sample: Sample, scores: Tensor) -> Confidence:
        text = sample.text
        if self.compat is not None:
            scores = min_max(scores)[..., ~text.special[0]]
            text = EmbeddedText(
                sample.to_image, self.processor, [sample.pair.text], compat=self.compat
            )
        masks = text.masks(text.embeddings, scores, normalise=self.compat is None)
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
    return record["index"], record.get("row")


def _in_order(records: Iterable[Record], rows: Sequence[Row]) -> list[Record]:
    """One record for each pair and row, in their order; an error only where nothing came of it."""
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


def _timed(make: Callable[[], Tensor]) -> tuple[Tensor, float]:
    begin = time.perf_counter()
    result = make()
    if result.is_cuda:
        torch.cuda.synchronize(result.device)
    return result, time.perf_counter() - begin


def _method(row: Row) -> str:
    return "nib" if row.method == "inverted" else row.method


def _sign(row: Row) -> int:
    return -1 if row.method == "inverted" else 1


def _dice(sample: Sample) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(sample.pair.name.encode()))


def _thumbnail(image: Tensor) -> list[Any]:
    """(C, h, w) at most 32 to a side, rounded."""
    size = min(image.shape[-2], THUMBNAIL), min(image.shape[-1], THUMBNAIL)
    small = adaptive_avg_pool2d(image.detach(), size)
    rounded: list[Any] = [
        [[float(f"{value:.4g}") for value in line] for line in channel]
        for channel in small.tolist()
    ]
    return rounded
