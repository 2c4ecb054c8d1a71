"""RISE: how the score changes with what random masks leave visible."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from captum._utils.common import (
    ExpansionTypes,
    _expand_additional_forward_args,
    _expand_target,
    _format_additional_forward_args,
)
from captum._utils.typing import TargetType
from captum.attr._utils.attribution import LayerAttribution, PerturbationAttribution
from captum.log import log_usage
from torch import Tensor, nn
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

from captum_mi._checks import check_positive
from captum_mi._nested import at_least_single
from captum_mi._recorder import warn_if_training
from captum_mi._suffix import LayerSuffix, check_output
from captum_mi.attr._layers import explain_layers
from captum_mi.attr._scores import target_scores

Score = Callable[[Tensor, int], Tensor]


class RISE(LayerAttribution, PerturbationAttribution):  # type: ignore[misc]
    r"""Randomized input sampling: the mean score of the masks that show a place. Forward only.

    .. math:: S_j = \frac{\sum_i F(m_i \odot x) \, m_{ij}}{\sum_i m_{ij}}
                    - \frac1N \sum_i F(m_i \odot x)

    with N random masks m. Dividing by each place's own coverage and subtracting the mean score
    leave no noise of the masks themselves on a score with an offset, such as a cosine. Signed; a
    place whose mask never varies gets zero. Channels share a mask and are reduced to one.

    Without a layer the input is masked (zero is the mean colour of a normalised image); with one,
    its output. A text is explained at the output of its token embedding, with ``keep`` for the
    special tokens. Maps (B, C, h, w) get smooth masks: grids of random cells, enlarged and shifted;
    tokens (B, T, D) and features (B, D) get independent ones.

    Args:
        forward_func: the model, or any callable that runs it and returns (B,) or (B, C).
        layer: the layer, or a list of layers, each masked on its own; None masks the input.

    Source: Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models",
    BMVC 2018, eq. 6 (``center=False``). Its presets are 4,000 masks of 7 cells (8,000 for ResNet),
    probability 0.5; the NIB paper's table has 6,000 of 8 cells, probability 0.1.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
        >>> RISE(model).attribute(torch.randn(2, 3, 8, 8), target=1, n_masks=100).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | list[nn.Module] | None = None,
    ) -> None:
        """Stores the model and the layer; nothing is hooked before ``attribute``."""
        LayerAttribution.__init__(self, forward_func, layer)
        PerturbationAttribution.__init__(self, forward_func)

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "RISE"

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType = None,
        additional_forward_args: Any = None,  # noqa: ANN401
        *,
        n_masks: int = 4000,
        cells: int = 7,
        probability: float = 0.5,
        keep: Tensor | None = None,
        center: bool = True,
        attribute_to_layer_input: bool = False,
        internal_batch_size: int = 64,
        seed: int = 0,
        show_progress: bool = False,
    ) -> Any:  # noqa: ANN401
        """Scores what random masks leave of the input, or of the layer.

        Args:
            inputs: (B, ...), or a tuple of such tensors (with a layer).
            target: the output to explain, in any form that Captum takes.
            additional_forward_args: further arguments of ``forward_func``.
            n_masks: masks; every row meets the same ones. The error falls as 1 / sqrt(n_masks).
            cells: cells of a mask's grid along either side of a map.
            probability: that a cell, or a token, shows.
            keep: bool, places that are never masked: (B, T) or (T,) for tokens, (B, D) or (D,) for
                features, (B, h, w) or (h, w) for maps.
            center: subtract the mean score and divide by each place's own coverage; False divides
                by ``n_masks * probability`` alone, as published.
            attribute_to_layer_input: mask the layer's input instead of its output.
            internal_batch_size: rows that run through the model at once; fewer than B count as B.
                Changes memory, not numbers.
            seed: seed of the masks.
            show_progress: show how many masks are done.

        Returns:
            (B, 1, h, w) for maps, (B, T, 1) for tokens, (B, D) for features, in the units of the
            model's output; a list for a list of layers.

        Raises:
            TypeError: if the input to mask is not floating-point.
            ValueError: if an argument is out of range, ``keep`` does not fit, the layer does not
                fire exactly once or has several tensors, or a NaN turns up.
            AssertionError: if ``target`` does not fit the output (as Captum raises).
        """
        check_positive("n_masks", n_masks)
        check_positive("cells", cells)
        check_positive("internal_batch_size", internal_batch_size)
        if not 0 < probability < 1:
            raise ValueError(f"`probability` must be between 0 and 1, got {probability}")

        def sample(values: Tensor, score: Score) -> Tensor:
            masks = _Masks(values, n_masks, cells, probability, keep, seed)
            return _mean_scores(
                values,
                score,
                masks,
                at_once=max(1, internal_batch_size // len(values)),
                expected=None if center else n_masks * probability,
                show_progress=show_progress,
            )

        if self.layer is None:
            values, score = self._input_score(inputs, target, additional_forward_args)
            with torch.inference_mode(mode=False), torch.no_grad():
                found = sample(values, score)
            if not found.isfinite().all():
                raise ValueError("`forward_func` gave NaN or infinity for a masked input")
            return found

        def explain(suffix: LayerSuffix) -> tuple[Tensor, ...]:
            if len(suffix.latent) != 1:
                raise ValueError(
                    f"layer {suffix.name} has {len(suffix.latent)} tensors, RISE masks one; choose"
                    " a layer with one"
                )

            def score(masked: Tensor, copies: int) -> Tensor:
                return target_scores(suffix(masked), _expand_target(target, copies))

            return (sample(at_least_single(suffix.latent[0]), score),)

        return explain_layers(
            self,
            explain,
            inputs,
            target,
            additional_forward_args,
            at_input=attribute_to_layer_input,
        )

    def _input_score(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: TargetType,
        additional_forward_args: Any,  # noqa: ANN401
    ) -> tuple[Tensor, Score]:
        """Returns the input to mask, and the score of masked copies of it."""
        values = inputs if isinstance(inputs, Tensor) else inputs[0]
        if not isinstance(inputs, Tensor) and len(inputs) != 1:
            raise ValueError(
                f"`inputs` must be one tensor to be masked, got {len(inputs)}; pass the others as"
                " `additional_forward_args`"
            )
        if not values.is_floating_point():
            raise TypeError(
                f"`inputs` must be floating-point to be masked, got {values.dtype}; give the token"
                " embedding as `layer`"
            )
        if not values.isfinite().all():
            raise ValueError("`inputs` holds NaN or infinity; check the inputs")
        additional = _format_additional_forward_args(additional_forward_args)
        if isinstance(self.forward_func, nn.Module):
            for module in self.forward_func.modules():
                warn_if_training(module, self.forward_func)

        def score(masked: Tensor, copies: int) -> Tensor:
            arguments = _expand_additional_forward_args(additional, copies, ExpansionTypes.repeat)
            output = self.forward_func(masked, *(arguments or ()))
            check_output(output, (masked,))
            return target_scores(output, _expand_target(target, copies))

        return values.detach().clone(), score

    @property
    def multiplies_by_inputs(self) -> bool:
        """False: scores are differences of the model's output."""
        return False


class _Masks:
    """Seeded random masks of a batch, made a few at a time."""

    def __init__(
        self,
        values: Tensor,
        count: int,
        cells: int,
        probability: float,
        keep: Tensor | None,
        seed: int,
    ) -> None:
        if values.ndim not in (2, 3, 4):
            raise ValueError(
                "RISE masks maps (B, C, h, w), tokens (B, T, D) or features (B, D), got"
                f" {tuple(values.shape)}"
            )
        self.count = count
        self._values = values
        self._places = tuple(values.shape[2:] if values.ndim == 4 else values.shape[1:2])
        self._cells = cells
        self._probability = probability
        # A stream of its own for each quantity: drawing a few masks at a time changes none.
        self._cell_stream, self._top_stream, self._left_stream = (
            torch.Generator().manual_seed(3 * seed + i) for i in range(3)
        )
        self._keep = None if keep is None else self._as_places(keep)

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, *places)."""
        return (len(self._values), *self._places)

    def over_channels(self, masks: Tensor) -> Tensor:
        """Gives masks (..., *places) the axis of the channels that share them."""
        return {2: masks, 3: masks.unsqueeze(-1), 4: masks.unsqueeze(-len(self._places) - 1)}[
            self._values.ndim
        ]

    def draw(self, count: int) -> Tensor:
        """(count, B or 1, *places) in [0, 1]."""
        drawn = self._smooth(count) if len(self._places) == 2 else self._independent(count)
        drawn = drawn.to(self._values).unsqueeze(1)
        return drawn if self._keep is None else drawn.where(~self._keep, 1.0)

    def _independent(self, count: int) -> Tensor:
        drawn = torch.rand(count, *self._places, generator=self._cell_stream)
        return (drawn < self._probability) * 1.0

    def _smooth(self, count: int) -> Tensor:
        """Grids of random cells, enlarged to one cell more than the map and cropped at random."""
        height, width = self._places
        rows, columns = min(self._cells, height), min(self._cells, width)
        cell = math.ceil(height / rows), math.ceil(width / columns)
        grid = torch.rand(count, 1, rows, columns, generator=self._cell_stream)
        enlarged = interpolate(
            (grid < self._probability) * 1.0,
            size=((rows + 1) * cell[0], (columns + 1) * cell[1]),
            mode="bilinear",
            align_corners=False,
        )[:, 0].clamp(0, 1)
        top, left = (
            (torch.rand(count, 1, generator=stream) * side).long()
            for stream, side in zip((self._top_stream, self._left_stream), cell, strict=True)
        )
        row, column = top + torch.arange(height), left + torch.arange(width)
        return enlarged[torch.arange(count)[:, None, None], row[:, :, None], column[:, None, :]]

    def _as_places(self, keep: Tensor) -> Tensor:
        if tuple(keep.shape) not in (self.shape, self._places):
            raise ValueError(
                f"`keep` must have shape {self.shape} or {self._places}, got {tuple(keep.shape)}"
            )
        return keep.to(self._values.device, torch.bool)


def _mean_scores(
    values: Tensor,
    score: Score,
    masks: _Masks,
    *,
    at_once: int,
    expected: float | None,
    show_progress: bool,
) -> Tensor:
    """The masks' mean, weighted by their scores; ``expected`` coverage None means the measured."""
    batch = len(values)
    weighted = torch.zeros(masks.shape, dtype=torch.float64, device=values.device)
    coverage = torch.zeros_like(weighted)
    total = torch.zeros(batch, dtype=torch.float64, device=values.device)
    starts = range(0, masks.count, at_once)
    for first in tqdm(starts, desc="RISE", leave=False, disable=not show_progress):
        drawn = masks.draw(min(at_once, masks.count - first))
        copies = len(drawn)
        scores = score((masks.over_channels(drawn) * values).flatten(0, 1), copies)
        scores = scores.double().reshape(copies, batch)
        total += scores.sum(0)
        drawn = drawn.double().expand(copies, *masks.shape)
        weighted += torch.einsum("cb,cb...->b...", scores, drawn)
        coverage += drawn.sum(0)
    mean = (total / masks.count).reshape(-1, *[1] * (weighted.ndim - 1))
    if expected is not None:
        found = weighted / expected
    else:
        seen = coverage > 0
        found = (weighted / coverage.where(seen, 1.0) - mean).where(seen, 0.0)
    result: Tensor = masks.over_channels(found.to(at_least_single(values).dtype))
    return result
