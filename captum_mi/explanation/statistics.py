"""Statistics of a hidden state in each tower: where a path may start, or a bottleneck's noise."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_mi.attr.layer_statistics import LayerStatistics, Moments, layer_values
from captum_mi.attr.methods import EARLY
from captum_mi.maps import special_tokens
from captum_mi.models import tokenize
from captum_mi.models.clip import image_features, preprocess, text_features
from captum_mi.models.towers import hidden_state
from captum_mi.models.towers import hidden_states as checked_hidden_states

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from captum_mi._protocols import Processor, Tokenizer
    from captum_mi.datasets import Pair
    from captum_mi.models.towers import Tower

BATCH = 64
WORD = -1  # the token of a key: any word
ANYWHERE = -1  # the place of a key


@dataclass(frozen=True)
class TokenStatistics:
    """Statistics of a text tower's hidden state, by what stands where: a word, or a special token.

    Each has its own at every place, and one more wherever it stands.

    Attributes:
        keys: (K, 2) place and token id of each row below; -1 stands for any place, and for words.
        mean: (K, D).
        std: (K, D), with n - 1.
        active: (K, D), share of the samples that are not zero.
        count: number of texts.
    """

    keys: Tensor
    mean: Tensor
    std: Tensor
    active: Tensor
    count: int

    @classmethod
    def fit(cls, latents: Iterable[tuple[Sequence[int], Tensor]]) -> TokenStatistics:
        """Groups the tokens of texts by their keys.

        Args:
            latents: for each text the ids of its tokens, -1 for a word, and its latents (T, D).

        Raises:
            ValueError: if there are fewer than two texts, or no token occurs twice.
        """
        moments: dict[tuple[int, int], Moments] = defaultdict(Moments)
        count = 0
        for tokens, values in latents:
            count += 1
            for place, (token, value) in enumerate(zip(tokens, values, strict=True)):
                moments[place, token].add(value[None])
                moments[ANYWHERE, token].add(value[None])
        fitted = {key: one.statistics() for key, one in moments.items() if one.count > 1}
        if count < 2 or not fitted:
            raise ValueError(f"`latents` must be those of two texts or more, got {count}")
        return cls(
            keys=torch.tensor(list(fitted)),
            mean=torch.stack([one.mean for one in fitted.values()]),
            std=torch.stack([one.std for one in fitted.values()]),
            active=torch.stack([one.active for one in fitted.values()]),
            count=count,
        )

    def of(self, tokens: Sequence[int]) -> LayerStatistics:
        """Returns the statistics of a text's tokens, (T, D).

        Args:
            tokens: the ids of the text's special tokens, -1 for each word. One at a place where
                fewer than two of the fitted texts had it gets its statistics anywhere.

        Raises:
            ValueError: if a special token was in none of the fitted texts.
        """
        rows = {(place, token): row for row, (place, token) in enumerate(self.keys.tolist())}
        found = []
        for place, token in enumerate(tokens):
            row = rows.get((place, token), rows.get((ANYWHERE, token)))
            if row is None:
                what = "words" if token == WORD else f"special token {token}"
                raise ValueError(
                    f"the statistics know no {what}; fit them on more texts, of the same processor"
                )
            found.append(row)
        return LayerStatistics(self.mean[found], self.std[found], self.active[found], self.count)


@dataclass(frozen=True)
class TowerStatistics:
    """Statistics of a hidden state in each tower of an image-text model, over a data set.

    Their mean is a start for :class:`NarrowingIB`, and they are a prior for :class:`MultimodalIB`.

    Attributes:
        hidden_states: the hidden states, in the image and in the text tower.
        image: statistics of the one.
        text: statistics of the other.

    Example:
        >>> clip, processor = load_clip()
        >>> statistics = TowerStatistics.fit(clip, processor, scene_pairs(8))
        >>> statistics.hidden_states, statistics.image.mean.shape
        ((1, 0), torch.Size([65, 128]))
    """

    hidden_states: tuple[int, int]
    image: LayerStatistics
    text: TokenStatistics

    @classmethod
    def fit(
        cls,
        model: nn.Module,
        processor: Processor,
        pairs: Iterable[Pair],
        hidden_states: tuple[int | None, int | None] = (None, None),
    ) -> TowerStatistics:
        """Runs both towers up to their hidden states on all pairs.

        Args:
            model: image-text model.
            processor: its processor.
            pairs: images and texts; what cannot be read is left out.
            hidden_states: those to fit in the image and in the text tower; None is what methods
                explain by default that start at statistics.

        Raises:
            ValueError: if fewer than two images or texts can be read, with the reason why the first
                cannot, or a tower has not so many blocks.
        """
        image_state, text_state = checked_hidden_states(model, hidden_states, EARLY)
        pairs = list(pairs)  # both towers read them
        problems: list[str] = []
        layer, at_input = hidden_state(model, "image", image_state)
        with _told_with(problems):
            image = LayerStatistics.fit(
                partial(image_features, model),
                layer,
                _images(model, processor, pairs, problems),
                attribute_to_layer_input=at_input,
            )
        problems.clear()
        layer, at_input = hidden_state(model, "text", text_state)

        def latents() -> Iterator[tuple[list[int], Tensor]]:
            embed = partial(text_features, model)
            for encoded in _texts(model, processor, pairs, problems):
                values = layer_values(embed, layer, (encoded,), at_input=at_input)
                yield _tokens(processor, encoded["input_ids"]), values[0]

        with _told_with(problems):
            text = TokenStatistics.fit(latents())
        return cls((image_state, text_state), image, text)

    def of_image(self, state: int) -> LayerStatistics:
        """Returns the statistics of the image tower's hidden state, ValueError if of another."""
        self._check("image", self.hidden_states[0], state)
        return self.image

    def of_text(
        self, state: int, processor: Processor | Tokenizer, input_ids: Tensor
    ) -> LayerStatistics:
        """Returns the statistics of a text's tokens in the hidden state, (T, D).

        Args:
            state: the hidden state.
            processor: the processor, or the tokenizer, that made the ids.
            input_ids: (B, T), texts of one length.

        Raises:
            ValueError: if the statistics are of another hidden state or do not know a special
                token, or the texts differ in length.
        """
        self._check("text", self.hidden_states[1], state)
        return self.text.of(_tokens(processor, input_ids))

    def _check(self, tower: Tower, own: int, state: int) -> None:
        if own != state:
            raise ValueError(
                f"the statistics are of hidden state {own} of the {tower} tower, not of {state};"
                f" fit them there, or set `hidden_state` to {own}"
            )

    def save(self, path: str | Path) -> None:
        """Writes the statistics as safetensors."""
        from safetensors.torch import save_file

        tensors = {
            f"{tower}.{field.name}": value.cpu().contiguous()
            for tower, part in (("image", self.image), ("text", self.text))
            for field in fields(part)
            if isinstance(value := getattr(part, field.name), Tensor)
        }
        numbers = {
            "hidden_states": self.hidden_states,
            "count": (self.image.count, self.text.count),
        }
        save_file(tensors, path, {name: json.dumps(value) for name, value in numbers.items()})

    @classmethod
    def load(cls, path: str | Path) -> TowerStatistics:
        """Reads what :meth:`save` wrote.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it holds something else.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise FileNotFoundError(
                f"there are no statistics {str(path)!r}; write them with captum-mi fit, or save"
            )
        try:
            with safe_open(path, framework="pt") as file:
                parts: dict[str, dict[str, Tensor]] = {"image": {}, "text": {}}
                for name in file.keys():  # noqa: SIM118
                    tower, _, field = name.partition(".")
                    parts[tower][field] = file.get_tensor(name)
                images, texts = json.loads(file.metadata()["count"])
                image_state, text_state = json.loads(file.metadata()["hidden_states"])
            return cls(
                (image_state, text_state),
                LayerStatistics(**parts["image"], count=images),
                TokenStatistics(**parts["text"], count=texts),
            )
        except (KeyError, SafetensorError, TypeError) as error:
            raise ValueError(f"{str(path)!r} holds no statistics of two towers") from error


@contextmanager
def _told_with(problems: Sequence[str]) -> Iterator[None]:
    """Adds to a ValueError why the first of what was left out was."""
    try:
        yield
    except ValueError as error:
        if not problems:
            raise
        raise ValueError(f"{error}; the first was left out for: {problems[0]}") from error


def _images(
    model: nn.Module, processor: Processor, pairs: Iterable[Pair], problems: list[str]
) -> Iterator[Tensor]:
    """Yields batches of the images that can be read; adds to the problems why others cannot."""
    batch: list[Tensor] = []
    for pair in pairs:
        try:
            batch.append(preprocess(model, processor, [pair.load()]))
        except ValueError as error:
            problems.append(str(error))
            continue
        if len(batch) == BATCH:
            yield torch.cat(batch)
            batch = []
    if batch:
        yield torch.cat(batch)


def _texts(
    model: nn.Module, processor: Processor, pairs: Iterable[Pair], problems: list[str]
) -> Iterator[dict[str, Tensor]]:
    """Yields the texts that fit the model, one by one, for padding must not matter."""
    device = next(model.parameters()).device
    for pair in tqdm(pairs, desc="text statistics", leave=False, delay=2):
        try:
            encoded = tokenize(model, processor, [pair.text])
        except ValueError as error:
            problems.append(str(error))
            continue
        yield {name: value.to(device) for name, value in encoded.items()}


def _tokens(processor: Processor | Tokenizer, input_ids: Tensor) -> list[int]:
    """Returns the ids of the special tokens of texts of one length, and -1 for each word."""
    rows: list[list[int]] = input_ids.where(special_tokens(processor, input_ids), WORD).tolist()
    if any(row != rows[0] for row in rows):
        raise ValueError("`input_ids` must be texts of one length; explain others one by one")
    return rows[0]
