"""InfoNCEDecomposition on ResNet-50, vision transformers and a prototypical network."""

import copy

import pytest
import torch
from helpers import latent_of, snapshot
from safetensors.torch import load_file
from torch import nn
from torchvision.models import VisionTransformer, resnet50
from transformers import ViTConfig, ViTForImageClassification

from captum_mi import InfoNCEDecomposition
from captum_mi.datasets import Episodes, SceneClasses
from captum_mi.models import Conv4, PrototypicalNetwork


class Logits(nn.Module):
    """A Hugging Face classifier that returns its logits."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixels):
        return self.model(pixels).logits


def torchvision_vit():
    model = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=24
    )
    nn.init.normal_(model.heads.head.weight)  # zero as torchvision draws it
    return model, "encoder.layers.encoder_layer_0", "heads"


def hugging_face_vit():
    config = ViTConfig(
        hidden_size=12,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        num_labels=7,
    )
    model = Logits(ViTForImageClassification(config))
    names = [name for name, _ in model.named_modules()]
    (first,) = [name for name in names if name.endswith((".layer.0", ".layers.0"))]
    return model, first, "model.classifier"


def fitted(model, layer, global_layer, batches, validation, **options):
    """Fits for an epoch, and checks that the model stays as it was, its buffers too."""
    before, state = snapshot(model), copy.deepcopy(model.state_dict())
    method = InfoNCEDecomposition(
        model, model.get_submodule(layer), model.get_submodule(global_layer), hidden=8, **options
    )
    (progress,) = method.fit(batches, epochs=1, validation=validation, n_negatives=100)
    assert progress.step == len(batches)
    assert snapshot(model) == before
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    return method


def statistics(method, path):
    """What the method knows of the layer and of Z, as its file has it."""
    method.save(path)
    return load_file(path)


def test_resnet50_has_a_map_of_its_last_stage(tmp_path):
    model = resnet50().eval()
    *batches, validation, images = [torch.randn(4, 3, 64, 96) for _ in range(4)]
    method = fitted(model, "layer4.1.conv2", "avgpool", batches, [validation])
    maps = method.decompose(images)
    assert maps.total.shape == maps.decision.shape == maps.mask.shape == (4, 1, 2, 3)
    torch.testing.assert_close(maps.decision + maps.redundant, maps.total)
    torch.testing.assert_close(method.attribute(images[1:2]), maps.total[1:2], atol=1e-4, rtol=1e-4)
    found = statistics(method, tmp_path / "fitted.safetensors")
    seen = torch.cat(batches)
    local = latent_of(model, model.layer4[1].conv2, seen)
    torch.testing.assert_close(found["mean"], local.mean(0).flatten(1).T, atol=1e-5, rtol=1e-3)
    z = latent_of(model, model.avgpool, seen).flatten(1)
    torch.testing.assert_close(found["z_mean"], z.mean(0), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("build", [torchvision_vit, hugging_face_vit])
def test_of_a_vision_transformer_the_patches_are_places(build, tmp_path):
    model, layer, global_layer = build()
    model.eval()
    *batches, validation, images = [torch.randn(4, 3, 32, 32) for _ in range(4)]
    method = fitted(model, layer, global_layer, batches, [validation])
    maps = method.decompose(images)
    for part in (maps.total, maps.decision, maps.mask):
        assert part.shape == (4, 17, 1)
        assert not part[:, 0].any()  # CLS
        assert part[:, 1:].all()
    found = statistics(method, tmp_path / "fitted.safetensors")
    tokens = latent_of(model, model.get_submodule(layer), torch.cat(batches))
    torch.testing.assert_close(found["mean"], tokens.mean(0)[1:], atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(found["latent_mean"][0], tokens.mean(0), atol=1e-5, rtol=1e-3)
    information = method.information([images])
    torch.testing.assert_close(information.total.value, float(maps.total[:, 1:].mean()))


def test_the_queries_of_an_episode_are_explained_by_its_ways():
    backbone = Conv4(width=6)
    scenes = SceneClasses(100)
    shapes = [target % 8 for target in scenes.targets]
    episodes = Episodes(scenes, ways=3, queries=4, length=2, labels=shapes)
    backbone(episodes[1].query)  # running moments other than those it begins with
    episode = episodes[0]
    model = PrototypicalNetwork(backbone.eval(), episode.support, episode.support_labels)
    order = torch.arange(12).reshape(3, 4).T.reshape(2, 6)
    *batches, validation = [
        (episode.query[rows], episode.query_labels[rows]) for rows in order.tolist()
    ] * 2
    method = fitted(model, "backbone.blocks.1", "backbone.avgpool", batches, [validation])
    maps = method.decompose(episode.query[:2])
    assert maps.total.shape == maps.redundant.shape == (2, 1, 16, 16)
    assert 0 < float(maps.mask.min()) <= float(maps.mask.max()) < 1
    assert float(maps.total.max()) <= maps.cap
