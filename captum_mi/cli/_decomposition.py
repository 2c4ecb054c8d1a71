"""``--method infonce`` of ``captum-mi fit`` and of ``captum-mi explain``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from captum_mi._checks import check_positive
from captum_mi.cli._data import read_images, read_pairs
from captum_mi.cli._findings import SHIPPED, Findings, shipped_scene
from captum_mi.cli._options import warn_of_embedded

if TYPE_CHECKING:
    import argparse

    from PIL.Image import Image

    from captum_mi.explanation import ImageDecomposition

IMAGES = 4000
"""Images that a decomposition is fitted on."""
EPOCHS = 5
FITTED = "infonce.safetensors"
SHIPPED_TASK = ", the task to choose the text of the red, green, blue or yellow object"
FIT_OPTIONS = ("texts", "epochs", "seed")


def add_fit_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``captum-mi fit`` that are for decompositions alone."""
    flags = parser.add_argument_group("infonce")
    flags.add_argument(
        "--texts",
        nargs="+",
        metavar="TEXT",
        help=(
            "what the model chooses among, image by image; then --data may be a folder of images"
            " alone (default: the texts of the data, of each image its own)"
        ),
    )
    flags.add_argument(
        "--epochs", type=int, metavar="N", help=f"passes over the images (default: {EPOCHS})"
    )
    flags.add_argument(
        "--seed", type=int, metavar="N", help="draws weights, batches and noise (default: 0)"
    )


def fit(options: argparse.Namespace) -> str:
    """Fits a decomposition and writes it; returns what to print."""
    import torch

    from captum_mi.datasets.scenes import NAMED
    from captum_mi.explanation import fit_decomposition
    from captum_mi.models import load_clip

    epochs = check_positive("--epochs", EPOCHS if options.epochs is None else options.epochs)
    read = read_images if options.texts else read_pairs
    pairs, source = read(options, options.samples or IMAGES, others=True, first_colors=NAMED)
    model, processor = load_clip(options.model)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    fitted = fit_decomposition(
        model,
        processor,
        pairs,
        options.texts,
        hidden_state=options.hidden_state[0],
        epochs=epochs,
        seed=options.seed or 0,
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    fitted.method.save(options.out)
    found = fitted.information
    lines = [
        f"{source}: the places of hidden state {fitted.hidden_state} in {fitted.n_images} images,"
        f" and the choice among {len(fitted.method.forward_func.texts)} texts",
        f"means over {found.total.n_samples} others, nats ± standard error:",
    ]
    for name in ("total", "decision", "redundant"):
        estimate = getattr(found, name)
        lines.append(f"  {name:9}  {estimate.value:6.3f} ± {estimate.std_error:.3f}")
    lines.append(f"  of at most {found.cap:.2f}; {100 * found.mask:.0f} % pass the mask")
    return "\n".join(lines)


def explain(options: argparse.Namespace) -> Findings:
    """Decomposes an image with what was fitted."""
    if options.texts:
        raise ValueError(
            f"`--method` {options.method} takes no TEXT, got {options.texts[0]!r}: what is chosen"
            " among was settled by captum-mi fit"
        )
    if options.start is not None:
        raise ValueError(
            f"`--start` is not for `--method` {options.method}, which has no start to choose"
        )
    if options.model is not None and options.fitted is None:
        raise ValueError(
            f"`--method` {options.method} needs `--fitted`, the file that captum-mi fit --method"
            f" {options.method} --model {options.model} writes"
        )
    image, source = _image(options)

    from captum_mi import visualization
    from captum_mi.explanation import decompose_image, load_decomposition
    from captum_mi.models import load_clip
    from captum_mi.models.tiny_clip import FOLDER

    model, processor = load_clip(options.model)
    path = options.fitted or FOLDER / FITTED
    method = load_decomposition(path, model, processor)
    found = decompose_image(method, processor, image)
    parts = found.parts
    names = {module: name for name, module in model.named_modules()}
    layer = names.get(method.layer, type(method.layer).__name__)
    return Findings(
        {
            "image": source,
            "explained": f"places of {layer}{'' if options.fitted else SHIPPED_TASK}",
            "fitted": "shipped" if options.fitted is None else str(options.fitted),
        },
        partial(
            visualization.decomposition,
            [found.pixels],
            parts.total,
            parts.decision,
            parts.redundant,
            mask=parts.mask,
            cap=parts.cap,
        ),
        [found.as_dict()],
        _table(found),
    )


def _image(options: argparse.Namespace) -> tuple[Image, str]:
    from PIL.Image import fromarray

    from captum_mi.datasets.pairs import read_image
    from captum_mi.datasets.scenes import NAMED

    if options.image is None:
        return fromarray(shipped_scene(first_colors=NAMED).image), SHIPPED
    warn_of_embedded(options)
    return read_image(options.image), options.image


def _table(found: ImageDecomposition) -> str:
    """Returns a line for each part: its mean over the places, and the largest with its place."""
    parts = found.parts
    rows = ["           mean nats  most nats  at row, column"]
    for name in ("total", "decision", "redundant"):
        values = getattr(parts, name)[0, 0]
        row, column = divmod(int(values.argmax()), values.shape[1])
        mean, most = float(values.mean()), float(values.max())
        rows.append(f"{name:9}  {mean:+9.3f}  {most:+9.3f}  {row + 1}, {column + 1}")
    passed = 100 * float(parts.mask.mean())
    rows.append(f"of at most {parts.cap:.2f} nats a place; {passed:.0f} % pass the mask")
    return "\n".join(rows)
