"""RISE: how the score changes with what random masks leave visible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum.attr import PerturbationAttribution
from captum.log import log_usage
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_mi._checks import check_positive
from captum_mi._intervention.arguments import as_tuple
from captum_mi._intervention.precision import at_least_single
from captum_mi._intervention.split import advise_on_scores
from captum_mi._intervention.suffix import LayerSuffix
from captum_mi.attr._base import Attributions, LayerMethod
from captum_mi.attr._captum import (
    TargetType,
    expand_target,
    format_output,
    unlogged_attribute,
)
from captum_mi.attr._masks import Masks
from captum_mi.attr._scores import target_scores
from captum_mi.attr.channels import channel_axis

APART = 1_000_003
"""By how much the seeds of the tensors that are masked together differ."""


class LayerRISE(LayerMethod, PerturbationAttribution):
    r"""Randomized sampling of a layer: the mean score of the masks that show a place. Forward only.

    :class:`RISE` on a layer's output instead of the input. A text is explained at the output of its
    token embedding, with ``keep`` for the special tokens. Channels share a mask and are reduced to
    one. The tensors of a layer with several are masked at the same time, each by masks of its own.

    Source: see :class:`RISE`.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> LayerRISE(model, model[0]).attribute(torch.randn(2, 3, 8, 8), 1, n_masks=100).shape
        torch.Size([2, 1, 6, 6])
    """

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "Layer RISE"

    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object = None,
        *,
        n_masks: int = 4000,
        cells: int = 7,
        probability: float = 0.5,
        keep: Tensor | tuple[Tensor | None, ...] | None = None,
        center: bool = True,
        channels_last: bool | None = None,
        attribute_to_layer_input: bool = False,
        internal_batch_size: int = 64,
        seed: int = 0,
        show_progress: bool = False,
    ) -> Attributions:
        """Scores what random masks leave of the layer.

        Args:
            inputs: (B, ...), or a tuple of such tensors.
            target: the output to explain, in any form that Captum takes.
            additional_forward_args: further arguments of ``forward_func``.
            n_masks: see :meth:`RISE.attribute`.
            cells: the same.
            probability: the same.
            keep: the same; a tuple for a layer with several tensors.
            center: the same.
            channels_last: whether the layer is (B, ..., C). None finds it out, see
                :class:`TokenGradCam`.
            attribute_to_layer_input: mask the layer's input instead of its output.
            internal_batch_size: rows that run through the model behind the layer at once; fewer
                than B count as B. Changes memory, not numbers.
            seed: seed of the masks.
            show_progress: show how many masks are done.

        Returns:
            (B, 1, h, w) for maps, wherever they hold their channels, (B, 1, L) and (B, 1, d, h, w)
            for those of one and three dimensions, (B, T, 1) for tokens, (B, D) for features, in the
            units of the model's output; a tuple for a layer with several tensors, a list for a list
            of layers.

        Raises:
            ValueError: if an argument is out of range, ``keep`` does not fit, it cannot be told
                where the channels are, the layer does not fire exactly once, or a NaN turns up.
            AssertionError, IndexError, RuntimeError: if ``target`` does not fit the output, as
                Captum raises.
        """
        check_positive("n_masks", n_masks)
        check_positive("cells", cells)
        check_positive("internal_batch_size", internal_batch_size)
        if not 0 < probability < 1:
            raise ValueError(f"`probability` must be between 0 and 1, got {probability}")
        layers = iter(self.layers)
        given = as_tuple(inputs)

        def explain(suffix: LayerSuffix) -> tuple[Tensor, ...]:
            layer, latent = next(layers), suffix.latent
            keeps = _keeps(keep, len(latent))
            masks = [
                Masks(
                    at_least_single(part),
                    channel_axis(part, layer, self.forward_func, given, channels_last),
                    cells=cells,
                    probability=probability,
                    keep=kept,
                    seed=seed + APART * i,
                )
                for i, (part, kept) in enumerate(zip(latent, keeps, strict=True))
            ]

            def score(masked: list[Tensor], copies: int) -> Tensor:
                scores = target_scores(suffix(*masked), expand_target(target, copies))
                if not scores.isfinite().all():
                    raise ValueError(
                        f"`forward_func` gave NaN or infinity where layer {suffix.name} was masked;"
                        " `keep` spares what it cannot do without"
                    )
                return scores

            return _mean_scores(
                masks,
                score,
                n_masks=n_masks,
                at_once=max(1, internal_batch_size // len(latent[0])),
                expected=None if center else n_masks * probability,
                show_progress=show_progress,
            )

        return self.attribute_layers(
            explain, inputs, target, additional_forward_args, at_input=attribute_to_layer_input
        )


class RISE(PerturbationAttribution):
    r"""Randomized input sampling: the mean score of the masks that show a place. Forward only.

    .. math:: S_j = \frac{\sum_i F(m_i \odot x) \, m_{ij}}{\sum_i m_{ij}}
                    - \frac1N \sum_i F(m_i \odot x)

    with N random masks m. Dividing by each place's own coverage and subtracting the mean score
    leave no noise of the masks themselves on a score with an offset, such as a cosine. Signed; a
    place whose mask never varies gets zero. Channels share a mask and are reduced to one.

    What is masked is zero (the mean color of a normalized image). Maps, (B, C, h, w) and those of
    one or three dimensions, get smooth masks: grids of random cells, enlarged and shifted; tokens
    (B, T, D) and features (B, D) get independent ones. Several inputs are masked at the same time,
    each by masks of its own. :class:`LayerRISE` masks a layer.

    Args:
        forward_func: the model, or any callable that runs it and returns (B,) or (B, C).

    Source: Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models",
    BMVC 2018, eq. 6 (``center=False``). Its presets are 4,000 masks of 7 cells (8,000 for ResNet),
    probability 0.5; the NIB paper's table has 6,000 of 8 cells, probability 0.1.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
        >>> RISE(model).attribute(torch.randn(2, 3, 8, 8), target=1, n_masks=100).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(self, forward_func: Callable[..., Tensor]) -> None:
        """Stores the model."""
        PerturbationAttribution.__init__(self, forward_func)

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "RISE"

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: object = None,
        *,
        n_masks: int = 4000,
        cells: int = 7,
        probability: float = 0.5,
        keep: Tensor | tuple[Tensor | None, ...] | None = None,
        center: bool = True,
        channels_last: bool | None = None,
        internal_batch_size: int = 64,
        seed: int = 0,
        show_progress: bool = False,
    ) -> Attributions:
        """Scores what random masks leave of the inputs.

        Args:
            inputs: (B, ...) floating-point, or a tuple of such tensors.
            target: the output to explain, in any form that Captum takes.
            additional_forward_args: further arguments of ``forward_func``, not masked. A tensor
                with B rows is repeated with the batch; anything else is passed on as it is.
            n_masks: masks; every row meets the same ones. The error falls as 1 / sqrt(n_masks).
            cells: cells of a mask's grid along each side of a map.
            probability: that a cell, or a token, shows.
            keep: bool, places that are never masked: (B, T) or (T,) for tokens, (B, D) or (D,) for
                features, (B, h, w) or (h, w) for maps; a tuple for several inputs.
            center: subtract the mean score and divide by each place's own coverage; False divides
                by ``n_masks * probability`` alone, as published.
            channels_last: whether the inputs are (B, ..., C). None takes four axes for maps
                (B, C, h, w) and three for tokens (B, T, D), but asks where the model has modules of
                one-dimensional signals (B, C, L).
            internal_batch_size: rows that run through the model at once; fewer than B count as B.
                Changes memory, not numbers.
            seed: seed of the masks.
            show_progress: show how many masks are done.

        Returns:
            (B, 1, h, w) for maps, (B, T, 1) for tokens, (B, D) for features, in the units of the
            model's output; a tuple of these where ``inputs`` is a tuple.

        Raises:
            TypeError: if an input is not floating-point.
            ValueError: if an argument is out of range, ``keep`` does not fit, the inputs differ in
                their number of rows, or a NaN turns up.
            AssertionError, IndexError, RuntimeError: if ``target`` does not fit the output, as
                Captum raises.
        """
        given = as_tuple(inputs)
        _check_inputs(given)
        model = _WithEntry(self.forward_func, len(given))
        method = LayerRISE(model, model.inputs)
        with advise_on_scores(self.forward_func):
            found = unlogged_attribute(method)(
                given,
                target,
                additional_forward_args,
                n_masks=n_masks,
                cells=cells,
                probability=probability,
                keep=keep,
                center=center,
                channels_last=channels_last,
                internal_batch_size=internal_batch_size,
                seed=seed,
                show_progress=show_progress,
            )
        maps = found if isinstance(found, tuple) else (found,)
        return format_output(isinstance(inputs, tuple), maps)


class _Inputs(nn.Module):
    """A layer that hands on what it is given."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return inputs


class _WithEntry(nn.Module):
    """A model whose inputs run through a layer first: masking them is masking that layer."""

    def __init__(self, forward_func: Callable[..., Tensor], count: int) -> None:
        super().__init__()
        self.inputs = _Inputs()
        self.forward_func = forward_func
        self.owner = getattr(forward_func, "__self__", None)
        self._count = count

    def forward(self, *args: Any) -> Tensor:
        scores: Tensor = self.forward_func(*self.inputs(*args[: self._count]), *args[self._count :])
        return scores


def _check_inputs(inputs: tuple[Tensor, ...]) -> None:
    """Refuses inputs that cannot be masked together."""
    for given in inputs:
        if not isinstance(given, Tensor):
            raise TypeError(
                f"`inputs` must be floating-point tensors to be masked, got {type(given).__name__};"
                " of an image, give processor(images=[image], return_tensors='pt')['pixel_values']"
            )
        if not given.is_floating_point():
            raise TypeError(
                f"`inputs` must be floating-point tensors to be masked, got {given.dtype}; scale an"
                " image as the model's processor does, explain the token embedding of ids with"
                " LayerRISE, or pass them as `additional_forward_args`"
            )
        if not given.isfinite().all():
            raise ValueError("`inputs` holds NaN or infinity; check the inputs")
    rows = [len(given) if given.ndim else 0 for given in inputs]
    if len(set(rows)) != 1:
        raise ValueError(
            f"`inputs` must have one number of rows, got {rows}; pass what has no rows of the batch"
            " as `additional_forward_args`"
        )


def _keeps(
    keep: Tensor | tuple[Tensor | None, ...] | None, count: int
) -> tuple[Tensor | None, ...]:
    """Returns what is kept of each of some tensors."""
    keeps = (None,) * count if keep is None else keep if isinstance(keep, tuple) else (keep,)
    if len(keeps) != count:
        raise ValueError(
            f"`keep` must be a tuple with one entry, or None, for each of the {count} tensors that"
            f" are masked, got {len(keeps)}"
        )
    return keeps


def _mean_scores(
    masks: list[Masks],
    score: Callable[[list[Tensor], int], Tensor],
    *,
    n_masks: int,
    at_once: int,
    expected: float | None,
    show_progress: bool,
) -> tuple[Tensor, ...]:
    """Returns the masks' mean, weighted by their scores; coverage None means the measured."""
    batch, device = len(masks[0].values), masks[0].values.device
    weighted = [torch.zeros(one.shape, dtype=torch.float64, device=device) for one in masks]
    coverage = [torch.zeros_like(whole) for whole in weighted]
    total = torch.zeros(batch, dtype=torch.float64, device=device)
    starts = range(0, n_masks, at_once)
    for first in tqdm(starts, desc="RISE", leave=False, disable=not show_progress):
        copies = min(at_once, n_masks - first)
        drawn = [one.draw(copies) for one in masks]
        masked = [one.apply(part) for one, part in zip(masks, drawn, strict=True)]
        scores = score(masked, copies).double().reshape(copies, batch)
        total += scores.sum(0)
        for i, part in enumerate(drawn):
            visible = part.double().expand(copies, *masks[i].shape)
            weighted[i] += torch.einsum("cb,cb...->b...", scores, visible)
            coverage[i] += visible.sum(0)
    found = []
    for one, whole, seen in zip(masks, weighted, coverage, strict=True):
        if expected is None:
            mean = (total / n_masks).reshape(-1, *[1] * (whole.ndim - 1))
            centered = whole / seen.where(seen > 0, 1.0) - mean
            result = centered.where(seen > 0, 0.0)
        else:
            result = whole / expected
        found.append(one.as_map(result.to(one.values.dtype)))
    return tuple(found)
