"""How much faster is a map when the model in front of the layer runs once?"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from statistics import median
from typing import NamedTuple

import torch
from captum.attr import LayerIntegratedGradients
from torch import Tensor, nn
from torch.nn.functional import normalize
from tqdm.auto import trange

from captum_mi._intervention.hooks import edit_output
from captum_mi.attr import MultimodalIB, NarrowingIB
from captum_mi.models import blocks
from captum_mi.models.clip import image_features, text_features

N_STEPS = 10
N_SAMPLES = 10
BETA = 0.1
HIDDEN_STATE = 9  # three blocks of twelve remain
M2IB_BLOCK = 9  # the published setting: behind this block, counted from 0, two remain


class Speed(NamedTuple):
    """Median seconds of two ways to the same map, in turns, and the maps' relative gap."""

    reference: float
    ours: float
    difference: float

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return self.reference / self.ours


class RandomCLIP(nn.Module):
    """A CLIP of ViT-B/32 size with random weights, and an image and a text for it."""

    def __init__(self, tokens: int = 12) -> None:
        """Builds the model from the default configuration of Hugging Face's CLIP."""
        from transformers import CLIPConfig, CLIPModel

        super().__init__()
        self.model = CLIPModel(CLIPConfig()).eval()
        self.pixels = torch.randn(1, 3, 224, 224)
        self.ids = torch.randint(1000, 40000, (1, tokens))
        self.ids[:, 0], self.ids[:, -1] = 49406, 49407

    def image(self, pixels: Tensor) -> Tensor:
        """Returns the unit image embeddings, (B, D)."""
        return normalize(image_features(self.model, pixels), dim=-1)

    def text(self, ids: Tensor) -> Tensor:
        """Returns the unit text embeddings, (B, D)."""
        return normalize(text_features(self.model, {"input_ids": ids}), dim=-1)


def alternate(
    reference: Callable[[], Tensor], ours: Callable[[], Tensor], runs: int, description: str
) -> Speed:
    """Times two functions in turns, after one warm-up of each."""
    expected, actual = reference(), ours()
    seconds: dict[Callable[[], Tensor], list[float]] = {reference: [], ours: []}
    for _ in trange(runs, desc=description, leave=False):
        for function, measured in seconds.items():
            begin = time.perf_counter()
            function()
            measured.append(time.perf_counter() - begin)
    difference = (expected - actual).abs().amax() / expected.abs().amax()
    return Speed(median(seconds[reference]), median(seconds[ours]), float(difference))


def zero_latent_layer_integrated_gradients(
    model: Callable[..., Tensor],
    layer: nn.Module,
    inputs: Tensor,
    target: int | None,
    n_steps: int,
) -> Tensor:
    """Explains with Captum's LayerIntegratedGradients, its baseline latent replaced by zeros."""
    runs = count()

    def zeros_second(latent: Tensor) -> Tensor | None:
        """Replaces what Captum reads in its second run of the model, that of the baseline."""
        return torch.zeros_like(latent) if next(runs) == 1 else None

    with edit_output(layer, zeros_second):
        attribution: Tensor = LayerIntegratedGradients(model, layer).attribute(
            inputs, target=target, n_steps=n_steps, method="riemann_right"
        )
    return attribution


def narrowing_ib(*, runs: int = 7) -> Speed:
    """Times NarrowingIB against LayerIntegratedGradients, both from a zero latent."""
    torch.manual_seed(0)
    clip = RandomCLIP()
    with torch.no_grad():
        text = clip.text(clip.ids)[0]
    layer = blocks(clip.model, "image")[HIDDEN_STATE - 1]

    def score(pixels: Tensor) -> Tensor:
        return clip.image(pixels) @ text

    def reference() -> Tensor:
        return zero_latent_layer_integrated_gradients(score, layer, clip.pixels, None, N_STEPS)

    def ours() -> Tensor:
        result: Tensor = NarrowingIB(score, layer).attribute(clip.pixels, n_steps=N_STEPS)
        return result

    return alternate(reference, ours, runs, "NarrowingIB")


def published_m2ib(clip: RandomCLIP, layer: nn.Module) -> Tensor:
    """Explains with the published M2IB: both encoders run on all copies at every step.

    Written from the paper: a bottleneck behind ``layer``, alpha from 5, Adam with rate 1, the loss
    beta * mean KL - mean cosine, ``backward`` through everything; the map is the KL of the last
    forward pass.
    """
    state: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)

    def bottleneck(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        if "alpha" not in state:
            state["alpha"] = torch.full_like(output[:1], 5.0).requires_grad_()
        shape = (N_SAMPLES, 1, *output.shape[1:])
        noise = torch.randn(shape, generator=generator)[:, 0]
        through = state["alpha"].sigmoid()
        variance = (1 - through) ** 2
        state["kl"] = -0.5 * (1 + variance.log() - (through * output) ** 2 - variance)
        return through * output + (1 - through) * noise

    pixels, ids = clip.pixels.expand(N_SAMPLES, -1, -1, -1), clip.ids.expand(N_SAMPLES, -1)
    handle = layer.register_forward_hook(bottleneck)
    try:
        optimizer = None
        for _ in range(N_STEPS):
            cosine = (clip.image(pixels) * clip.text(ids)).sum(-1)
            loss = BETA * state["kl"].mean() - cosine.mean()
            optimizer = optimizer or torch.optim.Adam([state["alpha"]], lr=1.0)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    finally:
        handle.remove()
        clip.zero_grad()
    return state["kl"].detach()[:1]


def multimodal_ib(*, runs: int = 3) -> Speed:
    """Times MultimodalIB against the published procedure: both modalities, block 9 of 12."""
    torch.manual_seed(0)
    clip = RandomCLIP()
    layers = {tower: blocks(clip.model, tower)[M2IB_BLOCK] for tower in ("image", "text")}
    with torch.no_grad():
        image, text = clip.image(clip.pixels), clip.text(clip.ids)
    scores = {
        "image": (lambda pixels: clip.image(pixels) @ text[0], clip.pixels),
        "text": (lambda ids: clip.text(ids) @ image[0], clip.ids),
    }

    def reference() -> Tensor:
        return torch.cat([published_m2ib(clip, layer).flatten() for layer in layers.values()])

    def ours() -> Tensor:
        maps = [
            MultimodalIB(score, layers[tower]).attribute(
                given, beta=BETA, n_steps=N_STEPS, n_samples=N_SAMPLES
            )
            for tower, (score, given) in scores.items()
        ]
        return torch.cat([nats.flatten() for nats in maps])

    return alternate(reference, ours, runs, "MultimodalIB")
