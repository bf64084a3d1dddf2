"""A small Qwen2.5-VL with random weights: the language model and its vision encoder (mmproj), all in F32."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from launcher.arrays import F32
from launcher.build.checks import models
from launcher.conversion.gguf_writer import finish_file

_CONTROL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
_BLOCKS, _WIDTH, _UNITS, _HEADS = 4, 64, 160, 2
_FULL_EVERY = 2  # each second block attends to the whole image, the others to windows of 112 x 112 pixels
_PATCH = 14  # pixels; 2 x 2 patches are one token
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's


@dataclass(frozen=True, slots=True)
class MediaFiles:
    """The files of a model that takes images."""

    model: Path
    mmproj: Path


def write_media_model(folder: Path) -> MediaFiles:
    """Write both files into `folder`; they are the same each time. Blocks. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    files = MediaFiles(folder / "media.gguf", folder / "mmproj.gguf")
    models.write_plain_model(files.model, *_CONTROL)
    writer = gguf.GGUFWriter(files.mmproj, "clip")
    _describe(writer)
    for name, values in _tensors(np.random.default_rng(3)):
        writer.add_tensor(name, values)
    finish_file(writer)
    return files


def _describe(writer: gguf.GGUFWriter) -> None:
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(gguf.VisionProjectorType.QWEN25VL)
    writer.add_vision_projection_dim(models.MODEL_WIDTH)
    writer.add_vision_image_size(560)
    writer.add_vision_patch_size(_PATCH)
    writer.add_vision_embedding_length(_WIDTH)
    writer.add_vision_feed_forward_length(_UNITS)
    writer.add_vision_block_count(_BLOCKS)
    writer.add_vision_head_count(_HEADS)
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_image_mean(_MEAN)
    writer.add_vision_image_std(_STD)
    writer.add_vision_use_silu(True)
    writer.add_vision_n_wa_pattern(_FULL_EVERY)


def _tensors(random: np.random.Generator) -> Iterator[tuple[str, F32]]:
    """Name and values, (rows, columns) in numpy's order; scaled so that an image's vector depends on each pixel."""
    for name in ("weight", "weight.1"):  # an image is two equal frames of a film
        yield f"v.patch_embd.{name}", np.float32(0.05) * random.standard_normal((_WIDTH, 3, _PATCH, _PATCH), np.float32)
    for block in (f"v.blk.{number}" for number in range(_BLOCKS)):
        for name, rows, columns in (
            ("attn_q", _WIDTH, _WIDTH),
            ("attn_k", _WIDTH, _WIDTH),
            ("attn_v", _WIDTH, _WIDTH),
            ("attn_out", _WIDTH, _WIDTH),
            ("ffn_gate", _UNITS, _WIDTH),
            ("ffn_up", _UNITS, _WIDTH),
            ("ffn_down", _WIDTH, _UNITS),
        ):
            yield from _layer(f"{block}.{name}", rows, columns, random)
        for name in ("ln1", "ln2"):
            yield f"{block}.{name}.weight", 1 + 0.2 * random.standard_normal(_WIDTH, np.float32)
    yield "v.post_ln.weight", 1 + 0.2 * random.standard_normal(_WIDTH, np.float32)
    yield from _layer("mm.0", 4 * _WIDTH, 4 * _WIDTH, random)
    yield from _layer("mm.2", models.MODEL_WIDTH, 4 * _WIDTH, random)


def _layer(name: str, rows: int, columns: int, random: np.random.Generator) -> Iterator[tuple[str, F32]]:
    yield f"{name}.weight", np.float32(1.5 / columns**0.5) * random.standard_normal((rows, columns), np.float32)
    yield f"{name}.bias", 0.2 * random.standard_normal(rows, np.float32)
