"""Dual encoders of Hugging Face: loading, their blocks, their embeddings, their texts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from captum_mi._checks import check_choice
from captum_mi.models import tiny_clip

Tower = Literal["image", "text"]
TOWERS: dict[Tower, tuple[str, ...]] = {
    "image": ("vision_model", "visual", "vision_tower", "image_model"),
    "text": ("text_model", "text_encoder", "language_model"),
}
Blocks = nn.ModuleList | nn.Sequential
POOLS_AT_EOS = ("clip", "metaclip_2")
POOLS_AT_LAST_POSITION = ("siglip",)
LEGACY_EOS = 2  # this eos_token_id in a CLIP configuration stands for "the largest id of the row"


def load_clip(name: str | Path | None = None) -> tuple[Any, Any]:
    """Loads an image-text model and its processor.

    Args:
        name: a local folder in Hugging Face layout, or a hub name such as
            "openai/clip-vit-base-patch32"; None is the embedded model. Weights are read from
            safetensors only; nothing is downloaded for a folder.

    Returns:
        the model, in evaluation mode, and its processor.

    Raises:
        OSError: if the folder or the hub name cannot be read.
        ValueError: if the model is not a dual encoder.

    Example:
        >>> clip, processor = load_clip()
        >>> len(blocks(clip, "image"))
        6
    """
    from transformers import AutoModel, AutoProcessor

    source = str(tiny_clip.FOLDER if name is None else name)
    if name is not None and Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        raise OSError(
            f"folder {source!r} holds no config.json; give a folder in Hugging Face layout"
        )
    try:
        model = AutoModel.from_pretrained(source, use_safetensors=True)
        processor = AutoProcessor.from_pretrained(source)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"cannot load a model from {source!r}; give a local folder in Hugging Face layout with"
            f" safetensors weights, or a hub name that can be reached ({reason})"
        ) from error
    for method in ("get_image_features", "get_text_features"):
        if not hasattr(model, method):
            raise ValueError(
                f"{source!r} is a {type(model).__name__}, which has no {method}; give an image-text"
                " model such as CLIP"
            )
    return model.eval(), processor


def blocks(model: nn.Module, tower: Tower = "image") -> Blocks:
    """Returns the encoder blocks of a transformer.

    Args:
        model: an image-text model (CLIP, SigLIP, ChineseCLIP, AltCLIP, open_clip, ...), any module
            that holds one, such as a similarity, or a single encoder (torchvision or Hugging Face
            ViT, BERT, ...).
        tower: which encoder of an image-text model.

    Returns:
        the container of the blocks, in the order in which they run.

    Raises:
        ValueError: if there is no list of attention blocks, or if there are several (as in a Swin
            transformer, whose stages have one each); the message names them.

    Example:
        >>> layer = blocks(clip, "image")[-4]
    """
    check_choice("tower", tower, TOWERS)
    prefix, encoder = _tower(model, tower)
    found = _block_lists(encoder)
    if len(found) == 1:
        return found.popitem()[1]
    names = [f"{prefix}{name}" for name in found or _lists(encoder)]
    names = names or [f"{prefix}{name}" for name, _ in encoder.named_children()]
    named = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    if not found:
        raise ValueError(
            f"`model` must be a transformer: {type(model).__name__} has no list of attention blocks"
            f" in its {tower} tower; take a layer by its name, as in"
            f" model.get_submodule({names[-1] if names else ''!r}), among {named}"
        )
    raise ValueError(
        f"`model` must have one list of attention blocks: {type(model).__name__} has {len(found)}"
        f" in its {tower} tower; take one by its name, as in model.get_submodule({names[-1]!r}), of"
        f" {named}"
    )


def _tower(model: nn.Module, tower: Tower) -> tuple[str, nn.Module]:
    """Returns a tower and the dotted name in front of its modules; a single encoder is its own."""
    towers = _towers(model)
    if not any(towers.values()):
        return "", model
    if len(towers[tower]) == 1:
        name, found = next(iter(towers[tower].items()))
        return f"{name}.", found
    if not towers[tower]:
        raise ValueError(f"`tower` {tower!r} is not part of {type(model).__name__}")
    raise ValueError(
        f"`model` must have one {tower} tower: {type(model).__name__} has"
        f" {', '.join(towers[tower])}; give one of them"
    )


def _towers(model: nn.Module) -> dict[Tower, dict[str, nn.Module]]:
    """Returns the towers of a model by dotted name, wherever they sit; none lies in another."""
    towers: dict[Tower, dict[str, nn.Module]] = {kind: {} for kind in TOWERS}
    met = set()

    def search(module: nn.Module, prefix: str) -> None:
        children = dict(module.named_children())
        for name, child in children.items():
            if child in met:
                continue
            met.add(child)
            kinds = [kind for kind, names in TOWERS.items() if name in names]
            if name == "transformer" and "visual" in children:  # as in open_clip
                kinds = ["text"]
            if kinds:
                towers[kinds[0]][f"{prefix}{name}"] = child
            else:
                search(child, f"{prefix}{name}.")

    search(model, "")
    return towers


def _block_lists(encoder: nn.Module) -> dict[str, Blocks]:
    """Returns the lists of attention blocks by name; one whose entries have lists is of stages."""
    found = {
        name: module
        for name, module in encoder.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and _holds_blocks(module)
    }
    stages = {
        name
        for name in found
        if any(inner.startswith(f"{name}.") and len(found[inner]) > 1 for inner in found)
    }
    top = {name: module for name, module in found.items() if name not in stages}
    return {
        name: module
        for name, module in top.items()
        if not any(name.startswith(f"{outer}.") for outer in top)
    }


def _lists(encoder: nn.Module) -> list[str]:
    """Returns the names of the outermost lists of modules."""
    found: list[str] = []
    for name, module in encoder.named_modules():
        is_list = isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) > 1
        if name and is_list and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    return found


def _holds_blocks(container: Blocks) -> bool:
    kinds = {type(child) for child in container}
    return len(kinds) == 1 and all(
        any("attention" in type(inner).__name__.lower() for inner in child.modules())
        for child in container
    )


def image_features(model: Any, pixel_values: Tensor) -> Tensor:  # noqa: ANN401
    """Returns the projected image embeddings, (B, D), of images of any size.

    Positions are interpolated for another size than the model's own.


    Raises:
        ValueError: if the model takes images of variable resolution as patches, or the image is not
            (B, 3, H, W).
    """
    size = getattr(model.config.vision_config, "image_size", None)
    if not isinstance(size, int):
        raise ValueError(
            f"{type(model).__name__} takes no images of one fixed size; use a fixed-resolution"
            " checkpoint"
        )
    if pixel_values.ndim != 4:
        raise ValueError(
            f"`pixel_values` must have shape (B, 3, H, W), got {tuple(pixel_values.shape)}"
        )
    native = tuple(pixel_values.shape[-2:]) == (size, size)
    options = {} if native else {"interpolate_pos_encoding": True}
    return _embedding(model.get_image_features(pixel_values=pixel_values, **options))


def text_features(model: Any, encoded: Mapping[str, Tensor | None]) -> Tensor:  # noqa: ANN401
    """Returns the projected text embeddings, (B, D)."""
    given = {name: value for name, value in encoded.items() if value is not None}
    return _embedding(model.get_text_features(**given))


def _embedding(output: Any) -> Tensor:  # noqa: ANN401
    """Returns the embedding in what ``get_*_features`` of any transformers version returns."""
    if isinstance(output, Tensor):
        return output
    embedding: Tensor = output[1] if isinstance(output, tuple) else output.pooler_output
    return embedding


def check_texts(texts: Sequence[str]) -> list[str]:
    """Returns the texts as a list if there is one and none is empty."""
    if isinstance(texts, str):
        raise TypeError(f"`texts` must be a list of texts, got the single text {texts!r}")
    if not texts:
        raise ValueError("`texts` must hold at least one text, got none")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"`texts` must hold non-empty texts, got {text!r}")
    return list(texts)


def tokenize(model: Any, processor: Any, texts: Sequence[str]) -> dict[str, Tensor]:  # noqa: ANN401
    """Tokenizes texts as the model was trained: padding, mask, EOS.

    Args:
        model: the image-text model.
        processor: its processor or its tokenizer.
        texts: non-empty texts.

    Returns:
        ``input_ids`` (K, T) and, where the model uses it, ``attention_mask`` (K, T).

    Raises:
        ValueError: if a text is empty or longer than the model's context, or if the tokenizer adds
            no end token.
    """
    texts = check_texts(texts)
    tokenizer = getattr(processor, "tokenizer", processor)
    context = context_length(model)
    if model.config.model_type in POOLS_AT_LAST_POSITION:
        encoded = tokenizer(texts, padding="max_length", max_length=context, return_tensors=None)
        names = ["input_ids"]
    else:
        encoded = tokenizer(texts, padding=True, return_tensors=None)
        names = ["input_ids", "attention_mask"]
    for text, ids in zip(texts, encoded["input_ids"], strict=True):
        if len(ids) > context:
            raise ValueError(
                f"text {text!r} has {len(ids)} tokens, but the model reads at most {context};"
                " shorten it"
            )
    result = {name: torch.tensor(encoded[name]) for name in names}
    check_pooling(model, result["input_ids"], tokenizer.eos_token_id)
    unknown = tokenizer.unk_token_id
    if unknown not in (None, tokenizer.eos_token_id, tokenizer.pad_token_id):
        for text, ids in zip(texts, result["input_ids"], strict=True):
            if (ids == unknown).any():
                warnings.warn(
                    f"text {text!r} has words that the tokenizer does not know; the model reads"
                    " each as the same unknown word",
                    stacklevel=2,
                )
    return result


def token_embedding(model: Any) -> nn.Module:  # noqa: ANN401
    """Returns the module that embeds the tokens of an image-text model's texts.

    Raises:
        ValueError: if the text tower has none.
    """
    _, tower = _tower(model, "text")
    for module in tower.modules():  # it stands in front of the positions' and the types' embedding
        if isinstance(module, nn.Embedding):
            return module
    raise ValueError(f"`model` must embed tokens: {type(model).__name__} has no nn.Embedding")


def context_length(model: Any) -> int:  # noqa: ANN401
    """Returns how many tokens the text tower reads."""
    config = model.config.text_config
    positions: int = config.max_position_embeddings
    if "roberta" in type(blocks(model, "text")[0]).__name__.lower():
        positions -= config.pad_token_id + 1  # RoBERTa's first position stands behind the padding's
    return positions


def check_pooling(model: Any, input_ids: Tensor, eos_token_id: int | None) -> None:  # noqa: ANN401
    """Raises ValueError where the model would silently pool at the wrong token."""
    kind = model.config.model_type
    if kind in POOLS_AT_LAST_POSITION and input_ids.shape[1] != context_length(model):
        raise ValueError(
            f"`input_ids` must be padded to {context_length(model)} tokens, for"
            f" {type(model).__name__} pools the last position; got {input_ids.shape[1]}. Tokenize"
            " with padding='max_length'"
        )
    if kind not in POOLS_AT_EOS:
        return
    eos = model.config.text_config.eos_token_id
    if kind == "clip" and eos == LEGACY_EOS:
        if eos_token_id is None:
            return
        eos = eos_token_id
        found = input_ids.amax(dim=1).eq(eos)
    else:
        found = input_ids.eq(eos).any(dim=1)
    if not found.all():
        row = int((~found).nonzero()[0])
        raise ValueError(
            f"`input_ids` row {row} has no end token ({eos}), where {type(model).__name__} pools"
            " the text; tokenize with add_special_tokens=True and do not truncate"
        )


BLOCKS_BEHIND = 3
"""Default number of blocks behind the explained layer; with fewer, one pooled token takes all the
attribution."""


def default_hidden_state(model: nn.Module, tower: Tower) -> int:
    """Returns the hidden state with three blocks behind it, or the first block's output."""
    return max(1, len(blocks(model, tower)) - BLOCKS_BEHIND)


def hidden_state(model: nn.Module, tower: Tower, index: int) -> tuple[nn.Module, bool]:
    """Returns the layer of a hidden state, counted as Hugging Face does: by the blocks already run.

    Args:
        model: the image-text model.
        tower: which of its encoders.
        index: 0 for the embeddings, up to the number of blocks.

    Returns:
        the layer, and whether its input is meant instead of its output
        (``attribute_to_layer_input``).

    Raises:
        ValueError: if the tower has not so many blocks.
    """
    encoder = blocks(model, tower)
    if not 0 <= index <= len(encoder):
        raise ValueError(
            f"`layer` must be 0 to {len(encoder)}, the blocks already run in the {tower} tower, got"
            f" {index}"
        )
    return encoder[max(index - 1, 0)], index == 0


def hidden_states(
    model: nn.Module, layers: tuple[int | None, int | None] = (None, None)
) -> tuple[int, int]:
    """Returns the hidden states to explain in the image and in the text tower; None is the default.

    Raises:
        ValueError: if a tower has not so many blocks.
    """
    image, text = layers
    image = default_hidden_state(model, "image") if image is None else image
    text = default_hidden_state(model, "text") if text is None else text
    hidden_state(model, "image", image)
    hidden_state(model, "text", text)
    return image, text
