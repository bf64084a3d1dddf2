"""The header of a vision encoder's file, with one small tensor: enough for what reads headers."""

from pathlib import Path

import gguf
import numpy as np

from launcher.conversion.gguf_writer import finish_file


def write_mmproj(
    path: Path,
    *,
    architecture: str = "clip",
    projector: str = gguf.VisionProjectorType.QWEN25VL,
    length: int = 64,
    file_type: gguf.LlamaFileType = gguf.LlamaFileType.MOSTLY_BF16,
    windows: bool = True,
) -> Path:
    """Write it to `path`, and return `path`. Without `windows` its header lacks their pattern."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_file_type(file_type)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(projector)
    writer.add_vision_projection_dim(length)
    writer.add_vision_embedding_length(64)
    writer.add_vision_block_count(1)
    if windows:
        writer.add_vision_n_wa_pattern(2)
    writer.add_tensor("v.post_ln.weight", np.ones(64, np.float32))
    finish_file(writer)
    return path
