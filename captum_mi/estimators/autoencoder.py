"""Compression by a small convolutional or dense network, trained on the samples."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from captum_mi._checks import check_positive, check_positive_number
from captum_mi._state_file import read_state, write_state
from captum_mi._training import minimize, split
from captum_mi.estimators.compression import Compressor, check_shape, finite_samples, not_fitted

if TYPE_CHECKING:
    from pathlib import Path

    from captum_mi.estimators._samples import Samples

SLOPE = 0.2  # negative slope of LeakyReLU
CHANNELS = (4, 8)  # of the first blocks; further ones have the last number
HIDDEN = 64
LEAST_SAMPLES = 20
VALIDATION = 0.1  # share of the samples
CHECKS = 24  # of the held-out error, in a whole training
WARM_UP = 0.1  # share of the steps
CHUNK = 1024


@dataclass(eq=False)
class Autoencoder(Compressor):
    r"""The code from which a small neural network redraws a sample.

    Images, (N, H, W) or (N, C, H, W), pass convolutions of 4 and then 8 channels, each with batch
    normalization, LeakyReLU and pooling, down to one pixel; vectors, (N, d), pass one hidden layer.
    A linear layer makes the code. Trained on a min-max scaled copy of the samples: mean absolute
    error, noise on the input, tanh and noise on the code, Adam with a rising and falling rate.
    ``transform`` gives the code before tanh, a bijection that only makes codes dense near its
    limits. A tenth of the samples is held out; training stops when their error no longer falls, and
    the best weights stay.

    Args:
        n: numbers in a code.
        steps: optimizer steps at most.
        batch_size: samples a step.
        learning_rate: the highest, after a tenth of the steps.
        input_noise: deviation of the noise on the scaled input, whose range is 0 to 1.
        code_noise: deviation of the noise on the code, whose range is -1 to 1.
        patience: checks of the held-out error, at most 24 in ``steps`` steps, without progress
            before training stops.
        seed: of weights, batches and noise; the global random state is left as it was.

    Attributes:
        history: (step, held-out mean absolute error on the scaled samples) of every check.

    Source: Butakov et al., "Information bottleneck analysis of deep neural networks via lossy
    compression", ICLR 2024, table 3.

    Example:
        >>> x = torch.rand(200, 8, 8)
        >>> Autoencoder(2, steps=5).fit(x).transform(x).shape
        torch.Size([200, 2])
    """

    n: int
    _: KW_ONLY
    steps: int = 1200
    batch_size: int = 256
    learning_rate: float = 1e-2
    input_noise: float = 0.1
    code_noise: float = 0.02
    patience: int = 10
    seed: int = 0
    history: list[tuple[int, float]] = field(init=False, repr=False, default_factory=list)
    _kept: float = field(init=False, repr=False, default=math.nan)
    _network: _Network | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        """Checks the arguments."""
        for name in ("n", "steps", "batch_size", "patience"):
            check_positive(name, getattr(self, name))
        check_positive_number("learning_rate", self.learning_rate)
        for name in ("input_noise", "code_noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}")

    @property
    def fitted(self) -> bool:
        """True once there is a trained network."""
        return self._network is not None

    @property
    def kept(self) -> float:
        """Share of the variance of samples held out that their redrawing explains, at least 0."""
        self._ready()
        return self._kept

    def fit(self, x: Samples) -> Autoencoder:
        """Trains a new network on samples, at least 20, on their device."""
        samples = finite_samples(x).double()
        if len(samples) < LEAST_SAMPLES:
            raise ValueError(
                f"`x` must hold at least {LEAST_SAMPLES} samples to train on, got {len(samples)}"
            )
        generator = torch.Generator(samples.device).manual_seed(self.seed)
        with torch.random.fork_rng(devices=[]):  # layers draw weights of their own when made
            network = _Network(samples.shape[1:], self.n)
        network = network.to(samples.device)
        network.initialize(samples, generator)
        rows, held_out = split(len(samples), VALIDATION, generator)
        self._train(network, samples[rows], samples[held_out], generator)
        self._network = network.requires_grad_(False).eval()
        self._kept = max(0.0, 1 - self._unexplained(samples[held_out]))
        return self

    def transform(self, x: Samples) -> Tensor:
        """Returns the (N, n) codes, before tanh."""
        network = self._ready()
        samples = finite_samples(x)
        check_shape(samples, network.shape)
        codes = [network.encode(batch.to(network.low)) for batch in torch.split(samples, CHUNK)]
        return torch.cat(codes).to(samples.device).double()

    def reconstruct(self, x: Samples) -> Tensor:
        """Redraws samples, (N, ...), from their codes: float64, on the device of ``x``."""
        network = self._ready()
        codes = self.transform(x)
        batches = torch.split(codes.to(network.low.device).float(), CHUNK)
        return torch.cat([network.decode(batch.tanh()) for batch in batches]).to(codes)

    def _unexplained(self, samples: Tensor) -> float:
        """Returns the squared error of redrawing, as a share of the variance of the samples."""
        errors = (self.reconstruct(samples) - samples).square().sum()
        return float(errors / (samples - samples.mean(0)).square().sum())

    def save(self, path: str | Path) -> None:
        """Writes settings and weights as safetensors."""
        network = self._ready()
        settings = {item.name: getattr(self, item.name) for item in fields(self) if item.init}
        write_state(
            path, network, {"shape": network.shape, "settings": settings, "kept": self._kept}
        )

    @classmethod
    def load(cls, path: str | Path) -> Autoencoder:
        """Reads what :meth:`save` wrote: fitted, on the CPU."""
        state, facts = read_state(path, ["shape", "settings", "kept"], "autoencoder")
        loaded = cls(**facts["settings"])
        with torch.random.fork_rng(devices=[]):
            network = _Network(torch.Size(facts["shape"]), loaded.n)
        network.load_state_dict(state)
        loaded._network = network.requires_grad_(False).eval()
        loaded._kept = facts["kept"]
        return loaded

    def _ready(self) -> _Network:
        if self._network is None:
            raise not_fitted(self)
        return self._network

    def _rise_and_fall(self, step: int) -> float:
        """Returns the share of the highest learning rate: a linear rise, half a cosine to zero."""
        warm_up = max(WARM_UP * self.steps, 1.0)
        return min((step + 1) / warm_up, (1 + math.cos(math.pi * step / self.steps)) / 2)

    def _train(
        self, network: _Network, samples: Tensor, held_out: Tensor, generator: torch.Generator
    ) -> None:
        def noisy(values: Tensor, deviation: float) -> Tensor:
            noise = torch.randn(values.shape, generator=generator, device=values.device)
            return values + deviation * noise

        def loss(step: int) -> Tensor:
            rows = torch.randint(len(samples), shape, generator=generator, device=samples.device)
            batch = network.scaled(samples[rows])
            code = noisy(network.encoder(noisy(batch, self.input_noise)).tanh(), self.code_noise)
            return (network.redraw(code) - batch).abs().mean()

        shape = (min(self.batch_size, len(samples)),)
        optimizer = torch.optim.Adam(network.parameters(), self.learning_rate)
        history = minimize(
            loss,
            network,
            optimizer,
            self.steps,
            schedule=torch.optim.lr_scheduler.LambdaLR(optimizer, self._rise_and_fall),
            validate=lambda: network.error(held_out),
            interval=math.ceil(self.steps / CHECKS),
            patience=self.patience,
            title="autoencoder",
        )
        self.history = [(check.step, check.error) for check in history]


class _Network(nn.Module):
    """Encoder, decoder and the scaling of samples to [0, 1]."""

    low: Tensor
    span: Tensor

    def __init__(self, shape: torch.Size, n: int) -> None:
        super().__init__()
        if len(shape) not in (1, 2, 3):
            raise ValueError(
                f"`x` must be (N, d), (N, H, W) or (N, C, H, W), got {len(shape) + 1} axes"
            )
        self.shape = shape
        self.is_image = len(shape) > 1
        build = _convolutional if self.is_image else _dense
        self.encoder, self.decoder = build(shape, n)
        size = (*shape[:-2], 1, 1) if self.is_image else shape
        per_channel = torch.zeros(size, dtype=torch.float64)  # far from zero float32 has no digits
        self.register_buffer("low", per_channel)
        self.register_buffer("span", torch.ones_like(per_channel))

    def initialize(self, samples: Tensor, generator: torch.Generator) -> None:
        """Draws weights from N(0, 1 / inputs) and takes the scaling from the samples."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                weight, bias = module.parameters()
                nn.init.normal_(weight, 0.0, weight[0].numel() ** -0.5, generator=generator)
                nn.init.zeros_(bias)
        axes = (0, -2, -1) if self.is_image else (0,)
        low, high = samples.amin(axes), samples.amax(axes)
        span = high - low
        self.low.copy_(low.reshape(self.low.shape))
        self.span.copy_(torch.where(span > 0, span, 1.0).reshape(self.low.shape))

    def scaled(self, samples: Tensor) -> Tensor:
        """Returns samples scaled to [0, 1], float32, images with a channel axis."""
        scaled = ((samples - self.low) / self.span).float()
        return scaled.unsqueeze(1) if len(self.shape) == 2 else scaled

    def redraw(self, code: Tensor) -> Tensor:
        """Draws scaled samples from codes after tanh."""
        drawn: Tensor = self.decoder(code)
        if not self.is_image:
            return drawn
        height, width = self.shape[-2:]
        return drawn[..., :height, :width].sigmoid()

    @torch.no_grad()
    def encode(self, samples: Tensor) -> Tensor:
        """Returns (N, n) codes, before tanh."""
        codes: Tensor = self.encoder(self.scaled(samples))
        return codes

    @torch.no_grad()
    def decode(self, code: Tensor) -> Tensor:
        """Draws samples from codes after tanh."""
        drawn = self.redraw(code)
        return (drawn.squeeze(1) if len(self.shape) == 2 else drawn) * self.span + self.low

    def error(self, samples: Tensor) -> float:
        """Returns the mean absolute error of the redrawn scaled samples, without noise."""
        errors = [
            (self.redraw(self.encode(batch).tanh()) - self.scaled(batch)).abs().mean() * len(batch)
            for batch in torch.split(samples, CHUNK)
        ]
        return float(sum(errors)) / len(samples)


def _dense(shape: torch.Size, n: int) -> tuple[nn.Module, nn.Module]:
    (features,) = shape

    def two_layers(before: int, after: int) -> nn.Module:
        layers = nn.Linear(before, HIDDEN), nn.LeakyReLU(SLOPE), nn.Linear(HIDDEN, after)
        return nn.Sequential(*layers)

    return two_layers(features, n), two_layers(n, features)


def _convolutional(shape: torch.Size, n: int) -> tuple[nn.Module, nn.Module]:
    """Builds layers that halve the image down to one pixel, and back; odd sides are rounded up."""
    colors = shape[0] if len(shape) == 3 else 1
    blocks = max(math.ceil(math.log2(max(shape[-2:]))), 1)
    channels = [CHANNELS[min(i, len(CHANNELS) - 1)] for i in range(blocks)]

    def block(before: int, after: int) -> list[nn.Module]:
        convolution = nn.Conv2d(before, after, 3, padding=1)
        return [convolution, nn.BatchNorm2d(after), nn.LeakyReLU(SLOPE)]

    encoder: list[nn.Module] = []
    for before, after in zip([colors, *channels], channels, strict=False):
        encoder += [*block(before, after), nn.MaxPool2d(2, ceil_mode=True)]
    last = channels[-1]
    decoder = [nn.Linear(n, last), nn.LeakyReLU(SLOPE), nn.Unflatten(1, (last, 1, 1))]
    for before, after in zip([last, *channels[::-1]], channels[::-1], strict=False):
        decoder += [nn.Upsample(scale_factor=2), *block(before, after)]
    decoder.append(nn.Conv2d(channels[0], colors, 3, padding=1))
    return (
        nn.Sequential(*encoder, nn.Flatten(), nn.Linear(last, n)),
        nn.Sequential(*decoder),
    )
