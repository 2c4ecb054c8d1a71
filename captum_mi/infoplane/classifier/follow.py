"""The plane of a model that goes from epoch to epoch, by training or by its saved weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from captum_mi.infoplane.untouched import left_as_it_is

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn

    from captum_mi.infoplane.classifier.data import Images
    from captum_mi.infoplane.classifier.training import Training
    from captum_mi.infoplane.recorder import InformationPlane

CHUNK = 1000


def follow(
    plane: InformationPlane,
    epochs: Iterable[int],
    training: Training,
    train: Images,
    recorded: Images,
    *,
    every: int = 1,
    report: Callable[[str], None] | None = None,
) -> None:
    """Records every so many epochs, with the noise of the training.

    Args:
        plane: of the model, which the epochs change.
        epochs: numbers of the epochs; the model has the weights of each while it is the last.
        training: whose noise is added.
        train: images whose mean loss is noted with the record.
        recorded: images to record with.
        every: epochs between two records; the others are passed by.
        report: gets what a record costs, once.

    Example:
        >>> from captum_mi.infoplane import InformationPlane
        >>> from captum_mi.infoplane.classifier import Classifier, Training, read_images
        >>> train, test = read_images("digits")
        >>> model, training = Classifier(1, 8), Training(("L4", "L5"), epochs=4)
        >>> plane = InformationPlane(model, ["L4", "L5"])
        >>> follow(plane, training.run(model, train), training, train, test, every=2)
        >>> [(row.epoch, row.layer) for row in plane.rows[-2:]], plane.rows[-1].loss < 2.3
        ([(4, 'L4'), (4, 'L5')], True)
    """
    known = {row.epoch for row in plane.rows}
    for epoch in epochs:
        if epoch % every or epoch in known:
            continue
        with training.noisy(plane.model, epoch, recorded=True):
            loss = float(cross_entropy(_scores(plane.model, train), train.labels))
            plane.record(recorded.images, recorded.labels, epoch=epoch, loss=loss)
        if report is not None:
            report(
                f"a record of {len(recorded.images)} samples and {len(plane.layers)} layers takes"
                f" {plane.seconds:.1f} s"
            )
            report = None


def accuracy(model: nn.Module, images: Images) -> float:
    """Returns the share of images that a model classifies rightly.

    Example:
        >>> from captum_mi.infoplane.classifier import Images
        >>> images = Images(torch.eye(4)[:, None, None], torch.tensor([0, 1, 2, 2]))
        >>> accuracy(nn.Flatten(), images)
        0.75
    """
    return float((_scores(model, images).argmax(1) == images.labels).float().mean())


def _scores(model: nn.Module, images: Images) -> Tensor:
    """Returns the scores of all images, on the CPU, in evaluation mode."""
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    with left_as_it_is(model):
        chunks = torch.split(images.images, CHUNK)
        return torch.cat([model(chunk.to(device)).float().cpu() for chunk in chunks])
