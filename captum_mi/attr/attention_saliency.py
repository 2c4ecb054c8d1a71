"""Saliency of attention: the gradient of the score by a block's attention."""

from __future__ import annotations

from torch import Tensor

from captum_mi.attr._attention import Attention, AttentionMethod


class AttentionSaliency(AttentionMethod):
    r"""Saliency of attention: :math:`\mathrm{mean}_h \, |\nabla A|` of the pooled token. >= 0.

    Of several attentions in the layer the last one counts, which should be the tower's last: with
    others behind it no token is pooled yet, and the mean over all tokens is taken. It is what the
    NIB paper's table calls saliency map (SM); Simonyan's saliency of the input is Captum's
    ``Saliency``. One score for each token, (B, T, 1).

    Args:
        forward_func: the model, or any callable that runs it and returns (B,) or (B, C).
        layer: the block whose attention is read, or what holds it; or a list of these, each read on
            its own.

    Source: Zhu et al., "Narrowing Information Bottleneck Theory for Multimodal Image-Text
    Representations Interpretability", ICLR 2025, baseline "SM", after Simonyan et al., "Deep Inside
    Convolutional Networks", 2014.

    Example:
        >>> similarity = ImageTextSimilarity(clip, processor, ["a red circle"])
        >>> AttentionSaliency(similarity, blocks(clip)[-1]).attribute(pixels, target=0).shape
        torch.Size([1, 65, 1])
    """

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "Attention Saliency"

    def relevance(self, attention: Attention) -> Tensor:
        """Returns the heads' mean absolute gradient, (B, T, T)."""
        return attention.gradients[-1].abs().mean(1)
