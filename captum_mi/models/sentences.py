"""A text encoder as a classifier: cosine similarity of texts to fixed texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from captum_mi._checks import check_choice
from captum_mi._intervention.nested import tensors
from captum_mi.models.similarity import unit
from captum_mi.models.texts import check_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Pooling = Literal["mean", "cls", "last"]
POOLINGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
"""What sentence-transformers calls the poolings -> what they are called here."""
MODULES = ("Transformer", "Pooling", "Normalize")
"""Parts of a sentence-transformers folder that a cosine of pooled tokens is made of."""


class SentenceSimilarity(nn.Module):
    """Cosine similarities of texts to K fixed texts; ``target`` is the index of a fixed text.

    Args:
        model: an encoder of Hugging Face, such as BERT, whose output begins with the last hidden
            state (B, T, D).
        tokenizer: its tokenizer.
        texts: the K fixed texts; embedded once, here.
        pooling: "mean" of the tokens that are no padding, "cls", the first token, or "last", the
            last that is no padding; see :func:`load_sentence_encoder`.

    Attributes:
        text_embeddings: (K, D) buffer of unit length, float32 for half-precision models.

    Raises:
        TypeError: if ``texts`` is one text.
        ValueError: if there is no text, one is empty or longer than the model reads, or there is no
            such pooling.

    Source: Reimers and Gurevych, "Sentence-BERT", EMNLP 2019, section 3.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> tokenizer = load_clip()[1].tokenizer  # in earnest: load_sentence_encoder(name)
        >>> config = BertConfig(vocab_size=len(tokenizer), hidden_size=12)
        >>> similarity = SentenceSimilarity(BertModel(config).eval(), tokenizer, ["a red circle"])
        >>> similarity(**similarity.tokenize(["a blue square", "a heart"])).shape
        torch.Size([2, 1])
    """

    text_embeddings: Tensor

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        texts: Sequence[str],
        *,
        pooling: Pooling = "mean",
    ) -> None:
        """Embeds the texts."""
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.pooling = check_choice("pooling", pooling, POOLINGS.values())
        self.texts = check_texts(texts)
        self.training = model.training
        with torch.no_grad():
            embeddings = self.embed(**self.tokenize(self.texts))
        self.register_buffer("text_embeddings", embeddings)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Tokenizes texts, on the model's device.

        Args:
            texts: non-empty texts.

        Returns:
            ``input_ids`` and ``attention_mask``, (B, T) each.

        Raises:
            ValueError: if a text is empty, or longer than the model reads.
        """
        encoded = self.tokenizer(check_texts(texts), padding=True, verbose=False)
        longest = max(map(sum, encoded["attention_mask"]))
        limit = min(
            self.tokenizer.model_max_length,
            getattr(self.model.config, "max_position_embeddings", None) or longest,
        )
        if longest > limit:
            raise ValueError(
                f"a text has {longest} tokens, but the model reads at most {limit}; shorten it"
            )
        device = next(self.model.parameters()).device
        names = ("input_ids", "attention_mask")
        return {name: torch.tensor(encoded[name], device=device) for name in names}

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Returns the cosines.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T), 0 on padding; None if there is no padding.

        Returns:
            (B, K) in [-1, 1], float32 for half-precision models.
        """
        embeddings = self.embed(input_ids, attention_mask)
        return embeddings @ self.text_embeddings.to(embeddings).T

    def embed(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Returns the texts' embeddings of unit length, (B, D)."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = next(tensors(self.model(input_ids=input_ids, attention_mask=mask)))
        if self.pooling == "cls":
            return unit(hidden[:, 0])
        if self.pooling == "last":
            places = torch.arange(mask.shape[1], device=mask.device)
            last = (mask * places).argmax(1)
            return unit(hidden[torch.arange(len(hidden), device=mask.device), last])
        return unit((hidden * mask[..., None].to(hidden)).sum(1))  # the mean's direction


def load_sentence_encoder(
    name: str | Path,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Pooling]:
    """Loads a text encoder, its tokenizer, and how its tokens are pooled.

    Args:
        name: a local folder of Hugging Face or of sentence-transformers, or a hub name such as
            "sentence-transformers/all-MiniLM-L6-v2". Weights are read from safetensors only.

    Returns:
        the model, in evaluation mode, its tokenizer, and the pooling that a sentence-transformers
        folder names; "mean" if it names none.

    Raises:
        OSError: if the folder or the hub name cannot be read.
        ValueError: if more is done to the tokens than one of the poolings.
    """
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer

    try:
        model = AutoModel.from_pretrained(str(name), use_safetensors=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(str(name))
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"cannot load a text encoder from {str(name)!r}; give a local folder in Hugging Face"
            f" layout with safetensors weights, or a hub name that can be reached ({reason})"
        ) from error
    return model, tokenizer, _pooling(str(name))


def is_text_encoder(name: str | Path) -> bool:
    """Returns True if a folder or a hub name holds a model of texts alone, by its configuration.

    Args:
        name: as for :func:`load_sentence_encoder`; False for what cannot be read.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(name))
    except (OSError, ValueError):
        return False
    return hasattr(config, "vocab_size") and not hasattr(config, "vision_config")


def _pooling(name: str) -> Pooling:
    """Returns the pooling of a sentence-transformers folder, "mean" without one."""
    listed = _file(name, "modules.json")
    if listed is None:
        return "mean"
    kinds = [part["type"].rpartition(".")[2] for part in json.loads(listed.read_text("utf-8"))]
    if not set(kinds) <= set(MODULES):
        raise ValueError(f"{name!r} embeds by {', '.join(kinds)}, not by pooled tokens alone")
    chosen = _file(name, "1_Pooling/config.json")
    settings = {} if chosen is None else json.loads(chosen.read_text("utf-8"))
    modes = [mode for mode, used in settings.items() if mode.startswith("pooling_mode_") and used]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise ValueError(
            f"{name!r} pools by {' and '.join(modes) or 'nothing'}; known are {', '.join(POOLINGS)}"
        )
    return POOLINGS[modes[0]]


def _file(name: str, file: str) -> Path | None:
    """Returns a file of a folder, or of a repository on the hub; None if it has none."""
    if Path(name).is_dir():
        return Path(name, file) if Path(name, file).is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, file))
    except LocalEntryNotFoundError:  # out of reach, which is not the same as absent
        raise
    except EntryNotFoundError:
        return None
