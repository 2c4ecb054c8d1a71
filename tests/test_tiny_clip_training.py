"""How the embedded CLIP is trained: its batches, its loss, its steps and its two stages."""

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import AutoProcessor, CLIPModel

from captum_mi._training import minimize
from captum_mi.datasets import Scenes
from captum_mi.models.tiny_clip import training
from captum_mi.models.tiny_clip.training import (
    collate,
    contrastive_loss,
    fit,
    new_model,
    new_processor,
    train,
)


def test_true_pairs_are_the_captions_true_of_an_image():
    scenes = [Scenes(80, seed=9, name_all=False)[i] for i in range(80)]
    pairs = collate(scenes).true_pairs
    for i, scene in enumerate(scenes):
        for j, other in enumerate(scenes):
            expected = set(other.texts[: other.named]) <= set(scene.texts)
            assert pairs[i, j].item() == expected
    assert pairs.sum() > 80


def test_loss_ignores_true_pairs_off_the_diagonal():
    scores = torch.randn(4, 4)
    pairs = torch.eye(4, dtype=torch.bool)
    pairs[0, 1] = True
    changed = scores.clone()
    changed[0, 1] = 50.0
    torch.testing.assert_close(contrastive_loss(scores, pairs), contrastive_loss(changed, pairs))
    assert contrastive_loss(100 * torch.eye(4), pairs) < 1e-3


def test_too_few_steps_to_train_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`steps` must be at least 100, got 20"):
        train(tmp_path, steps=20)


@pytest.fixture
def untrained():
    processor = new_processor()
    torch.manual_seed(0)
    return new_model(len(processor.tokenizer)), processor


def loader(scenes):
    return DataLoader(Scenes(scenes, seed=1), 4, collate_fn=collate)


def test_every_batch_is_a_step_of_one_cycle_and_the_loss_falls(untrained, monkeypatch):
    losses, rates = [], []

    def noted(scores, true_pairs):
        losses.append(contrastive_loss(scores, true_pairs))
        return losses[-1]

    def watched(loss, module, optimizer, steps, **options):
        def step_loss(step):
            rates.append(optimizer.param_groups[0]["lr"])
            return loss(step)

        return minimize(step_loss, module, optimizer, steps, **options)

    monkeypatch.setattr(training, "contrastive_loss", noted)
    monkeypatch.setattr(training, "minimize", watched)
    model, processor = untrained
    batches = loader(8)
    fit(model, processor, [batch for batch in batches for _ in range(11)])
    assert len(losses) == 22
    assert losses[10] < losses[0] - 0.05
    assert rates[0] == pytest.approx(6e-4 / 25)
    assert max(rates) == pytest.approx(6e-4, rel=0.02)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] < 6e-6


def test_gradients_are_clipped_and_the_logit_scale_stays_below_100(untrained, monkeypatch):
    monkeypatch.setattr(training, "MAX_GRADIENT_NORM", 0.01)
    model, processor = untrained
    model.logit_scale.data.fill_(5.0)
    fit(model, processor, loader(8))
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert torch.nn.utils.get_total_norm(gradients).item() == pytest.approx(0.01, rel=1e-3)
    assert model.logit_scale.exp().item() == pytest.approx(100)


def test_the_two_stages(tmp_path, monkeypatch):
    stages = []

    def noted(model, processor, loader):
        dropout = {block.self_attn.dropout for block in model.vision_model.encoder.layers}
        scenes = loader.dataset
        stages.append((len(loader), dropout, [len(scenes[i].objects) for i in range(0, 60, 3)]))

    monkeypatch.setattr(training, "fit", noted)
    train(tmp_path / "clip", steps=100, batch_size=2)
    assert [stage[:2] for stage in stages] == [(100, {0.0}), (30, {0.3})]
    assert stages[0][2][:10] == [1] * 10
    assert max(stages[0][2][10:]) > 1
    assert max(stages[1][2][:10]) > 1
    model = CLIPModel.from_pretrained(tmp_path / "clip", use_safetensors=True)
    ids = AutoProcessor.from_pretrained(tmp_path / "clip").tokenizer("a red circle").input_ids
    assert len(ids) == 5
    assert model.config.text_config.vocab_size == 26
