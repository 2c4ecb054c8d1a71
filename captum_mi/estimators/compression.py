"""Compressing samples to a few numbers before their mutual information is estimated."""

from __future__ import annotations

import copy
import json
import math
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from tqdm.auto import trange

from captum_mi._checks import check_positive, check_positive_number
from captum_mi.estimators._samples import from_array
from captum_mi.estimators.base import Estimate, MutualInformationEstimator

if TYPE_CHECKING:
    from pathlib import Path

    from captum_mi.estimators._samples import Samples

SLOPE = 0.2  # of LeakyReLU below zero
CHANNELS = (4, 8)  # of the first blocks; further ones have the last number
HIDDEN = 64
LEAST_SAMPLES = 20
VALIDATION = 0.1  # share of the samples
CHECKS = 24  # of the held-out error, in a whole training
WARM_UP = 0.1  # share of the steps
CHUNK = 1024


class Compressor(ABC):
    """Maps samples to codes of ``n`` numbers. ``fit`` works in place, as in scikit-learn.

    Attributes:
        n: numbers in a code.
    """

    n: int

    @property
    @abstractmethod
    def fitted(self) -> bool:
        """Whether it can transform."""

    @abstractmethod
    def fit(self, x: Samples) -> Compressor:
        """Learns from samples, (N, ...), and returns itself."""

    @abstractmethod
    def transform(self, x: Samples) -> Tensor:
        """Codes of samples.

        Args:
            x: (N, ...), samples of the shape it was fitted on.

        Returns:
            (N, n), float64, on the device of ``x``.

        Raises:
            RuntimeError: if it is not fitted.
            ValueError: if the samples have another shape, or hold NaN or infinity.
        """


@dataclass(eq=False)
class PCA(Compressor):
    """Principal components: the linear code with the least squared error.

    Samples of any shape are flattened. The sign of a component is such that its largest entry is
    positive.

    Args:
        n: number of components.

    Attributes:
        mean: (d,).
        components: (n, d), orthonormal rows, of falling variance.
        variances: (min(N, d),) variances of all components, kept or not, with N - 1.

    Example:
        >>> x = torch.randn(100, 8, 8)
        >>> pca = PCA(2).fit(x)
        >>> pca.transform(x).shape
        torch.Size([100, 2])
    """

    n: int
    mean: Tensor = field(init=False, repr=False)
    components: Tensor = field(init=False, repr=False)
    variances: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Checks the argument."""
        check_positive("n", self.n)

    @property
    def fitted(self) -> bool:
        """Whether there are components."""
        return hasattr(self, "components")

    def fit(self, x: Samples) -> PCA:
        """Finds the components of samples, (N, ...); at least ``n`` of them and ``n`` features."""
        samples = _finite(x).double().flatten(1)
        if min(samples.shape) < self.n or len(samples) < 2:
            raise ValueError(
                f"PCA({self.n}) needs at least {max(self.n, 2)} samples and {self.n} features of"
                f" `x`, got {tuple(samples.shape)}; lower `n`"
            )
        mean = samples.mean(0)
        _, scales, axes = torch.linalg.svd(samples - mean, full_matrices=False)
        rounding = torch.finfo(torch.float32 if _is_single(x) else torch.float64).eps
        # The largest singular value of entries that are noise, with a margin.
        least = rounding * float(samples.abs().max()) * sum(math.sqrt(n) for n in samples.shape)
        least += torch.finfo(torch.float64).eps * max(samples.shape) * float(scales[0])
        rank = int((scales > least).sum())
        if rank < self.n:
            raise ValueError(
                f"`n` must be at most {rank}, the rank of `x`, got {self.n}; further"
                " components would be rounding noise"
            )
        kept = axes[: self.n]
        largest = kept.gather(1, kept.abs().argmax(1, keepdim=True))
        self.mean, self.variances = mean, scales.square() / (len(samples) - 1)
        self.components = kept * largest.sign()
        return self

    def transform(self, x: Samples) -> Tensor:
        """(N, n) coordinates along the components."""
        if not self.fitted:
            raise _not_fitted(self)
        samples = _finite(x).double().flatten(1)
        _check_shape(samples, self.mean.shape)
        return (samples - self.mean.to(samples)) @ self.components.to(samples).T


@dataclass(eq=False)
class Autoencoder(Compressor):
    r"""A neural code: what a small network needs to redraw a sample.

    Images, (N, H, W) or (N, C, H, W), pass convolutions of 4 and then 8 channels, each with batch
    normalisation, LeakyReLU and pooling, down to one pixel; vectors, (N, d), pass one hidden layer.
    A linear layer makes the code. Trained on a min-max scaled copy of the samples: mean absolute
    error, noise on the input, tanh and noise on the code, Adam with a rising and falling rate.
    The code that ``transform`` gives is the one before tanh, a bijection that only crowds the
    borders. A tenth of the samples is held out; training stops when their error no longer falls,
    and the best weights stay.

    Args:
        n: numbers in a code.
        steps: optimiser steps at most.
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
        """Whether there is a trained network."""
        return self._network is not None

    def fit(self, x: Samples) -> Autoencoder:
        """Trains a new network on samples, at least 20, on their device."""
        samples = _finite(x).double()
        if len(samples) < LEAST_SAMPLES:
            raise ValueError(
                f"`x` must hold at least {LEAST_SAMPLES} samples to train on, got {len(samples)}"
            )
        generator = torch.Generator(samples.device).manual_seed(self.seed)
        with torch.random.fork_rng(devices=[]):  # layers draw weights of their own when made
            network = _Network(samples.shape[1:], self.n)
        network = network.to(samples.device)
        network.initialise(samples, generator)
        order = torch.randperm(len(samples), generator=generator, device=samples.device)
        held_out = math.ceil(VALIDATION * len(samples))
        with torch.enable_grad():
            self._train(network, samples[order[held_out:]], samples[order[:held_out]], generator)
        self._network = network.requires_grad_(False).eval()
        return self

    def transform(self, x: Samples) -> Tensor:
        """(N, n) codes, before tanh."""
        network = self._ready()
        samples = _finite(x)
        _check_shape(samples, network.shape)
        codes = [network.encode(batch.to(network.low)) for batch in torch.split(samples, CHUNK)]
        return torch.cat(codes).to(samples.device).double()

    def reconstruct(self, x: Samples) -> Tensor:
        """Samples redrawn from their codes, (N, ...), float64, on the device of ``x``."""
        network = self._ready()
        codes = self.transform(x)
        batches = torch.split(codes.to(network.low.device).float(), CHUNK)
        return torch.cat([network.decode(batch.tanh()) for batch in batches]).to(codes)

    def save(self, path: str | Path) -> None:
        """Writes settings and weights as safetensors."""
        from safetensors.torch import save_file

        network = self._ready()
        state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
        settings = {item.name: getattr(self, item.name) for item in fields(self) if item.init}
        metadata = {"shape": json.dumps(network.shape), "settings": json.dumps(settings)}
        save_file(state, path, metadata=metadata)

    @classmethod
    def load(cls, path: str | Path) -> Autoencoder:
        """Reads what :meth:`save` wrote: fitted, on the CPU."""
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no iterator
        loaded = cls(**json.loads(metadata["settings"]))
        with torch.random.fork_rng(devices=[]):
            network = _Network(torch.Size(json.loads(metadata["shape"])), loaded.n)
        network.load_state_dict(state)
        loaded._network = network.requires_grad_(False).eval()
        return loaded

    def _ready(self) -> _Network:
        if self._network is None:
            raise _not_fitted(self)
        return self._network

    def _rise_and_fall(self, step: int) -> float:
        """Share of the highest learning rate: a linear rise, and half a cosine to zero."""
        warm_up = max(WARM_UP * self.steps, 1.0)
        return min((step + 1) / warm_up, (1 + math.cos(math.pi * step / self.steps)) / 2)

    def _train(
        self, network: _Network, samples: Tensor, held_out: Tensor, generator: torch.Generator
    ) -> None:
        def noisy(values: Tensor, deviation: float) -> Tensor:
            noise = torch.randn(values.shape, generator=generator, device=values.device)
            return values + deviation * noise

        optimizer = torch.optim.Adam(network.parameters(), self.learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rise_and_fall)
        self.history = []
        best, weights = math.inf, network.state_dict()
        best_step = 0
        interval = math.ceil(self.steps / CHECKS)
        shape = (min(self.batch_size, len(samples)),)
        progress = trange(1, self.steps + 1, desc="autoencoder", leave=False, delay=2)
        for step in progress:
            rows = torch.randint(len(samples), shape, generator=generator, device=samples.device)
            batch = network.scaled(samples[rows])
            code = noisy(network.encoder(noisy(batch, self.input_noise)).tanh(), self.code_noise)
            loss = (network.redraw(code) - batch).abs().mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            if step % interval and step != self.steps:
                continue
            error = network.error(held_out)
            self.history.append((step, error))
            progress.set_postfix(error=f"{error:.4f}", refresh=False)
            if error < best:
                best, best_step, weights = error, step, copy.deepcopy(network.state_dict())
            elif step - best_step >= self.patience * interval:
                break
        if not math.isfinite(best):
            raise ValueError(
                f"training diverged at `learning_rate` {self.learning_rate}; choose a smaller one"
            )
        network.load_state_dict(weights)


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

    def initialise(self, samples: Tensor, generator: torch.Generator) -> None:
        """Draws weights from N(0, 1 / inputs) and takes the scaling from the samples."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                deviation = module.weight[0].numel() ** -0.5
                nn.init.normal_(module.weight, 0.0, deviation, generator=generator)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        axes = (0, -2, -1) if self.is_image else (0,)
        low, high = samples.amin(axes), samples.amax(axes)
        span = high - low
        self.low.copy_(low.reshape(self.low.shape))
        self.span.copy_(torch.where(span > 0, span, 1.0).reshape(self.low.shape))

    def scaled(self, samples: Tensor) -> Tensor:
        """Samples in [0, 1], float32, images with a channel axis."""
        scaled = ((samples - self.low) / self.span).float()
        return scaled.unsqueeze(1) if len(self.shape) == 2 else scaled

    def redraw(self, code: Tensor) -> Tensor:
        """Scaled samples from codes after tanh."""
        drawn: Tensor = self.decoder(code)
        if not self.is_image:
            return drawn
        height, width = self.shape[-2:]
        return drawn[..., :height, :width].sigmoid()

    @torch.no_grad()
    def encode(self, samples: Tensor) -> Tensor:
        """(N, n) codes before tanh."""
        codes: Tensor = self.encoder(self.scaled(samples))
        return codes

    @torch.no_grad()
    def decode(self, code: Tensor) -> Tensor:
        """Samples from codes after tanh."""
        drawn = self.redraw(code)
        return (drawn.squeeze(1) if len(self.shape) == 2 else drawn) * self.span + self.low

    @torch.no_grad()
    def error(self, samples: Tensor) -> float:
        """Mean absolute error of the redrawn scaled samples, in evaluation mode, without noise."""
        self.eval()
        errors = [
            (self.redraw(self.encode(batch).tanh()) - self.scaled(batch)).abs().mean() * len(batch)
            for batch in torch.split(samples, CHUNK)
        ]
        self.train()
        return float(sum(errors)) / len(samples)


def _dense(shape: torch.Size, n: int) -> tuple[nn.Module, nn.Module]:
    (features,) = shape

    def two_layers(before: int, after: int) -> nn.Module:
        layers = nn.Linear(before, HIDDEN), nn.LeakyReLU(SLOPE), nn.Linear(HIDDEN, after)
        return nn.Sequential(*layers)

    return two_layers(features, n), two_layers(n, features)


def _convolutional(shape: torch.Size, n: int) -> tuple[nn.Module, nn.Module]:
    """Halves the image until one pixel is left, and back; odd sides are rounded up."""
    colours = shape[0] if len(shape) == 3 else 1
    blocks = max(math.ceil(math.log2(max(shape[-2:]))), 1)
    channels = [CHANNELS[min(i, len(CHANNELS) - 1)] for i in range(blocks)]

    def block(before: int, after: int) -> list[nn.Module]:
        convolution = nn.Conv2d(before, after, 3, padding=1)
        return [convolution, nn.BatchNorm2d(after), nn.LeakyReLU(SLOPE)]

    encoder: list[nn.Module] = []
    for before, after in zip([colours, *channels], channels, strict=False):
        encoder += [*block(before, after), nn.MaxPool2d(2, ceil_mode=True)]
    last = channels[-1]
    decoder = [nn.Linear(n, last), nn.LeakyReLU(SLOPE), nn.Unflatten(1, (last, 1, 1))]
    for before, after in zip([last, *channels[::-1]], channels[::-1], strict=False):
        decoder += [nn.Upsample(scale_factor=2), *block(before, after)]
    decoder.append(nn.Conv2d(channels[0], colours, 3, padding=1))
    return (
        nn.Sequential(*encoder, nn.Flatten(), nn.Linear(last, n)),
        nn.Sequential(*decoder),
    )


class Compressed(MutualInformationEstimator):
    r"""Another estimator's estimate between codes of X and of Y.

    It estimates :math:`I(E_x(X); E_y(Y))`, never more than I(X; Y), and equal to it if the codes
    lose nothing that matters. A compressor that is fitted already is used as it is. One that is not
    is fitted on the samples of each estimate, on a copy: the compressor given stays unfitted.

    Args:
        estimator: estimates between the codes.
        x: compressor of X; None leaves X as it is.
        y: compressor of Y; None leaves Y as it is. It may be the same fitted object as ``x``.

    Source: Butakov et al., ICLR 2024, algorithm 1.

    Example:
        >>> from captum_mi.datasets import GaussianBumps
        >>> from captum_mi.estimators import KSG
        >>> x, y = GaussianBumps(2.0).sample(1000)
        >>> estimate = Compressed(KSG(), x=PCA(2), y=PCA(2)).estimate(x, y)
        >>> 1 < estimate.value < 2.5
        True
    """

    def __init__(
        self,
        estimator: MutualInformationEstimator,
        *,
        x: Compressor | None = None,
        y: Compressor | None = None,
    ) -> None:
        """Stores the arguments."""
        self.estimator = estimator
        self.x = x
        self.y = y

    def estimate(self, x: Samples, y: Samples) -> Estimate:
        """Mutual information of the codes of two continuous variables.

        Args:
            x: (N, ...), what the compressor of X takes.
            y: (N, ...), row i drawn together with row i of ``x``.
        """
        return self.estimator.estimate(_codes("x", self.x, x), _codes("y", self.y, y))

    def estimate_discrete(self, x: Samples, labels: Samples) -> Estimate:
        """Mutual information of the codes of a continuous variable and a discrete one.

        Args:
            x: (N, ...), what the compressor of X takes.
            labels: (N,), integers or strings.
        """
        return self.estimator.estimate_discrete(_codes("x", self.x, x), labels)


def _codes(name: str, compressor: Compressor | None, samples: Samples) -> Samples:
    if compressor is None:
        return samples
    try:
        if not compressor.fitted:
            compressor = copy.deepcopy(compressor).fit(samples)
        return compressor.transform(samples)
    except ValueError as error:  # what a compressor calls `x` may be Y here
        raise ValueError(str(error).replace("`x`", f"`{name}`")) from error


def _not_fitted(compressor: Compressor) -> RuntimeError:
    return RuntimeError(f"{compressor!r} is not fitted; call fit(x) first")


def _finite(x: Samples) -> Tensor:
    samples = x.detach() if isinstance(x, Tensor) else from_array("x", x)
    if samples.is_complex():
        raise ValueError(f"`x` must be real, got {samples.dtype}; give real and imaginary part")
    if samples.ndim < 2:
        raise ValueError(f"`x` must be (N, d) or (N, ...), got shape {tuple(samples.shape)}")
    if not samples.isfinite().all():
        raise ValueError("`x` must be finite, it holds NaN or infinity; drop such samples")
    return samples


def _is_single(x: Samples) -> bool:
    return str(getattr(x, "dtype", "")).removeprefix("torch.") in ("float16", "bfloat16", "float32")


def _check_shape(samples: Tensor, shape: torch.Size) -> None:
    if samples.shape[1:] != shape:
        raise ValueError(
            f"`x` must be (N, {', '.join(map(str, shape))}) as in `fit`, got shape"
            f" {tuple(samples.shape)}"
        )
