"""The training loop: what it restores, when it ends, what it reports."""

import math

import pytest
import torch
from torch import nn

from captum_mi._training import minimize, split


class Line(nn.Module):
    """A weight with a part that dropout and batch statistics would betray."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.frozen = nn.Dropout()
        self.frozen.eval()


@pytest.fixture
def line():
    return Line()


def descent(line, rate=1.0):
    return torch.optim.SGD(line.parameters(), rate)


def falling(line):
    """A loss whose gradient is -1: with rate 1 the weight counts the steps."""
    return lambda step: -line.weight


def test_the_state_of_the_least_error_is_restored(line):
    history = minimize(
        falling(line),
        line,
        descent(line),
        12,
        validate=lambda: abs(line.weight.item() - 5.4),
        interval=2,
    )
    assert [check.step for check in history] == [2, 4, 6, 8, 10, 12]
    assert line.weight.item() == 6
    errors = [check.error for check in history]
    assert errors == pytest.approx([3.4, 1.4, 0.6, 2.6, 4.6, 6.6])


def test_equal_errors_are_no_progress(line):
    minimize(falling(line), line, descent(line), 5, validate=lambda: 1.0, interval=1)
    assert line.weight.item() == 1


def test_without_validation_the_last_state_stays(line):
    history = minimize(falling(line), line, descent(line), 7, interval=3)
    assert line.weight.item() == 7
    # Losses before the steps are 0, -1, ..., -6; the last check follows the last step.
    assert [check[:2] for check in history] == [(3, -1.0), (6, -4.0), (7, -6.0)]
    assert all(math.isnan(check.error) for check in history)


def test_it_ends_after_so_many_checks_without_a_lower_error(line):
    errors = iter([3.0, 2.0, 2.5, 1.0, 1.5, 1.0, 1.25, 0.0])
    history = minimize(
        falling(line),
        line,
        descent(line),
        80,
        validate=lambda: next(errors),
        interval=10,
        patience=3,
    )
    assert [check.step for check in history] == [10, 20, 30, 40, 50, 60, 70]
    assert line.weight.item() == 40


def test_the_loss_takes_the_number_of_the_step_and_the_schedule_its_turn(line):
    optimizer = descent(line)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 2.0**step)
    steps, weights = [], []

    def loss(step):
        steps.append(step)
        weights.append(line.weight.item())
        return -line.weight

    minimize(loss, line, optimizer, 4, schedule=schedule)
    assert steps == [1, 2, 3, 4]
    assert [*weights, line.weight.item()] == [0, 1, 3, 7, 15]  # by 1, 2, 4, 8


def test_gradients_do_not_add_up_and_callers_may_be_under_no_grad(line):
    line.weight.grad = torch.tensor(100.0)
    with torch.no_grad():
        minimize(falling(line), line, descent(line), 3)
    assert line.weight.item() == 3


def test_it_trains_in_training_mode_and_validates_in_evaluation_mode(line):
    line.eval()
    line.frozen.train()
    seen = []

    def loss(step):
        seen.append(("loss", line.training, line.frozen.training, torch.is_grad_enabled()))
        return line.weight

    def validate():
        seen.append(("error", line.training, line.frozen.training, torch.is_grad_enabled()))
        return 0.0

    minimize(loss, line, descent(line), 2, validate=validate, interval=1)
    assert seen == [("loss", True, True, True), ("error", False, False, False)] * 2
    assert not line.training
    assert line.frozen.training


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("where", ["loss", "validate"])
def test_an_interrupted_run_leaves_the_best_state_and_the_modes(line, error, where):
    def loss(step):
        if where == "loss" and step == 8:
            raise error
        return -line.weight

    def validate():
        if where == "validate" and line.weight.item() == 7:
            raise error
        return abs(line.weight.item() - 4)

    with pytest.raises(error):
        minimize(loss, line, descent(line), 100, validate=validate, interval=1)
    assert line.weight.item() == 4
    assert line.training
    assert not line.frozen.training


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_its_step(line, bad):
    def loss(step):
        return line.weight * (bad if step == 13 else -1.0)

    words = rf"diverged at `learning_rate` 0.5: the loss of step 13 is {bad}; choose a smaller one"
    line.weight.data += 1.0
    with pytest.raises(ValueError, match=words):
        minimize(loss, line, descent(line, 0.5), 40, validate=lambda: 0.0, interval=10)
    assert line.weight.item() == 6  # as at the check of step 10
    assert line.training


def test_an_error_that_is_no_number_names_its_step(line):
    errors = iter([1.0, math.nan])
    words = "`learning_rate` 1: the validation error of step 6 is nan; choose a smaller one"
    with pytest.raises(ValueError, match=words):
        minimize(falling(line), line, descent(line), 9, validate=lambda: next(errors), interval=3)
    assert line.weight.item() == 3


def test_a_split_is_seeded_and_rounds_what_is_held_out_up():
    kept, held_out = split(21, 0.1, torch.Generator().manual_seed(3))
    assert (len(kept), len(held_out)) == (18, 3)
    assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(21))
    assert kept.tolist() != sorted(kept.tolist())
    again = split(21, 0.1, torch.Generator().manual_seed(3))
    assert torch.equal(torch.cat(again), torch.cat([kept, held_out]))
    other = split(21, 0.1, torch.Generator().manual_seed(4))
    assert not torch.equal(torch.cat(other), torch.cat([kept, held_out]))
