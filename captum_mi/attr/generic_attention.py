"""Generic attention explainability: relevance rolled out over the attention of all blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from captum_mi.attr._attention import Attention, AttentionMethod


class GenericAttention(AttentionMethod):
    r"""Generic attention explainability: relevance rolled out over the attention of all blocks.

    .. math:: R \leftarrow R + \bar A_l R, \qquad
              \bar A_l = \mathrm{mean}_h \, \mathrm{ReLU}(\nabla A_l \odot A_l),

    from R = I through the layer's attentions, in their order; the result is the row of the pooled
    token, without the identity. >= 0. One score for each token, (B, T, 1). Give every block up to
    the last one: with others behind the layer no token is pooled yet, and the rows' mean is taken.

    Args:
        forward_func: the model, or any callable that runs it and returns (B,) or (B, C).
        layer: one module that holds the attentions: an encoder, its blocks (``models.blocks``), or
            one block. A Python list of blocks is refused: wrap it, ``nn.ModuleList(blocks)``.
        device_ids: accepted as by Captum's layer methods, and not needed.
        start_layer: the first attention that takes part; negative counts from the last. 0 is the
            paper's rollout, -1 the last one alone (the authors' CLIP notebook, the NIB paper's
            table).

    Raises:
        TypeError: if the layer is a list.

    Source: Chefer et al., "Generic Attention-model Explainability for Interpreting Bi-Modal and
    Encoder-Decoder Transformers", ICCV 2021, eq. 5 and 6.

    Example:
        >>> similarity = ImageTextSimilarity(clip, processor, ["a red circle"])
        >>> GenericAttention(similarity, blocks(clip)).attribute(pixels, target=0).shape
        torch.Size([1, 65, 1])
    """

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "Generic Attention Explainability"

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        layer: nn.Module,
        device_ids: list[int] | None = None,
        *,
        start_layer: int = 0,
    ) -> None:
        """Stores the model and the layer; nothing is hooked before ``attribute``."""
        if isinstance(layer, list):
            raise TypeError(
                "`layer` must be one module, whose attentions are rolled out together, got a list"
                f" of {len(layer)}; give nn.ModuleList(blocks), or explain each layer on its own"
            )
        super().__init__(forward_func, layer, device_ids)
        self.start_layer = start_layer

    def relevance(self, attention: Attention) -> Tensor:
        """Returns the rollout without the identity, (B, T, T)."""
        count = len(attention.probabilities)
        if not -count <= self.start_layer < count:
            raise ValueError(
                f"`start_layer` must be {-count} to {count - 1}, the layer has {count} attentions,"
                f" got {self.start_layer}"
            )
        parts = zip(
            attention.probabilities[self.start_layer :],
            attention.gradients[self.start_layer :],
            strict=True,
        )
        rolled = torch.zeros_like(attention.probabilities[0][:, 0])
        for probabilities, gradients in parts:
            mean = (probabilities * gradients).relu().mean(1)
            rolled = rolled + mean + mean @ rolled
        return rolled
