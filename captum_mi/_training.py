"""One training loop: steps, a held-out part, the best state, an early end, progress."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from tqdm.auto import trange

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


class Progress(NamedTuple):
    """Where the training stands at one of its checks.

    Attributes:
        step: steps taken so far.
        loss: mean loss of the steps since the check before.
        error: what ``validate`` returned; NaN without it.
    """

    step: int
    loss: float
    error: float


def minimize(
    loss: Callable[[int], Tensor],
    module: nn.Module,
    optimizer: Optimizer,
    steps: int,
    *,
    schedule: LRScheduler | None = None,
    validate: Callable[[], float] | None = None,
    interval: int = 20,
    patience: int | None = None,
    title: str = "training",
) -> list[Progress]:
    """Minimizes a loss by gradient descent, in place, and keeps the best state.

    The module trains in training mode and is validated in evaluation mode. At the end, also after
    an error or an interruption, it has the state of the least validation error so far, and each of
    its modules the mode that it had before. Without ``validate`` the last state stays. Only the
    optimizer's parameters get gradients, a frozen model behind the loss gets none. Whatever else
    belongs to a step, such as clipping gradients, goes into the optimizer's own hooks,
    ``register_step_pre_hook`` and ``register_step_post_hook``.

    Args:
        loss: takes the number of the step, from 1, draws a batch and returns its loss, 0-d.
        module: holds everything that is trained, and nothing whose mode must stay.
        optimizer: of the module's parameters.
        steps: at most.
        schedule: of the learning rate, advanced after each step.
        validate: returns the error on held-out data; the lower, the better.
        interval: steps between two checks; the last step is always followed by one.
        patience: checks in a row without a lower error before training ends; None never ends it.
        title: of the progress bar.

    Returns:
        one entry for each check.

    Raises:
        ValueError: if a loss or an error is NaN or infinite; it names the step.

    Example:
        >>> x = torch.linspace(-1, 1, 20)[:, None]
        >>> line = torch.nn.Linear(1, 1)
        >>> history = minimize(
        ...     lambda step: (line(x) - 3 * x).square().mean(),
        ...     line,
        ...     torch.optim.Adam(line.parameters(), 0.1),
        ...     steps=200,
        ... )
        >>> round(line.weight.item(), 2), history[-1].step
        (3.0, 200)
    """
    modes = [(part, part.training) for part in module.modules()]
    trained = [each for group in optimizer.param_groups for each in group["params"]]
    history: list[Progress] = []
    losses: list[Tensor] = []
    least, best, since = math.inf, None, 0
    try:
        module.train()
        with trange(1, steps + 1, desc=title, unit="step", leave=False, delay=2) as progress:
            for step in progress:
                with torch.enable_grad():
                    value = loss(step)
                    optimizer.zero_grad()
                    torch.autograd.backward(value, inputs=trained)
                optimizer.step()
                if schedule is not None:
                    schedule.step()
                losses.append(value.detach())
                if step % interval and step != steps:
                    continue
                mean = _finite_mean(losses, step, optimizer)
                losses.clear()
                if validate is None:
                    history.append(Progress(step, mean, math.nan))
                    progress.set_postfix(loss=mean, refresh=False)
                    continue
                error = _validated(validate, module, step, optimizer)
                history.append(Progress(step, mean, error))
                progress.set_postfix(loss=mean, error=error, refresh=False)
                if error < least:
                    least, best, since = error, copy.deepcopy(module.state_dict()), 0
                    continue
                since += 1
                if since == patience:
                    break
    finally:
        if best is not None:
            module.load_state_dict(best)
        for part, mode in modes:
            part.training = mode
    return history


def split(n_samples: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws the rows to train on and the rows to hold out.

    Args:
        n_samples: how many rows there are.
        share: of the rows to hold out, rounded up.
        generator: draws them; the rows are on its device.

    Returns:
        row numbers to train on and to hold out, shuffled.

    Example:
        >>> kept, held_out = split(25, 0.1, torch.Generator().manual_seed(0))
        >>> len(kept), len(held_out)
        (22, 3)
    """
    order = torch.randperm(n_samples, generator=generator, device=generator.device)
    n_held_out = math.ceil(share * n_samples)
    return order[n_held_out:], order[:n_held_out]


def _finite_mean(losses: list[Tensor], step: int, optimizer: Optimizer) -> float:
    values = torch.stack(losses)
    broken = (~values.isfinite()).nonzero().flatten().tolist()
    if broken:
        at = step - len(losses) + 1 + broken[0]
        raise _diverged("loss", float(values[broken[0]]), at, optimizer)
    return float(values.mean())


def _validated(
    validate: Callable[[], float], module: nn.Module, step: int, optimizer: Optimizer
) -> float:
    module.eval()
    with torch.no_grad():
        error = validate()
    module.train()
    if not math.isfinite(error):
        raise _diverged("validation error", error, step, optimizer)
    return error


def _diverged(what: str, value: float, step: int, optimizer: Optimizer) -> ValueError:
    rate = optimizer.defaults["lr"]
    return ValueError(
        f"training diverged at `learning_rate` {rate:g}: the {what} of step {step} is {value};"
        " choose a smaller one"
    )
