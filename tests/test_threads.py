"""Two threads: neither sees what the other does, and nothing is left behind.

A gate inside the model makes the threads meet. It waits only for a while, so that a package that
lets one thread wait for the other passes too.
"""

import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import torch
import torch._dynamo
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as torch_module

from captum_mi._intervention.trace import AS_WRITTEN
from captum_mi.attr import GenericAttention, LayerRISE, MultimodalIB, NarrowingIB

PATIENCE = 0.2  # s, for a thread that may have to wait for the one that waits here
LIMIT = 20.0  # s, for what must happen
CALLS = 30

METHODS = {
    "NarrowingIB": lambda model, x: NarrowingIB(model, model.blocks[1]).attribute(
        x, target=1, n_steps=4
    ),
    "NarrowingIB of the input": lambda model, x: NarrowingIB(model, model.blocks[1]).attribute(
        x, target=1, n_steps=4, attribute_to_layer_input=True
    ),
    "MultimodalIB": lambda model, x: MultimodalIB(model, model.blocks[1]).attribute(
        x, target=1, n_steps=3, n_samples=2
    ),
    "RISE": lambda model, x: LayerRISE(model, model.blocks[1]).attribute(x, target=1, n_masks=8),
    "GenericAttention": lambda model, x: GenericAttention(model, model.blocks).attribute(
        x, target=1
    ),
}
PAIRS = [
    *((name, name) for name in METHODS),
    ("NarrowingIB", "GenericAttention"),
    ("GenericAttention", "NarrowingIB"),
]


class Gate(nn.Module):
    """Passes its input on; first calls ``meet``, in the way forward and in the way back."""

    def __init__(self):
        super().__init__()
        self.meet = None

    def forward(self, x):
        if self.meet is not None:
            self.meet()
            if x.requires_grad:
                x.register_hook(lambda _gradient: self.meet and self.meet())
        return x


class Model(nn.Module):
    """Three blocks, which PyTorch fuses when it may; a gate behind and in front of the second."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True) for _ in range(3)
        )
        self.front, self.behind = Gate(), Gate()

    def forward(self, x):
        hidden = self.front(self.blocks[0](self.embed(x)))
        hidden = self.behind(self.blocks[2](self.blocks[1](hidden)))
        return self.head(hidden[:, 0])


def build():
    model = Model().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(2 * torch.randn_like(parameter) * parameter.shape[-1] ** -0.5)
    return model


def tokens(batch=2):
    return torch.randn(batch, 5, 4, dtype=torch.float64)


def state(*models):
    """What an attribution must leave as it was: of the process, and of the models."""
    return {
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "stance": torch._dynamo.eval_frame._stance.stance,
        "warnings": list(warnings.filters),
        "attention": functional.scaled_dot_product_attention,
        "hooks": (
            len(torch_module._global_forward_hooks),
            len(torch_module._global_forward_pre_hooks),
            *(
                (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
                for model in models
                for m in model.modules()
            ),
        ),
        "patches": [type(m) for model in models for m in model.modules() if "forward" in vars(m)],
    }


def in_threads(*jobs):
    """Runs each job in a thread of its own; returns the results, or raises the first error."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result(LIMIT) for future in [pool.submit(job) for job in jobs]]


@pytest.fixture(autouse=True)
def _switch_often():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_models(first, second):
    """The first begins, the second begins inside its model, the first ends, the second ends."""
    models, inputs = [build(), build()], [tokens(), tokens()]
    calls = [METHODS[first], METHODS[second]]
    expected = [call(m, x) for call, m, x in zip(calls, models, inputs, strict=True)]
    before = state(*models)
    first_inside, second_called, second_inside, first_done = (threading.Event() for _ in range(4))

    def meet_first():
        if not first_inside.is_set():
            first_inside.set()
            assert second_called.wait(LIMIT)
            second_inside.wait(PATIENCE)

    def meet_second():
        if not second_inside.is_set():
            second_inside.set()
            first_done.wait(PATIENCE)

    def run_first():
        try:
            return calls[0](models[0], inputs[0])
        finally:
            first_inside.set()
            first_done.set()

    def run_second():
        assert first_inside.wait(LIMIT)
        second_called.set()
        return calls[1](models[1], inputs[1])

    models[0].behind.meet, models[1].behind.meet = meet_first, meet_second
    found = in_threads(run_first, run_second)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert state(*models) == before


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_one_model(first, second):
    """Thirty calls each; the threads meet inside the model, in every pass if they can."""
    model, inputs = build(), [tokens(), tokens(3)]
    calls = [METHODS[first], METHODS[second]]
    expected = [call(model, x) for call, x in zip(calls, inputs, strict=True)]
    before = state(model)
    barrier = threading.Barrier(2)

    def meet():
        with suppress(threading.BrokenBarrierError):  # once waited for in vain, it stays open
            barrier.wait(PATIENCE)

    model.behind.meet = meet
    found = in_threads(
        lambda: [calls[0](model, inputs[0]) for _ in range(CALLS)],
        lambda: [calls[1](model, inputs[1]) for _ in range(CALLS)],
    )
    for results, value in zip(found, expected, strict=True):
        assert len(results) == CALLS
        for result in results:
            torch.testing.assert_close(result, value)
    assert state(model) == before


@pytest.mark.parametrize("method", METHODS)
def test_one_of_two_fails(method):
    """An error in one thread, raised while the other is inside the same model, stays there."""
    model, inputs = build(), [tokens(), tokens(3)]
    expected = METHODS[method](model, inputs[1])
    before = state(model)
    inside = {name: threading.Event() for name in ("fails", "goes on")}
    failed, names = threading.Event(), {}

    def meet():
        name = names[threading.get_ident()]
        inside[name].set()
        if name == "fails":
            inside["goes on"].wait(PATIENCE)
            raise ArithmeticError
        inside["fails"].wait(PATIENCE)
        failed.wait(PATIENCE)

    def fail():
        names[threading.get_ident()] = "fails"
        try:
            with pytest.raises(ArithmeticError):
                METHODS[method](model, inputs[0])
        finally:
            failed.set()

    def go_on():
        names[threading.get_ident()] = "goes on"
        return METHODS[method](model, inputs[1])

    model.behind.meet = meet
    _, found = in_threads(fail, go_on)
    torch.testing.assert_close(found, expected)
    assert state(model) == before


def predict(model, x):
    """What a serving thread does, fused and not: (2, B, 3)."""
    with torch.inference_mode():
        fused = model(x)
    return torch.stack([fused, model(x).detach()])


@pytest.mark.parametrize("gate", ["front", "behind"])
@pytest.mark.parametrize("method", METHODS)
def test_predictions_inside_an_attribution_are_the_plain_ones(method, gate):
    """Whenever the attributing thread passes the gate, another thread predicts."""
    model, x, served = build(), tokens(), tokens(3)
    plain, expected = predict(model, served), METHODS[method](model, x)
    before, attributing = state(model), threading.get_ident()
    predictions = []
    with ThreadPoolExecutor(1) as server:

        def meet():
            if threading.get_ident() == attributing:
                predictions.append(server.submit(predict, model, served).result(LIMIT))

        getattr(model, gate).meet = meet
        found = METHODS[method](model, x)
    assert predictions
    for prediction in predictions:
        torch.testing.assert_close(prediction, plain, atol=1e-6, rtol=0)
    torch.testing.assert_close(found, expected)
    assert state(model) == before


@pytest.mark.parametrize("gate", ["front", "behind"])
@pytest.mark.parametrize("method", METHODS)
def test_an_attribution_inside_a_prediction_changes_neither(method, gate):
    """While a thread is in the midst of predicting, another one explains the same model."""
    model, x, served = build(), tokens(), tokens(3)
    with torch.no_grad():
        plain = model(served)
    expected = METHODS[method](model, x)
    before, predicting = state(model), threading.get_ident()
    attributions = []
    with ThreadPoolExecutor(1) as other:

        def meet():
            if threading.get_ident() == predicting:
                attributions.append(other.submit(METHODS[method], model, x).result(LIMIT))

        getattr(model, gate).meet = meet
        with torch.no_grad():
            found = model(served)
    (attribution,) = attributions
    torch.testing.assert_close(found, plain, atol=1e-6, rtol=0)
    torch.testing.assert_close(attribution, expected)
    assert state(model) == before


@pytest.mark.parametrize("method", METHODS)
def test_other_threads_see_pytorch_as_it_is(method):
    model, x = build(), tokens()
    plain, seen = functional.scaled_dot_product_attention, []
    with ThreadPoolExecutor(1) as other:

        def look():
            return functional.scaled_dot_product_attention

        model.behind.meet = lambda: seen.append(other.submit(look).result(LIMIT))
        METHODS[method](model, x)
    assert seen
    assert all(function is plain for function in seen)


def test_switches_of_the_process_stay_while_anyone_needs_them():
    before = state()
    with AS_WRITTEN:
        in_threads(lambda: AS_WRITTEN.__enter__())
        AS_WRITTEN.__exit__()
        assert not torch.backends.mha.get_fastpath_enabled()
        assert torch._dynamo.eval_frame._stance.stance == "force_eager"
    assert state() == before
