"""The formula against sums of llama.cpp's own allocator, published peaks, and what a process really takes."""

from pathlib import Path

import psutil
import pytest

from launcher.build.patch import FLAG
from launcher.engine.device_list import MIB
from launcher.models.gguf_file import model_header
from launcher.planning.memory import (
    GIB,
    Flags,
    ModelWeights,
    Need,
    Shape,
    compute_bytes,
    kv_bytes,
    need,
    weights_of,
)
from proxy.contract.gguf import Header
from tests.support.engine import EngineMissing, found_engine, llama_server
from tests.support.tiny_models import write_model

JINA = Shape(layers=36, embedding_length=2048, feed_forward_length=11008, kv_length=256, vocabulary=151_936)


def flags(tokens: int, *, logits: bool = True, gpu_layers: int = 99) -> Flags:
    return Flags(batch_tokens=tokens, gpu_layers=gpu_layers, logits=logits)


@pytest.mark.parametrize(
    ("tokens", "on_gpu", "logits", "measured_mib"),
    [
        (512, False, True, 324.8),  # no-alloc sums on a CPU with the real shape, -c 8192
        (2048, False, True, 1299),
        (4096, False, True, 2598),
        (8192, False, True, 5197),
        (512, False, False, 92.6),
        (2048, False, False, 370),
        (8192, False, False, 1481),
        (512, True, True, 313),  # derived for CUDA from Jina's log (2470 MiB at -ub 4096 -c 4096)
        (1024, True, True, 626),
        (8192, True, True, 5004),
    ],
)
def test_the_compute_buffer_is_what_the_allocator_says(
    tokens: int, on_gpu: bool, logits: bool, measured_mib: float
) -> None:
    computed = compute_bytes(JINA, flags(tokens, logits=logits), on_gpu=on_gpu, context=8192)
    assert computed / MIB == pytest.approx(measured_mib, rel=0.03)


def test_the_compute_buffer_of_jina_s_log() -> None:
    assert compute_bytes(JINA, flags(4096), on_gpu=True, context=4096) / MIB == pytest.approx(2470.16, rel=0.001)


def test_a_longer_context_widens_the_mask_only() -> None:
    long, short = (compute_bytes(JINA, flags(8192), on_gpu=False, context=c) for c in (32768, 8192))
    assert (long - short) / MIB == pytest.approx(5581 - 5197, rel=0.03)


@pytest.mark.parametrize(
    ("file_gib", "unquantized", "measured_gib"), [(1.79, False, 5.10), (3.05, False, 6.36), (5.75, True, 9.70)]
)
def test_the_vram_is_the_published_peak(file_gib: float, unquantized: bool, measured_gib: float) -> None:
    """Jina's were taken at -ub 4096 -c 4096; ours has twice the context: 144 MiB of KV cache and 32 of mask more."""
    weights = ModelWeights(file_bytes=round(file_gib * GIB), shape=JINA, unquantized=unquantized)
    more = kv_bytes(JINA, flags(4096)) / 2 + 4096 * 2 * 4096
    assert (need(weights, flags(4096)).vram - more) / GIB == pytest.approx(measured_gib, rel=0.03)


def test_without_a_gpu_all_of_it_is_ram_and_with_one_most_is_not() -> None:
    weights = ModelWeights(file_bytes=2 * GIB, shape=JINA, unquantized=False)
    on_cpu, on_gpu = (need(weights, flags(1024, gpu_layers=layers)) for layers in (0, 99))
    half = need(weights, flags(1024, gpu_layers=18))
    assert on_cpu.vram == 0
    assert on_cpu.ram > 2 * GIB > on_gpu.ram
    assert on_gpu.vram > half.vram > 0
    assert on_cpu.ram > half.ram > on_gpu.ram


def test_an_engine_that_leaves_out_the_logits_saves_them_on_both_sides() -> None:
    weights = ModelWeights(file_bytes=2 * GIB, shape=JINA, unquantized=False)
    with_, without = (need(weights, flags(8192, logits=logits)) for logits in (True, False))
    assert (with_.vram - without.vram) / GIB == pytest.approx(3.6, rel=0.03)
    assert with_.ram - without.ram == 8192 * 4 * JINA.vocabulary


def test_a_header_without_a_size_is_no_guess() -> None:
    metadata: dict[str, int | float | bool | str] = {"general.architecture": "qwen2vl", "qwen2vl.block_count": 36}
    assert weights_of(Header(metadata=metadata, file_bytes=1, needed_bytes=1)) is None


@pytest.mark.parametrize(("engine", "n_ff", "logits"), [("embedded", 128, True), ("native", 16384, False)])
async def test_a_real_process_takes_what_is_said(tmp_path: Path, engine: str, n_ff: int, logits: bool) -> None:
    """After one full batch the widest step is nearly all that there is: the logits, or the feed-forward network."""
    try:
        if logits is (FLAG in (await found_engine(engine)).flags):
            pytest.skip(f"the {engine} engine {'knows' if logits else 'does not know'} {FLAG}")
    except EngineMissing as missing:
        pytest.skip(str(missing))
    tokens = 2048
    model = write_model(tmp_path / "wide.gguf", vocabulary=80_000, n_ff=n_ff)
    weights = weights_of(model_header(model))
    assert weights is not None
    assert weights.shape == Shape(
        layers=2, embedding_length=64, feed_forward_length=n_ff, kv_length=32, vocabulary=80_000
    )
    async with llama_server(model, engine=engine, batch_tokens=tokens) as server:
        await server.embed([[5] * tokens])
        taken = psutil.Process(server.pid).memory_info().rss
    said = need(weights, flags(tokens, gpu_layers=0, logits=logits))
    assert said == Need(ram=said.ram)
    assert 0.88 * said.ram < taken <= said.ram  # with AMX, F16 is multiplied without a copy of the widest step's input
