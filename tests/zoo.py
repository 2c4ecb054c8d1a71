"""One small random model of each family of transformers, and how to run it at each of its towers.

``build`` returns the towers of a family; batches are the first rows of a tower's arguments.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
import transformers as t
from torch import Tensor, nn

WIDTH, HEADS, DEPTH, PROJECTION = 16, 2, 3, 12
IMAGE, PATCH = 16, 4
PAD, BOS, IMAGE_TOKEN, EOS, WORDS = 0, 1, 14, 15, 16
IDS = torch.tensor([[1, 5, 9, 3, 7, 15], [1, 4, 11, 15, 0, 0], [1, 12, 6, 8, 15, 0]])
MASK = (IDS != PAD).long()
PIXELS = torch.randn(3, 3, IMAGE, IMAGE, generator=torch.Generator().manual_seed(0))

SHAPE = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
}
TOKENS = {"vocab_size": WORDS, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
TEXT = SHAPE | TOKENS | {"max_position_embeddings": 24}
VISION = SHAPE | {"image_size": IMAGE, "patch_size": PATCH}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
GROUPED = {"num_key_value_heads": 1}


class Tower(NamedTuple):
    """A way to run a model, with the arguments of a batch and the name of a block in the middle."""

    model: nn.Module
    forward_func: Callable[..., Tensor]
    args: tuple[Tensor, ...]
    block: str

    @property
    def tolerance(self):
        """Of attributions, as a share of the largest one."""
        return 1e-6 if next(self.model.parameters()).dtype == torch.float64 else 2e-4

    def batch(self, rows):
        """The first rows of the arguments."""
        return tuple(tensor[:rows] for tensor in self.args)

    def layer(self, suffix=""):
        """The block, or what is inside it."""
        return self.find(self.block + suffix)

    def last(self):
        """The last block of the same tower."""
        return self.find(re.sub(r"\d+$", str(DEPTH - 1), self.block))

    def find(self, name):
        """The one module of this name, a regular expression: versions of transformers differ."""
        found = [m for own, m in self.model.named_modules() if re.fullmatch(name, own)]
        assert len(found) == 1, f"{len(found)} modules are called {name}"
        return found[0]


def randomize(model, dtype=torch.float64):
    """Evaluation mode, weights scaled up so that outputs differ."""
    generator = torch.Generator().manual_seed(1)
    model = model.to(dtype).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            if parameter.ndim > 1:
                parameter.copy_(2 * drawn * parameter[0].numel() ** -0.5)
            elif "bias" in name:
                parameter.copy_(0.1 * drawn)
    return model


def dual(
    model, image=r"vision_model\..*layers\.1", text=r"text_model\..*layers\.1", dtype=torch.float64
):
    """A dual encoder as a whole: images against three texts, texts against three images."""
    model, images = randomize(model, dtype), PIXELS.to(dtype)

    def by_image(pixel_values):
        return model(input_ids=IDS, attention_mask=MASK, pixel_values=pixel_values).logits_per_image

    def by_text(ids, mask):
        return model(input_ids=ids, attention_mask=mask, pixel_values=images).logits_per_text

    return {
        "image": Tower(model, by_image, (images,), image),
        "text": Tower(model, by_text, (IDS, MASK), text),
    }


def clip():
    config = t.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=PROJECTION)
    return dual(t.CLIPModel(config))


def metaclip2():
    config = t.MetaClip2Config(text_config=TEXT, vision_config=VISION, projection_dim=PROJECTION)
    return dual(t.MetaClip2Model(config))


def siglip():
    text = TEXT | {"projection_size": WIDTH}
    return dual(t.SiglipModel(t.SiglipConfig(text_config=text, vision_config=VISION)))


def chinese_clip():
    config = t.ChineseCLIPConfig(
        text_config=TEXT | NO_DROPOUT, vision_config=VISION, projection_dim=PROJECTION
    )
    return dual(t.ChineseCLIPModel(config), text=r"text_model\.encoder\.layer\.1")


def altclip():
    text = TEXT | NO_DROPOUT | {"project_dim": PROJECTION}
    config = t.AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=PROJECTION)
    return dual(t.AltCLIPModel(config), text=r"text_model\..*encoder\.layers?\.1")


def clipseg():
    config = t.CLIPSegConfig(text_config=TEXT, vision_config=VISION, projection_dim=PROJECTION)
    return dual(t.CLIPSegModel(config))


def blip():
    text = TEXT | {"encoder_hidden_size": WIDTH, "projection_dim": PROJECTION, "sep_token_id": EOS}
    config = t.BlipConfig(text_config=text, vision_config=VISION, projection_dim=PROJECTION)
    return dual(t.BlipModel(config), text=r"text_model\.encoder\.layer\.1")


def owlvit():
    config = t.OwlViTConfig(text_config=TEXT, vision_config=VISION, projection_dim=PROJECTION)
    return dual(t.OwlViTModel(config))


def groupvit():
    vision = VISION | {
        "num_hidden_layers": 4,
        "depths": [2, 1, 1],
        "num_group_tokens": [6, 4, 0],
        "num_output_groups": [6, 4, 4],
    }
    config = t.GroupViTConfig(
        text_config=TEXT,
        vision_config=vision,
        projection_dim=PROJECTION,
        projection_intermediate_dim=2 * PROJECTION,
    )
    return dual(t.GroupViTModel(config), image=r"vision_model\.encoder\.stages\.0\.layers\.1")


def aimv2():
    config = t.Aimv2Config(text_config=TEXT, vision_config=VISION, projection_dim=PROJECTION)
    return dual(t.Aimv2Model(config), dtype=torch.float32)


def align():
    vision = {
        "image_size": IMAGE,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "kernel_sizes": [3, 3, 3],
        "in_channels": [32, 16, 24],
        "out_channels": [16, 24, 16],
        "strides": [1, 2, 1],
        "num_block_repeats": [1, 1, 1],
        "expand_ratios": [1, 2, 2],
        "hidden_dim": 16,
    }
    config = t.AlignConfig(text_config=TEXT | NO_DROPOUT, vision_config=vision, projection_dim=16)
    return dual(
        t.AlignModel(config),
        image=r"vision_model\.encoder\.blocks\.1",
        text=r"text_model\.encoder\.layer\.1",
    )


def vision_text_dual_encoder():
    config = t.VisionTextDualEncoderConfig.from_vision_text_configs(
        t.ViTConfig(**VISION), t.BertConfig(**TEXT), projection_dim=PROJECTION
    )
    return dual(
        t.VisionTextDualEncoderModel(config),
        image=r"vision_model\.(encoder\.layer|layers)\.1",
        text=r"text_model\.encoder\.layers?\.1",
    )


def flava():
    config = t.FlavaConfig(
        image_config=VISION,
        text_config=TEXT,
        multimodal_config=SHAPE,
        hidden_size=WIDTH,
        projection_dim=PROJECTION,
        init_codebook=False,
    )
    model = randomize(t.FlavaModel(config))

    def forward_func(pixel_values, ids, mask):
        found = model(input_ids=ids, attention_mask=mask, pixel_values=pixel_values)
        return found.multimodal_embeddings[:, 0]

    args = (PIXELS.double(), IDS, MASK)
    return {
        name: Tower(model, forward_func, args, rf"{name}_model\.encoder\.layer\.1")
        for name in ("image", "text", "multimodal")
    }


def causal(model, block, dtype=torch.float64):
    """A language model's logits of the next word; padding is on the left."""
    model = randomize(model, dtype)

    def forward_func(ids, mask):
        return model(input_ids=ids, attention_mask=mask).logits[:, -1]

    ids = torch.stack([row.roll(int((row == PAD).sum())) for row in IDS])
    return {"text": Tower(model, forward_func, (ids, (ids != PAD).long()), block)}


def gpt2():
    config = t.GPT2Config(
        n_embd=WIDTH, n_layer=DEPTH, n_head=HEADS, n_positions=24, n_inner=2 * WIDTH, **TOKENS
    )
    return causal(t.GPT2LMHeadModel(config), r"transformer\.h\.1")


def llama():
    config = t.LlamaConfig(**TEXT, **GROUPED)
    return causal(t.LlamaForCausalLM(config), r"model\.layers\.1", torch.float32)


def image_and_text(model, vision, text):
    """A language model that reads an image in front of its text."""
    model = randomize(model, torch.float32)
    patches = torch.full((len(IDS), (IMAGE // PATCH) ** 2), IMAGE_TOKEN)
    # The texts' paddings differ only at B = 2 or more; here all are of one length.
    ids = torch.cat([patches, IDS[:, :3]], 1)

    def forward_func(pixel_values, ids):
        mask = torch.ones_like(ids)
        return model(input_ids=ids, attention_mask=mask, pixel_values=pixel_values).logits[:, -1]

    return {
        "image": Tower(model, forward_func, (PIXELS, ids), vision),
        "text": Tower(model, forward_func, (PIXELS, ids), text),
    }


def llava():
    """Reads the last block but one of its image tower through a hook of transformers."""
    config = t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**VISION | {"num_hidden_layers": 4}),
        text_config=t.LlamaConfig(**TEXT, **GROUPED),
        image_token_index=IMAGE_TOKEN,
        image_seq_length=(IMAGE // PATCH) ** 2,
    )
    towers = image_and_text(
        t.LlavaForConditionalGeneration(config),
        r".*vision_tower\..*layers\.1",
        r".*language_model\.(model\.)?layers\.1",
    )
    return towers | {"features": towers["image"]._replace(block=r".*vision_tower\..*layers\.2")}


def paligemma():
    config = t.PaliGemmaConfig(
        vision_config=t.SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=t.GemmaConfig(**TEXT, **GROUPED, head_dim=WIDTH // HEADS),
        image_token_index=IMAGE_TOKEN,
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )
    return image_and_text(
        t.PaliGemmaForConditionalGeneration(config),
        r".*vision_tower\..*layers\.1",
        r".*language_model\.(model\.)?layers\.1",
    )


def qwen(model):
    """Qwen-VL takes the patches of all images in one list, without a batch axis."""
    model = randomize(model, torch.float32)
    merged = (IMAGE // PATCH // 2) ** 2
    images = torch.full((len(IDS), merged), IMAGE_TOKEN)
    start = torch.full((len(IDS), 1), 13)
    ids = torch.cat([start, images, IDS[:, :3]], 1)
    patches = PIXELS.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).permute(0, 2, 3, 1, 4, 5)
    packed = patches.flatten(3).repeat(1, 1, 1, 2).flatten(1, 2)  # (B, L, 2 * 3 * PATCH ** 2)
    grid = torch.tensor([[1, IMAGE // PATCH, IMAGE // PATCH]] * len(IDS))

    def forward_func(ids, patches, grid):
        return model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=patches.flatten(0, 1),
            image_grid_thw=grid,
            mm_token_type_ids=(ids == IMAGE_TOKEN).int(),
        ).logits[:, -1]

    args = (ids, packed, grid)
    return {
        "image": Tower(model, forward_func, args, r".*visual\.blocks\.1"),
        "text": Tower(model, forward_func, args, r".*language_model\.layers\.1"),
    }


QWEN_TEXT = (
    TEXT | GROUPED | {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]}}
)
QWEN_TOKENS = {"image_token_id": IMAGE_TOKEN, "video_token_id": 12, "vision_start_token_id": 13}


def qwen2_vl():
    vision = {
        "depth": DEPTH,
        "embed_dim": WIDTH,
        "hidden_size": WIDTH,
        "num_heads": HEADS,
        "mlp_ratio": 2,
        "patch_size": PATCH,
    }
    config = t.Qwen2VLConfig(text_config=QWEN_TEXT, vision_config=vision, **QWEN_TOKENS)
    return qwen(t.Qwen2VLForConditionalGeneration(config))


def qwen2_5_vl():
    vision = {
        "depth": DEPTH,
        "hidden_size": WIDTH,
        "out_hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_heads": HEADS,
        "patch_size": PATCH,
        "window_size": 2 * PATCH,
        "fullatt_block_indexes": [2],
    }
    config = t.Qwen2_5_VLConfig(text_config=QWEN_TEXT, vision_config=vision, **QWEN_TOKENS)
    return qwen(t.Qwen2_5_VLForConditionalGeneration(config))


def translation(model, encoder, decoder, dtype=torch.float64):
    """The logits of the first word of the translation."""
    model = randomize(model, dtype)
    start = torch.full((len(IDS), 1), BOS)

    def forward_func(ids, mask, start):
        return model(input_ids=ids, attention_mask=mask, decoder_input_ids=start).logits[:, -1]

    args = (IDS, MASK, torch.cat([start, IDS[:, 2:4]], 1))
    return {
        "encoder": Tower(model, forward_func, args, encoder),
        "decoder": Tower(model, forward_func, args, decoder),
    }


def t5():
    config = t.T5Config(
        vocab_size=WORDS,
        d_model=WIDTH,
        d_kv=WIDTH // HEADS,
        d_ff=2 * WIDTH,
        num_layers=DEPTH,
        num_heads=HEADS,
        relative_attention_num_buckets=8,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=BOS,
    )
    model = t.T5ForConditionalGeneration(config)
    return translation(model, r"encoder\.block\.1", r"decoder\.block\.1", torch.float32)


def marian():
    config = t.MarianConfig(
        **TOKENS,
        d_model=WIDTH,
        encoder_layers=DEPTH,
        decoder_layers=DEPTH,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=2 * WIDTH,
        decoder_ffn_dim=2 * WIDTH,
        max_position_embeddings=24,
        decoder_start_token_id=BOS,
        forced_eos_token_id=EOS,
    )
    model = t.MarianMTModel(config)
    return translation(model, r"model\.encoder\.layers\.1", r"model\.decoder\.layers\.1")


def whisper():
    config = t.WhisperConfig(
        **TOKENS,
        num_mel_bins=6,
        d_model=WIDTH,
        encoder_layers=DEPTH,
        decoder_layers=DEPTH,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=2 * WIDTH,
        decoder_ffn_dim=2 * WIDTH,
        max_source_positions=10,
        max_target_positions=12,
        decoder_start_token_id=BOS,
    )
    model = randomize(t.WhisperForConditionalGeneration(config))

    def forward_func(features, ids):
        return model(input_features=features, decoder_input_ids=ids).logits[:, -1]

    features = PIXELS.double().flatten(1)[:, : 6 * 20].unflatten(1, (6, 20))
    return {
        name: Tower(model, forward_func, (features, IDS[:, :3]), rf"model\.{name}\.layers\.1")
        for name in ("encoder", "decoder")
    }


def encoder(model):
    """The first token behind an encoder."""
    model = randomize(model)

    def forward_func(ids, mask):
        return model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]

    return {"text": Tower(model, forward_func, (IDS, MASK), r"encoder\.layer\.1")}


def deberta():
    config = t.DebertaConfig(
        **TEXT | NO_DROPOUT,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_biased_input=False,
    )
    return encoder(t.DebertaModel(config))


def deberta_v2():
    config = t.DebertaV2Config(
        **TEXT | NO_DROPOUT,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_biased_input=False,
        position_buckets=4,
        share_att_key=True,
        norm_rel_ebd="layer_norm",
    )
    return encoder(t.DebertaV2Model(config))


def mpnet():
    config = t.MPNetConfig(**TEXT | NO_DROPOUT, relative_attention_num_buckets=32)
    return encoder(t.MPNetModel(config))


FAMILIES = {
    "CLIP": clip,
    "MetaCLIP 2": metaclip2,
    "SigLIP": siglip,
    "ChineseCLIP": chinese_clip,
    "AltCLIP": altclip,
    "CLIPSeg": clipseg,
    "BLIP": blip,
    "OwlViT": owlvit,
    "GroupViT": groupvit,
    "AIMv2": aimv2,
    "ALIGN": align,
    "FLAVA": flava,
    "VisionTextDualEncoder": vision_text_dual_encoder,
    "GPT-2": gpt2,
    "Llama": llama,
    "LLaVA": llava,
    "PaliGemma": paligemma,
    "Qwen2-VL": qwen2_vl,
    "Qwen2.5-VL": qwen2_5_vl,
    "T5": t5,
    "Marian": marian,
    "Whisper": whisper,
    "DeBERTa": deberta,
    "DeBERTa-v2": deberta_v2,
    "MPNet": mpnet,
}


@cache
def build(family):
    """Returns the towers of a family, by name."""
    return FAMILIES[family]()
