"""Computes the vectors in `twin.npz` by transformers' own Qwen2.5-VL, from the weights of the check's small model.

No test imports it: it needs an environment of its own, with two gigabytes of torch. To make the file again, in the
project's folder:

    python -m venv /tmp/twin
    /tmp/twin/bin/pip install torch==2.13.0 "transformers==5.24.*" pillow gguf
    .venv/bin/python -m tests.launcher.images.sizes /tmp/twin/models
    PYTHONPATH=. /tmp/twin/bin/python tests/launcher/images/twin.py /tmp/twin/models tests/launcher/images/twin.npz
"""

import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from launcher.images.prompt import golden_pixels
from tests.launcher.images.sizes import SIZES

VISION_START, VISION_END, IMAGE_PAD = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"
IN_BLOCK = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
IN_VISION_BLOCK = {
    "attn_out": "attn.proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ln1": "norm1",
    "ln2": "norm2",
}
ELSEWHERE = {
    "token_embd.weight": "language_model.embed_tokens.weight",
    "output_norm.weight": "language_model.norm.weight",
    "v.post_ln.weight": "visual.merger.ln_q.weight",
    "mm.0.weight": "visual.merger.mlp.0.weight",
    "mm.0.bias": "visual.merger.mlp.0.bias",
    "mm.2.weight": "visual.merger.mlp.2.weight",
    "mm.2.bias": "visual.merger.mlp.2.bias",
}


def main(models: Path, out: Path) -> None:
    text, vision = (gguf.GGUFReader(models / name) for name in ("media.gguf", "mmproj.gguf"))
    tokens = [bytes(part).decode() for part in _parts(text, "tokenizer.ggml.tokens")]
    model = _model(text, vision, tokens)
    processor = Qwen2VLImageProcessorPil(min_pixels=4 * 784, max_pixels=768 * 784)
    found = {}
    for height, width in SIZES:
        image = Image.fromarray(golden_pixels(height, width))
        inputs = processor(images=[image], return_tensors="pt")
        count = height // 28 * (width // 28)
        before = [tokens.index("<|im_start|>"), *b"user\n"]
        ids = [*before, tokens.index(VISION_START), *[tokens.index(IMAGE_PAD)] * count, tokens.index(VISION_END)]
        input_ids = torch.tensor([ids])
        with torch.no_grad():
            states = model(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                mm_token_type_ids=(input_ids == tokens.index(IMAGE_PAD)).int(),
                pixel_values=inputs["pixel_values"],
                image_grid_thw=inputs["image_grid_thw"],
            ).last_hidden_state[0]
        rows = states.double().numpy()
        found[f"whole_{height}x{width}"] = rows.mean(axis=0).astype(np.float32)
        found[f"image_{height}x{width}"] = rows[len(before) :].mean(axis=0).astype(np.float32)
        if (height, width) == SIZES[0]:
            found["states"] = rows.astype(np.float32)
        sys.stdout.write(f"{height} x {width}: {count} tokens, {len(rows)} states\n")
    np.savez(out, **found)


def _parts(reader: gguf.GGUFReader, key: str) -> list[np.ndarray]:
    field = reader.fields[key]
    return [field.parts[index] for index in field.data]


def _number(reader: gguf.GGUFReader, key: str) -> float:
    return _parts(reader, key)[0][0].item()


def _model(text: gguf.GGUFReader, vision: gguf.GGUFReader, tokens: list[str]) -> Qwen2_5_VLModel:
    whole = int(_number(vision, "clip.vision.n_wa_pattern"))
    blocks = int(_number(vision, "clip.vision.block_count"))
    width = int(_number(text, "qwen2vl.embedding_length"))
    sections = [int(part[0]) for part in _parts(text, "qwen2vl.rope.dimension_sections")][:3]
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokens),
            "hidden_size": width,
            "num_hidden_layers": int(_number(text, "qwen2vl.block_count")),
            "intermediate_size": int(_number(text, "qwen2vl.feed_forward_length")),
            "num_attention_heads": int(_number(text, "qwen2vl.attention.head_count")),
            "num_key_value_heads": int(_number(text, "qwen2vl.attention.head_count_kv")),
            "rms_norm_eps": _number(text, "qwen2vl.attention.layer_norm_rms_epsilon"),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": _number(text, "qwen2vl.rope.freq_base"),
                "mrope_section": sections,
            },
            "max_position_embeddings": 32768,
        },
        vision_config={
            "depth": blocks,
            "hidden_size": int(_number(vision, "clip.vision.embedding_length")),
            "intermediate_size": int(_number(vision, "clip.vision.feed_forward_length")),
            "num_heads": int(_number(vision, "clip.vision.attention.head_count")),
            "out_hidden_size": width,
            "fullatt_block_indexes": list(range(whole - 1, blocks, whole)),
            "window_size": 112,
            "patch_size": 14,
        },
        image_token_id=tokens.index(IMAGE_PAD),
        vision_start_token_id=tokens.index(VISION_START),
        vision_end_token_id=tokens.index(VISION_END),
        attn_implementation="eager",
    )
    model = Qwen2_5_VLModel(config).float().eval()
    weights = {tensor.name: torch.tensor(np.array(tensor.data)) for part in (text, vision) for tensor in part.tensors}
    model.load_state_dict(_renamed(weights, blocks), strict=True)
    return model


def _renamed(weights: dict[str, torch.Tensor], blocks: int) -> dict[str, torch.Tensor]:
    renamed = {ELSEWHERE[name]: weights[name] for name in ELSEWHERE}
    frames = [weights["v.patch_embd.weight"], weights["v.patch_embd.weight.1"]]
    renamed["visual.patch_embed.proj.weight"] = torch.stack(frames, dim=2)
    for name, values in weights.items():
        match name.split("."):
            case ["blk", number, what, kind]:
                renamed[f"language_model.layers.{number}.{IN_BLOCK[what]}.{kind}"] = values
            case ["v", "blk", number, what, kind] if what in IN_VISION_BLOCK:
                renamed[f"visual.blocks.{number}.{IN_VISION_BLOCK[what]}.{kind}"] = values
    for number in range(blocks):
        for kind in ("weight", "bias"):
            parts = [weights[f"v.blk.{number}.attn_{one}.{kind}"] for one in "qkv"]
            renamed[f"visual.blocks.{number}.attn.qkv.{kind}"] = torch.cat(parts)
    return renamed


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
