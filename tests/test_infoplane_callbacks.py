"""Callbacks, in the libraries that they are for, against records by hand."""

import math
import subprocess
import sys

import pytest
import pytorch_lightning
import torch
from lightning import pytorch as lightning
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import Trainer, TrainingArguments

from captum_mi.estimators import KSG
from captum_mi.infoplane import InformationPlane
from captum_mi.infoplane.lightning import InformationPlaneCallback as OfLightning
from captum_mi.infoplane.trainer import InformationPlaneCallback as OfTrainer

LAYERS = ["0", "2"]
X = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def net():
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))


def by_hand(batch_size, n_epochs=3):
    """Rows of epochs 0, 1, ..., their mean losses, and the weights."""
    model = net()
    plane = InformationPlane(model, LAYERS, KSG())
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    plane.record(X, Y, epoch=0)
    for epoch in range(1, n_epochs + 1):
        losses = []
        for x, y in zip(X.split(batch_size), Y.split(batch_size), strict=True):
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        plane.record(X, Y, epoch=epoch, loss=sum(losses) / len(losses))
    return plane.rows, model


def assert_same(rows, expected):
    assert len(rows) == len(expected) == 8
    for row, other in zip(rows, expected, strict=True):
        assert (row.epoch, row.layer) == (other.epoch, other.layer)
        assert row.loss == pytest.approx(other.loss, nan_ok=True, rel=1e-5)
        assert row[3:] == pytest.approx(other[3:], nan_ok=True, abs=1e-5)
    assert {row.epoch: math.isnan(row.loss) for row in rows} == {
        0: True,
        1: False,
        2: False,
        3: False,
    }


def module_of(library):
    class Module(library.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net()

        def training_step(self, batch, _):
            x, y = batch
            loss = nn.functional.cross_entropy(self.net(x), y)
            return {"loss": loss} if self.current_epoch else loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.5)

    return Module()


def fit(library, module, *callbacks, epochs=3, batch_size=24, **options):
    trainer = library.Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, DataLoader(TensorDataset(X, Y), batch_size))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", [lightning, pytorch_lightning])
def test_lightning(library):
    module = module_of(library)
    callback = OfLightning(InformationPlane(module.net, LAYERS, KSG()), X, Y)
    fit(library, module, callback)
    expected, model = by_hand(24)
    assert_same(callback.plane.rows, expected)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, module.net.state_dict()[name])


@pytest.mark.filterwarnings("ignore")
def test_lightning_that_accumulates_and_goes_on(tmp_path):
    module, path = module_of(lightning), tmp_path / "plane.csv"
    options = {"batch_size": 12, "accumulate_grad_batches": 2}
    expected, _ = by_hand(24)
    callback = OfLightning(InformationPlane(module.net, LAYERS, KSG(), path=path), X, Y)
    fit(lightning, module, callback, **options)
    assert_same(callback.plane.rows, expected)
    twin = module_of(lightning)
    again = OfLightning(InformationPlane(twin.net, LAYERS, KSG(), path=path), X, Y)
    fit(lightning, twin, again, **options)
    assert_same(again.plane.rows, expected)
    assert len(path.read_text().splitlines()) == 9


class WithLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x, labels):
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class InOrder(Trainer):
    def get_train_dataloader(self):
        return DataLoader(self.train_dataset, 24)


def train(folder, model, *callbacks, **options):
    options = {"logging_strategy": "no", "learning_rate": 0.5, "num_train_epochs": 3} | options
    arguments = TrainingArguments(
        str(folder),
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    samples = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    InOrder(model, arguments, train_dataset=samples, callbacks=list(callbacks)).train()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("logging", ["no", "epoch"])
def test_trainer(tmp_path, logging):
    model = WithLoss()
    callback = OfTrainer(InformationPlane(model.net, LAYERS, KSG()), X, Y)
    train(tmp_path, model, callback, logging_strategy=logging)
    expected, twin = by_hand(24)
    assert_same(callback.plane.rows, expected)
    for name, weight in twin.state_dict().items():
        torch.testing.assert_close(weight, model.net.state_dict()[name])


@pytest.mark.filterwarnings("ignore")
def test_trainer_that_logs_steps(tmp_path):
    model = WithLoss()
    callback = OfTrainer(InformationPlane(model.net, LAYERS, KSG()), [(X, Y)])
    train(tmp_path, model, callback, logging_strategy="steps", logging_steps=1)
    assert [row.epoch for row in callback.plane.rows] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [row[3:] for row in callback.plane.rows] == [
        pytest.approx(row[3:], nan_ok=True, abs=1e-5) for row in by_hand(24)[0]
    ]


@pytest.mark.filterwarnings("ignore")
def test_another_model_than_the_one_that_is_trained_is_an_error(tmp_path):
    plane = InformationPlane(net(), LAYERS, KSG())
    with pytest.raises(ValueError, match="`plane` must be of the Module that is trained, or of a"):
        fit(lightning, module_of(lightning), OfLightning(plane, X, Y))
    with pytest.raises(ValueError, match=r"of the WithLoss .* got one of another Sequential"):
        train(tmp_path, WithLoss(), OfTrainer(plane, X, Y))


def test_the_package_needs_neither_library():
    code = (
        "import captum_mi.infoplane, sys;"
        " print({'lightning', 'pytorch_lightning', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
