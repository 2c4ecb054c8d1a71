"""An image-text model as a classifier: cosine similarity to fixed texts, or to fixed images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from captum_mi._checks import brief
from captum_mi._intervention.precision import at_least_single
from captum_mi.models.clip import check_dual_encoder, image_features, preprocess, text_features
from captum_mi.models.texts import check_pooling, tokenize

if TYPE_CHECKING:
    from captum_mi._protocols import Image, Processor, Tokenizer

EPS = 1e-6  # keeps the cosine's gradient finite at an embedding of zero


class ImageTextSimilarity(nn.Module):
    """Cosine similarities of images to K fixed texts; ``target`` is the index of a text.

    Args:
        model: a Hugging Face image-text model (CLIP, MetaCLIP 2, SigLIP, ChineseCLIP, AltCLIP,
            ...).
        processor: its processor, or its tokenizer.
        texts: the K texts; embedded once, here.

    Attributes:
        text_embeddings: (K, D) buffer of unit length, float32 for half-precision models.
        embedding: passes on the images' embeddings, (B, D) of unit length: a layer of every model.

    Raises:
        TypeError: if ``texts`` is one text.
        ValueError: if there is no text, one is empty or too long, or the model embeds no images and
            texts.

    Example:
        >>> clip, processor = load_clip()
        >>> similarity = ImageTextSimilarity(clip, processor, ["a red circle", "a blue square"])
        >>> similarity(torch.zeros(5, 3, 64, 64)).shape
        torch.Size([5, 2])
    """

    text_embeddings: Tensor

    def __init__(
        self, model: nn.Module, processor: Processor | Tokenizer, texts: Sequence[str]
    ) -> None:
        """Embeds the texts."""
        super().__init__()
        check_dual_encoder(model)
        encoded = tokenize(model, processor, texts)
        self.model = model
        self.texts = list(texts)
        self.embedding = nn.Identity()
        self.training = model.training
        on_device = {name: value.to(_device(model)) for name, value in encoded.items()}
        with torch.no_grad():
            embeddings = unit(text_features(model, on_device))
        self.register_buffer("text_embeddings", embeddings)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Returns the cosines.

        Args:
            pixel_values: (B, 3, H, W), preprocessed; sizes other than the model's own get
                interpolated positions.

        Returns:
            (B, K) in [-1, 1], float32 for half-precision models.

        Raises:
            TypeError: if it is not the processor's ``pixel_values``.
            ValueError: if its shape is not such.
        """
        features: Tensor = self.embedding(unit(image_features(self.model, pixel_values)))
        return features @ self.text_embeddings.to(features).T

    def log_likelihood(self, cosines: Tensor, target: Tensor) -> Tensor:
        """Returns how sure the model is of one of the K texts for each image.

        Args:
            cosines: (B, K), as :meth:`forward` returns them.
            target: (B,), index of each image's text.

        Returns:
            the log-softmax of the cosines at the model's own temperature, (B,), nats, at most 0.

        Raises:
            ValueError: if the model has no temperature, or ``target`` is not such.
        """
        return _log_likelihood(self.model, cosines, target)


class TextImageSimilarity(nn.Module):
    """Cosine similarities of texts to K fixed images; ``target`` is the index of an image.

    Args:
        model: a Hugging Face image-text model.
        processor: its processor.
        images: the K images, in any form that the processor takes; embedded once, here.

    Attributes:
        image_embeddings: (K, D) buffer of unit length, float32 for half-precision models.

    Raises:
        TypeError: if ``images`` is no list of images.
        ValueError: if there is no image, or the model embeds no images and texts.

    Example:
        >>> similarity = TextImageSimilarity(clip, processor, [scene.image])
        >>> similarity(**tokenize(clip, processor, ["a red circle"])).shape
        torch.Size([1, 1])
    """

    image_embeddings: Tensor

    def __init__(
        self, model: nn.Module, processor: Processor, images: Sequence[Image] | Tensor
    ) -> None:
        """Embeds the images."""
        super().__init__()
        check_dual_encoder(model)
        if not isinstance(images, (Sequence, Tensor)):
            raise TypeError(
                f"`images` must be a list of images, got a {type(images).__name__}; give [image]"
            )
        if len(images) == 0:
            raise ValueError("`images` must hold at least one image, got none")
        self.model = model
        self.training = model.training
        self._eos_token_id = processor.tokenizer.eos_token_id
        pixels = preprocess(model, processor, images)
        with torch.no_grad():
            embeddings = unit(image_features(model, pixels))
        self.register_buffer("image_embeddings", embeddings)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Returns the cosines.

        Args:
            input_ids: (B, T) token ids, with the special tokens.
            attention_mask: (B, T), 0 on padding.

        Returns:
            (B, K) in [-1, 1], float32 for half-precision models.

        Raises:
            TypeError: if the ids are not a tensor of integers.
            ValueError: if a row has no end token, or is not padded as the model needs it.
        """
        if not isinstance(input_ids, Tensor):
            advice = "give its parts, as in similarity(**encoded)"
            if not isinstance(input_ids, Mapping):
                advice = "make them with tokenize(model, processor, texts)"
            raise TypeError(
                f"`input_ids` must be a tensor (B, T), got a {type(input_ids).__name__}; {advice}"
            )
        if input_ids.is_floating_point():
            raise TypeError(
                f"`input_ids` must be integer token ids, got {input_ids.dtype}; ids cannot be"
                " perturbed or interpolated, explain a layer behind the embedding instead"
            )
        check_pooling(self.model, input_ids, self._eos_token_id)
        return self.unchecked(input_ids, attention_mask)

    def unchecked(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Returns the cosines, (B, K), wherever the model pools the ids."""
        features = text_features(
            self.model, {"input_ids": input_ids, "attention_mask": attention_mask}
        )
        features = unit(features)
        return features @ self.image_embeddings.to(features).T

    def log_likelihood(self, cosines: Tensor, target: Tensor) -> Tensor:
        """Returns how sure the model is of one of the K images for each text, (B,).

        As :meth:`ImageTextSimilarity.log_likelihood`.
        """
        return _log_likelihood(self.model, cosines, target)


def unit(features: Tensor) -> Tensor:
    """Returns the features at unit length, float32 for half precision."""
    return normalize(at_least_single(features), dim=-1, eps=EPS)


def _log_likelihood(model: nn.Module, cosines: Tensor, target: Tensor) -> Tensor:
    if target.shape != cosines.shape[:1] or target.is_floating_point():
        raise ValueError(
            f"`target` must hold one index for each of {len(cosines)} rows, got {brief(target)}"
        )
    if not 0 <= int(target.min()) <= int(target.max()) < cosines.shape[1]:
        raise ValueError(
            f"`target` must be 0 to {cosines.shape[1] - 1}, got {int(target.min())} to"
            f" {int(target.max())}"
        )
    return -cross_entropy(cosines * _scale(model).to(cosines), target.long(), reduction="none")


def _scale(model: nn.Module) -> Tensor:
    """Returns what a model multiplies cosines by before their softmax: one by its temperature."""
    log_scale = getattr(model, "logit_scale", None)
    if isinstance(log_scale, Tensor):
        return log_scale.exp()
    temperature = getattr(model, "temperature", None)  # ALIGN
    if isinstance(temperature, Tensor):
        return 1 / temperature
    raise ValueError(
        f"`model` must have learned a logit_scale or a temperature, by which cosines become"
        f" likelihoods: {type(model).__name__} has none; give a `log_likelihood` of your own"
    )


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
