"""How the embedded CLIP is made: tokenizer, image processor, training, accuracy."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn.functional import normalize
from torch.utils.data import ConcatDataset, DataLoader
from tqdm.auto import tqdm

from captum_mi._training import minimize
from captum_mi.datasets.scenes import COLORS, SHAPES, SIZE, Scene, Scenes, single_object_texts
from captum_mi.estimators.bounds import info_nce

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor
    from transformers import CLIPModel, ProcessorMixin

CONTEXT = 32
SPECIAL_TOKENS = {
    "pad_token": "<pad>",
    "bos_token": "<bos>",
    "unk_token": "<unk>",
    "eos_token": "<eos>",
}
WORDS = (",", ".", "a", "an", "and", "the", *COLORS, *SHAPES)
PEAK_LEARNING_RATE = 6e-4
WEIGHT_DECAY = 0.05
WARM_UP = 0.05  # of the steps
SINGLE_OBJECTS = 0.15  # of the first stage's steps
SECOND_STAGE = 0.3  # times the first stage's steps
ATTENTION_DROPOUT = 0.3
MIN_STEPS = 100
MAX_GRADIENT_NORM = 1.0
MAX_LOGIT_SCALE = math.log(100.0)
HELD_OUT_SEED = 1_000_003


class Accuracy(NamedTuple):
    """Shares of held-out scenes whose objects the model ranks first, in [0, 1]."""

    single_top1: float
    two_in_top2: float


def new_processor() -> ProcessorMixin:
    """Returns the word-level tokenizer and the 64x64 image processor in one."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import (
        CLIPImageProcessor,
        PreTrainedTokenizerFast,
        VisionTextDualEncoderProcessor,
    )

    vocabulary = {word: i for i, word in enumerate((*SPECIAL_TOKENS.values(), *WORDS))}
    bos, eos = SPECIAL_TOKENS["bos_token"], SPECIAL_TOKENS["eos_token"]
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL_TOKENS["unk_token"]))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}", special_tokens=[(bos, vocabulary[bos]), (eos, vocabulary[eos])]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=CONTEXT, padding_side="right", **SPECIAL_TOKENS
    )
    images = CLIPImageProcessor(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return VisionTextDualEncoderProcessor(images, tokenizer)


def new_model(tokenizer_size: int) -> CLIPModel:
    """Returns the untrained model."""
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(
        text_config={
            "vocab_size": tokenizer_size,
            "hidden_size": 96,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "max_position_embeddings": CONTEXT,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 3,
        },
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "image_size": SIZE,
            "patch_size": 8,
        },
        projection_dim=128,
    )
    return CLIPModel(config)


class Batch(NamedTuple):
    """Scenes ready for the model; ``true_pairs[i, j]`` tells that caption j is true of image i."""

    pixel_values: Tensor
    captions: list[str]
    true_pairs: Tensor


def collate(scenes: Sequence[Scene]) -> Batch:
    """Stacks scenes and finds the captions that are true of more images than their own."""
    pixels = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2)
    kinds = {text: i for i, text in enumerate(single_object_texts())}
    present = torch.zeros(len(scenes), len(kinds))
    named = torch.zeros(len(scenes), len(kinds))
    for i, scene in enumerate(scenes):
        present[i, [kinds[text] for text in scene.texts]] = 1
        named[i, [kinds[text] for text in scene.texts[: scene.named]]] = 1
    return Batch(
        pixel_values=pixels.float() / 127.5 - 1,
        captions=[scene.caption for scene in scenes],
        true_pairs=(1 - present) @ named.T == 0,
    )


def contrastive_loss(scores: Tensor, true_pairs: Tensor) -> Tensor:
    """Returns the symmetric InfoNCE loss; a caption is no negative of an image it is true of."""
    off_diagonal = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    scores = scores.masked_fill(true_pairs & off_diagonal, -math.inf)
    return math.log(len(scores)) - (info_nce(scores) + info_nce(scores.T)) / 2


def train(
    folder: Path,
    *,
    steps: int = 4000,
    batch_size: int = 128,
    seed: int = 0,
    device: str = "cpu",
    workers: int = 1,
) -> None:
    """Trains the model on fresh scenes and writes it, with its processor, as a Hugging Face folder.

    The first stage begins with single objects: crowded scenes alone leave the shapes unlearned
    for long. The second drops attention weights at random, so that no single patch, often one on an
    object's edge, may speak for the object.

    Args:
        folder: where to write.
        steps: optimizer steps of the first stage; the second takes 0.3 times as many.
        batch_size: scenes a step.
        seed: seed of the scenes and of the weights.
        device: torch device; matrix products run in bfloat16.
        workers: processes that draw scenes.

    Raises:
        ValueError: if there are too few steps for a warm-up in each stage.
    """
    if steps < MIN_STEPS:
        raise ValueError(f"`steps` must be at least {MIN_STEPS}, got {steps}")
    torch.manual_seed(seed)
    processor = new_processor()
    model = new_model(len(processor.tokenizer)).to(device).train()
    model.set_attn_implementation("eager")  # at 65 tokens, 1.7 times as fast as sdpa on a CPU
    simple = round(SINGLE_OBJECTS * steps) * batch_size
    rest = steps * batch_size - simple
    first: ConcatDataset[Scene] = ConcatDataset(
        [Scenes(simple, seed=seed, objects=1), Scenes(rest, seed=seed + 1, name_all=False)]
    )
    fit(model, processor, DataLoader(first, batch_size, num_workers=workers, collate_fn=collate))
    second = Scenes(round(SECOND_STAGE * steps) * batch_size, seed=seed + 2, name_all=False)
    torch.manual_seed(seed + 2)
    torch.empty((), dtype=torch.int64).random_()  # the weights shipped here came after one draw
    drop_attention(model, ATTENTION_DROPOUT)
    fit(model, processor, DataLoader(second, batch_size, num_workers=workers, collate_fn=collate))
    model.cpu().eval().save_pretrained(folder)
    save_processor(processor, folder)


def drop_attention(model: CLIPModel, share: float) -> None:
    """Lets the image tower drop a share of its attention weights in training."""
    for layer in model.vision_model.encoder.layers:
        layer.self_attn.dropout = share


def fit(model: CLIPModel, processor: ProcessorMixin, loader: DataLoader[Scene]) -> None:
    """Minimizes the contrastive loss over the loader's batches, with AdamW and one cycle."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=len(loader), pct_start=WARM_UP
    )
    batches = iter(loader)

    def loss(step: int) -> Tensor:
        batch = next(batches)
        ids = processor.tokenizer(batch.captions, padding=True, return_tensors="pt")
        ids = ids.to(model.device)
        with torch.autocast(model.device.type, dtype=torch.bfloat16):
            output = model(**ids, pixel_values=batch.pixel_values.to(model.device))
        images = normalize(output.image_embeds.float(), dim=-1)
        texts = normalize(output.text_embeds.float(), dim=-1)
        scores = model.logit_scale.exp() * images @ texts.T
        return contrastive_loss(scores, batch.true_pairs.to(model.device))

    def clip_gradients(*_: object) -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)

    def limit_logit_scale(*_: object) -> None:
        model.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)

    optimizer.register_step_pre_hook(clip_gradients)
    optimizer.register_step_post_hook(limit_logit_scale)
    minimize(loss, model, optimizer, len(loader), schedule=schedule)


def save_processor(processor: ProcessorMixin, folder: Path) -> None:
    """Writes a processor so that transformers 4 reads it as well as 5."""
    processor.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(config, indent=2) + "\n")


@torch.no_grad()
def accuracy(
    model: CLIPModel, processor: ProcessorMixin, *, scenes: int = 1000, seed: int = HELD_OUT_SEED
) -> Accuracy:
    """Ranks all 64 texts "a COLOR SHAPE" on held-out scenes.

    Args:
        model: a CLIP trained on the scenes.
        processor: its processor.
        scenes: number of scenes with one object, and again with two.
        seed: seed of the scenes; the training seeds must differ from it.

    Returns:
        the share of one-object scenes whose object is ranked first, and of two-object scenes whose
        objects are the first two.
    """
    texts = single_object_texts()
    ids = processor.tokenizer(texts, padding=True, return_tensors="pt").to(model.device)
    shares = []
    for objects in (1, 2):
        hits = 0
        loader = DataLoader(Scenes(scenes, seed=seed, objects=objects), 250, collate_fn=list)
        for batch in tqdm(loader, desc=f"{objects} object(s)", leave=False):
            pixels = collate(batch).pixel_values.to(model.device)
            output = model(**ids, pixel_values=pixels)
            ranked = output.logits_per_image.topk(objects).indices.tolist()
            hits += sum(
                {texts[i] for i in row} == set(scene.texts)
                for row, scene in zip(ranked, batch, strict=True)
            )
        shares.append(hits / scenes)
    return Accuracy(*shares)
