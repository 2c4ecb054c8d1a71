"""The towers of an image-text model: their blocks, hidden states and token embedding."""

from __future__ import annotations

from typing import Literal

from torch import nn

from captum_mi._checks import check_choice

Tower = Literal["image", "text"]
TOWERS: dict[Tower, tuple[str, ...]] = {
    "image": ("vision_model", "visual", "vision_tower", "image_model"),
    "text": ("text_model", "text_encoder", "language_model"),
}
Blocks = nn.ModuleList | nn.Sequential
BLOCKS_BEHIND = 3
"""Default number of blocks behind the explained layer; with fewer, one pooled token takes all the
attribution."""


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
            f"`hidden_state` must be 0 to {len(encoder)}, the blocks already run in the {tower}"
            f" tower, got {index}"
        )
    return encoder[max(index - 1, 0)], index == 0


def hidden_states(
    model: nn.Module,
    hidden_states: tuple[int | None, int | None] = (None, None),
    default: tuple[int, int] | None = None,
) -> tuple[int, int]:
    """Returns the hidden states to explain in both towers, the defaults where none is given.

    Args:
        model: the image-text model.
        hidden_states: in the image and in the text tower; None is the default.
        default: what is explained where none is given; None is :func:`default_hidden_state`.

    Raises:
        TypeError: if these are not two.
        ValueError: if a tower has not so many blocks.
    """
    if not isinstance(hidden_states, (tuple, list)) or len(hidden_states) != 2:
        raise TypeError(
            "`hidden_states` must be two, of the image and of the text tower, such as (3, None),"
            f" got {hidden_states!r}"
        )
    image, text = hidden_states
    if default is None:
        default = default_hidden_state(model, "image"), default_hidden_state(model, "text")
    image = default[0] if image is None else image
    text = default[1] if text is None else text
    hidden_state(model, "image", image)
    hidden_state(model, "text", text)
    return image, text


def token_embedding(model: nn.Module) -> nn.Module:
    """Returns the module that embeds the tokens of an image-text model's texts.

    Raises:
        ValueError: if the text tower has none.
    """
    _, tower = _tower(model, "text")
    for module in tower.modules():  # it stands in front of the positions' and the types' embedding
        if isinstance(module, nn.Embedding):
            return module
    raise ValueError(f"`model` must embed tokens: {type(model).__name__} has no nn.Embedding")


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
