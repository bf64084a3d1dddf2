"""The formula against sums of llama.cpp's own allocator, published peaks, and what a process really takes."""

from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from launcher.build.patches.lean import FLAG
from launcher.engine.device_list import MIB
from launcher.models.gguf_file import model_header
from launcher.planning.memory import (
    GIB,
    Flags,
    Layer,
    ModelWeights,
    Need,
    Shape,
    compute_bytes,
    kv_bytes,
    need,
    weights_of,
)
from proxy.contract.gguf import Header, Omitted
from tests.support.engines.engine import EngineMissing, found_engine, llama_server
from tests.support.models.tiny_models import write_model

JINA = Shape(layers=(Layer(256),) * 36, embedding_length=2048, feed_forward_length=11008, vocabulary=151_936, heads=16)


WINDOW = {"attention__sliding_window": 512}


def flags(tokens: int, *, logits: bool = True, gpu_layers: int = 99) -> Flags:
    return Flags(batch_tokens=tokens, slots=16, gpu_layers=gpu_layers, logits=logits)


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


def test_a_vision_encoder_is_where_the_model_is_with_its_buffers() -> None:
    weights = ModelWeights(file_bytes=2 * GIB, shape=JINA, unquantized=False)
    for layers in (0, 99):
        plain = flags(1024, gpu_layers=layers)
        without, with_one = need(weights, plain), need(weights, replace(plain, encoder_bytes=GIB))
        more = (with_one.ram - without.ram, with_one.fixed - without.fixed, with_one.spread - without.spread)
        assert more == ((GIB + 256 * MIB, 0, 0) if layers == 0 else (0, GIB + 256 * MIB, 0))


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


def header(architecture: str, **own: object) -> Header:
    """Of a model of two layers of 4 heads of 16."""
    keys = {"block_count": 2, "embedding_length": 64, "feed_forward_length": 128, "attention.head_count": 4, **own}
    values = {f"{architecture}.{name.replace('__', '.')}": value for name, value in keys.items()}
    metadata = {"general.architecture": architecture, "tokenizer.ggml.tokens": Omitted(1000), **values}
    return Header(metadata=metadata, file_bytes=1, needed_bytes=1)  # type: ignore[arg-type] # what a file may say


@pytest.mark.parametrize(
    ("own", "layers"),
    [
        ({}, (Layer(64), Layer(64))),  # as a bert's, which has as many key-value heads as heads
        ({"attention__head_count_kv": 2}, (Layer(32), Layer(32))),
        ({"attention__head_count_kv": [2, 4]}, (Layer(32), Layer(64))),
        ({"attention__head_count_kv": [0, 4], "attention__key_length": 8}, (Layer(0), Layer(32))),
        (WINDOW, (Layer(64), Layer(64))),
        (
            {"attention__sliding_window": 512, "attention__sliding_window_pattern": [True, False]},
            (Layer(64, True), Layer(64)),
        ),
        ({"attention__sliding_window": 512, "attention__sliding_window_pattern": 2}, (Layer(64, True), Layer(64))),
    ],
)
def test_each_layer_is_read_as_the_header_has_it(own: dict[str, object], layers: tuple[Layer, ...]) -> None:
    weights = weights_of(header("qwen3", **own))
    assert weights is not None
    assert weights.shape.layers == layers


@pytest.mark.parametrize("value", [[2], ["a", "b"], [2, -1], 0, "2", Omitted(2)])
def test_what_are_no_sizes_of_the_layers_is_no_guess(value: object) -> None:
    assert weights_of(header("qwen3", attention__head_count_kv=value)) is None


@pytest.mark.parametrize(
    ("architecture", "feed_forward", "measured_mib"),
    [
        ("bert", 2048, 14.54),  # llama.cpp's own log, on a CPU
        ("bert", 8192, 26.54),
        ("jina-bert-v3", 4096, 18.54),
        ("nomic-bert", 4096, 34.54),  # gated
        ("jina-bert-v2", 8192, 58.54),
    ],
)
def test_the_compute_buffer_of_an_encoder(architecture: str, feed_forward: int, measured_mib: float) -> None:
    weights = weights_of(header(architecture, embedding_length=1024, feed_forward_length=feed_forward))
    assert weights is not None
    assert compute_bytes(weights.shape, flags(512), on_gpu=False) / MIB == pytest.approx(measured_mib, rel=0.005)


def test_an_encoder_keeps_nothing_of_a_token_and_computes_no_logits() -> None:
    encoder, decoder = (weights_of(header(name)) for name in ("eurobert", "qwen3"))
    assert encoder is not None
    assert decoder is not None
    assert kv_bytes(encoder.shape, flags(512)) == 0 < kv_bytes(decoder.shape, flags(512))
    assert compute_bytes(encoder.shape, flags(512), on_gpu=False) == compute_bytes(
        encoder.shape, flags(512, logits=False), on_gpu=False
    )


def test_a_model_whose_head_no_engine_leaves_out_has_its_logits_counted() -> None:
    lean, other = (weights_of(header(name)) for name in ("qwen3", "gemma3"))
    assert lean is not None
    assert other is not None
    small, large = (compute_bytes(one.shape, flags(512, logits=False), on_gpu=True) for one in (lean, other))
    assert small < large == compute_bytes(other.shape, flags(512), on_gpu=True)


def test_a_sliding_window_keeps_a_window_for_each_slot() -> None:
    windowed = weights_of(
        header("gemma3", attention__sliding_window=8, attention__sliding_window_pattern=[True, False])
    )
    assert windowed is not None
    context, window = 2 * 512 + 256, 16 * 8 + 512
    assert kv_bytes(windowed.shape, flags(512)) == (context + window) * 64 * 2 * 2


@pytest.mark.parametrize(("engine", "logits"), [("embedded", True), ("native", False)])
async def test_a_real_encoder_takes_what_is_said(tmp_path: Path, engine: str, logits: bool) -> None:
    """Room for the logits of each token in an engine that has it, and of a whole text nothing but the mask."""
    tokens = 2048
    model = write_model(tmp_path / "wide.gguf", architecture="eurobert", vocabulary=80_000, n_ff=4096)
    await taken_is_said(model, engine, flags(tokens, gpu_layers=0, logits=logits), least=0.7)


async def test_without_flash_attention_the_scores_are_counted(tmp_path: Path) -> None:
    """Of each head of an encoder, one for each pair of tokens: 4 GiB for 16 heads and 8192 tokens."""
    model = write_model(tmp_path / "long.gguf", architecture="eurobert", heads=4)
    without = replace(flags(4096, gpu_layers=0), flash_attention=False)
    await taken_is_said(model, "embedded", without, least=0.7)


def test_without_flash_attention_a_causal_model_has_scores_for_its_whole_kv_cache() -> None:
    shape = Shape(layers=(Layer(32),) * 2, embedding_length=64, feed_forward_length=128, vocabulary=1000, heads=4)
    without = replace(flags(2048, logits=False), flash_attention=False)
    computed = compute_bytes(shape, without, on_gpu=False)
    assert computed / MIB == pytest.approx(173.19, rel=0.03)  # llama-server's log of that model, -ub 2048 -c 4352


@pytest.mark.parametrize(("engine", "n_ff", "logits"), [("embedded", 128, True), ("native", 16384, False)])
async def test_a_real_process_takes_what_is_said(tmp_path: Path, engine: str, n_ff: int, logits: bool) -> None:
    """After one full batch the widest step is nearly all that there is: the logits, or the feed-forward network."""
    tokens = 2048
    model = write_model(tmp_path / "wide.gguf", vocabulary=80_000, n_ff=n_ff)
    weights = weights_of(model_header(model))
    assert weights is not None
    assert weights.shape == Shape(
        layers=(Layer(32), Layer(32)), embedding_length=64, feed_forward_length=n_ff, vocabulary=80_000, heads=4
    )
    # With AMX, F16 is multiplied without a copy of the widest step's input.
    await taken_is_said(model, engine, flags(tokens, gpu_layers=0, logits=logits), least=0.88)


async def taken_is_said(model: Path, engine: str, used: Flags, *, least: float) -> None:
    """What that engine takes after a full batch is at most what is said, and not much less."""
    try:
        if used.logits is (FLAG in (await found_engine(engine)).flags):
            pytest.skip(f"the {engine} engine {'knows' if used.logits else 'does not know'} {FLAG}")
    except EngineMissing as missing:
        pytest.skip(str(missing))
    weights = weights_of(model_header(model))
    assert weights is not None
    extra = () if used.flash_attention else ("--flash-attn", "off")
    async with llama_server(model, engine=engine, batch_tokens=used.batch_tokens, extra_flags=extra) as server:
        await server.embed([[5] * used.batch_tokens])
        taken = psutil.Process(server.pid).memory_info().rss
    said = need(weights, used)
    assert said == Need(ram=said.ram)
    assert least * said.ram < taken <= said.ram
