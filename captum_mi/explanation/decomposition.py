"""What the patches of an image tell of its embedding, and what the choice among texts needs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from captum_mi.attr.decomposition import Decomposition
from captum_mi.attr.infonce import InfoNCEDecomposition
from captum_mi.attr.methods import METHODS
from captum_mi.maps import image_seen, patch_map
from captum_mi.models import ImageTextSimilarity
from captum_mi.models.clip import preprocess
from captum_mi.models.towers import hidden_state as find_hidden_state
from captum_mi.models.towers import hidden_states

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from captum_mi._protocols import Image, Processor
    from captum_mi.attr.decomposition import Information
    from captum_mi.datasets import Pair

BATCH = 64
JUDGED = 10
"""Of so many images one is kept from the fit, and judged."""
LEAST = 24
HIDDEN, BETA, LEARNING_RATE = 128, 2.0, 2e-3
"""What told a named object from another in the scenes; a file of 128 units has 2 MB."""
ANY_TEXT = "a"


class FittedDecomposition(NamedTuple):
    """What was fitted, and what it finds.

    Attributes:
        method: fitted; its ``decompose`` takes the processor's pixels.
        information: the means over images that the fit never saw.
        hidden_state: whose places are decomposed.
        n_images: how many were fitted to, held-out ones included.
    """

    method: InfoNCEDecomposition
    information: Information
    hidden_state: int
    n_images: int


def fit_decomposition(
    model: nn.Module,
    processor: Processor,
    pairs: Sequence[Pair],
    texts: Sequence[str] | None = None,
    *,
    hidden_state: int | None = None,
    epochs: int = 10,
    seed: int = 0,
    **options: Any,
) -> FittedDecomposition:
    """Fits an :class:`InfoNCEDecomposition` of the image tower of an image-text model.

    The representation is the image's embedding, the places are the patches of a hidden state, and
    the task is to choose an image's text among all of them.

    Args:
        model: image-text model.
        processor: its processor.
        pairs: images and texts; those that cannot be read are left out, with a warning.
        texts: what is chosen among, by the model's own decisions; None takes the pairs' texts, and
            of each image its own.
        hidden_state: whose places are decomposed; None is the method's default.
        epochs: at most.
        seed: draws weights, batches and noise.
        **options: further arguments of the method's constructor; 128 hidden units and a ``beta`` of
            2 by default.

    Raises:
        ValueError: if too few images can be read, there are fewer than two texts, an argument is
            out of range, or training diverges.

    Example:
        >>> pairs = scene_pairs(24)
        >>> fitted = fit_decomposition(clip, processor, pairs, epochs=1, hidden=8)
        >>> maps = fitted.method.decompose(pixels)  # of any image
        >>> maps.total.shape, fitted.hidden_state
        (torch.Size([1, 65, 1]), 2)
    """
    state, _ = hidden_states(model, (hidden_state, None), METHODS["infonce"].hidden_states)
    layer, at_input = find_hidden_state(model, "image", state)
    if at_input:
        raise ValueError(
            "`hidden_state` must be at least 1, the places behind a block, got 0; of the embeddings"
            " give InfoNCEDecomposition a layer that returns them"
        )
    if texts is not None:
        _check_texts(texts)
    readable = _readable(pairs)
    if len(readable) < LEAST:
        raise ValueError(
            f"`pairs` must hold {LEAST} images at least that can be read, got {len(readable)}"
        )
    labels = None
    if texts is None:
        numbers = {text: i for i, text in enumerate(dict.fromkeys(readable.values()))}
        texts, labels = list(numbers), [numbers[text] for text in readable.values()]
        _check_texts(texts)
    images = _Images(model, processor, pairs, list(readable), labels)
    judged = range(0, len(images), JUDGED)
    fitted_to = [i for i in range(len(images)) if i not in judged]
    similarity = ImageTextSimilarity(model, processor, texts)
    settings = {"hidden": HIDDEN, "beta": BETA} | options
    method = InfoNCEDecomposition(similarity, layer, similarity.embedding, **settings)
    loader = DataLoader(Subset(images, fitted_to), BATCH)
    method.fit(loader, epochs, learning_rate=LEARNING_RATE, seed=seed)
    information = method.information(DataLoader(Subset(images, judged), BATCH))
    return FittedDecomposition(method, information, state, len(fitted_to))


@dataclass(frozen=True)
class ImageDecomposition:
    """What the places of one image tell.

    Attributes:
        pixels: (H, W, 3) in [0, 1], the image as the model saw it, resized and cropped.
        parts: maps (1, 1, h, w) at the resolution of the places, and their cap, pointwise nats.
    """

    pixels: Tensor
    parts: Decomposition

    def as_dict(self) -> dict[str, Any]:
        """Returns all but ``pixels`` in terms that JSON knows: the means, the cap, the maps."""
        names = "total", "decision", "redundant", "mask"
        maps = {name: getattr(self.parts, name)[0, 0] for name in names}
        means = {name: float(one.mean()) for name, one in maps.items()}
        places = {name: one.tolist() for name, one in maps.items()}
        return {"means": means, "cap": self.parts.cap, "places": places}


def decompose_image(
    method: InfoNCEDecomposition, processor: Processor, image: Image
) -> ImageDecomposition:
    """Decomposes what an image's places tell of its embedding.

    Args:
        method: fitted, see :func:`fit_decomposition` and :func:`load_decomposition`.
        processor: the model's processor.
        image: the image, in any form that the processor takes.

    Raises:
        ValueError: if it was fitted on another model.

    Example:
        >>> method = fit_decomposition(clip, processor, scene_pairs(24), epochs=1, hidden=8).method
        >>> found = decompose_image(method, processor, scene.image)
        >>> found.parts.total.shape, list(found.as_dict())
        (torch.Size([1, 1, 8, 8]), ['means', 'cap', 'places'])
    """
    model = method.forward_func.model
    pixels = preprocess(model, processor, [image])
    found = method.decompose(pixels)

    def placed(part: Tensor) -> Tensor:
        return (part if part.ndim == 4 else patch_map(part, pixels, model=model)).cpu()

    parts = Decomposition(
        placed(found.total), placed(found.decision), placed(found.mask), found.cap
    )
    return ImageDecomposition(image_seen(pixels, processor), parts)


def load_decomposition(
    path: str | Path, model: nn.Module, processor: Processor
) -> InfoNCEDecomposition:
    """Reads what the ``save`` of a decomposition of an image tower wrote.

    Args:
        path: the file.
        model: the image-text model that it was fitted on.
        processor: its processor.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else, or the model has no such layers.
    """
    # The texts that were chosen among matter to the fit alone; the maps end at the embedding.
    return InfoNCEDecomposition.load(path, ImageTextSimilarity(model, processor, [ANY_TEXT]))


class _Images(Dataset[Any]):
    """Some pairs' images as the model reads them, read when asked for, and their texts' numbers."""

    def __init__(
        self,
        model: nn.Module,
        processor: Processor,
        pairs: Sequence[Pair],
        rows: Sequence[int],
        labels: Sequence[int] | None,
    ) -> None:
        self.read = partial(preprocess, model, processor)
        self.pairs = pairs
        self.rows = rows
        self.labels = labels

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, int]:
        pixels = self.read([self.pairs[self.rows[index]].load()])[0]
        return pixels if self.labels is None else (pixels, self.labels[index])


def _check_texts(texts: Sequence[str]) -> None:
    if len(texts) < 2:
        raise ValueError(f"`texts` must be two at least, to choose among, got {list(texts)}")


def _readable(pairs: Iterable[Pair]) -> dict[int, str]:
    """Returns the numbers of the pairs that can be read, with their texts; warns of the others."""
    found, problems = {}, []
    for row, pair in enumerate(tqdm(pairs, desc="images", leave=False, delay=2)):
        try:
            pair.load()
        except ValueError as error:
            problems.append(str(error))
        else:
            found[row] = pair.text
    if problems:
        warnings.warn(
            f"{len(problems)} of {len(problems) + len(found)} images are left out, the first for:"
            f" {problems[0]}",
            stacklevel=3,
        )
    return found
