"""Small random image-text models of every supported family, with their processors."""

from types import SimpleNamespace

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPImageProcessor, PreTrainedTokenizerFast

WORDS = ["a", "red", "green", "blue", "circle", "square", "heart", "and"]
SPECIAL = ["<pad>", "<bos>", "<unk>", "<eos>"]
VOCABULARY = {word: i for i, word in enumerate(SPECIAL + WORDS)}
LEGACY_VOCABULARY = {word: i for i, word in enumerate(["<pad>", "<unk>", *WORDS, "<bos>", "<eos>"])}
CONTEXT = 16
IMAGE = 32
PATCH = 8

FAMILIES = ["clip", "clip-legacy", "metaclip2", "siglip", "chinese_clip", "altclip"]
METACLIP2_VOCABULARY = {
    word: i for i, word in enumerate(["<bos>", "<pad>", "<eos>", "<unk>", *WORDS])
}


def tokenizer(vocabulary=VOCABULARY, **options):
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>",
        special_tokens=[(name, vocabulary[name]) for name in ("<bos>", "<eos>")],
    )
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "unk_token": "<unk>", "eos_token": "<eos>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=words, padding_side="right", **(names | options)
    )


def processor(vocabulary=VOCABULARY):
    images = CLIPImageProcessor(
        size={"shortest_edge": IMAGE},
        crop_size={"height": IMAGE, "width": IMAGE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return SimpleNamespace(tokenizer=tokenizer(vocabulary), image_processor=images)


def build(family, layers=5):
    """Returns (model in evaluation mode, processor); weights scaled up so that outputs differ."""
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
    }
    vision = shape | {"image_size": IMAGE, "patch_size": PATCH}
    text = shape | {"vocab_size": len(VOCABULARY), "max_position_embeddings": CONTEXT}
    text |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3}
    vocabulary = VOCABULARY
    t = transformers
    torch.manual_seed(1)
    if family in ("clip", "clip-legacy"):
        if family == "clip-legacy":
            vocabulary = LEGACY_VOCABULARY
            text["eos_token_id"] = 2
        config = t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
        model = t.CLIPModel(config)
    elif family == "metaclip2":
        # As in the released weights: the end token is 2, and not the largest id.
        vocabulary = METACLIP2_VOCABULARY
        text |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
        config = t.MetaClip2Config(text_config=text, vision_config=vision, projection_dim=24)
        model = t.MetaClip2Model(config)
    elif family == "siglip":
        model = t.SiglipModel(
            t.SiglipConfig(text_config=text | {"projection_size": 32}, vision_config=vision)
        )
    elif family == "chinese_clip":
        config = t.ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
        model = t.ChineseCLIPModel(config)
    elif family == "altclip":
        text["project_dim"] = 24
        text["max_position_embeddings"] = CONTEXT + 1
        config = t.AltCLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
        model = t.AltCLIPModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn_like(parameter) * 2 * parameter.shape[-1] ** -0.5)
            elif "bias" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model.eval(), processor(vocabulary)


def text_encoder(tokenizer):
    """A small random BERT for a tokenizer."""
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    return transformers.BertModel(config).eval()
