"""The check of an engine that was built: it passes right ones, and tells what is wrong with others."""

import sys
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from launcher.build.checks import models as check_models
from launcher.build.checks.media import check_media
from launcher.build.checks.models import QUANTIZATIONS
from launcher.build.checks.vectors import check_engine
from launcher.build.patches.lean import FLAG
from launcher.engine.discovery import Engine
from launcher.errors import EngineBuildError, Miscompiled
from tests.support.engines.engine import found_engine
from tests.support.host.programs import program
from tests.support.sources.toolchain import quick_check


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_check(monkeypatch, "Q4_K_M")


async def test_an_engine_that_computes_right_passes(engine_kind: str, tmp_path: Path) -> None:
    assert 0.998 < await check_engine(await found_engine(engine_kind), tmp_path) < 1


async def test_an_engine_that_does_not_start_with_the_flag_does_not_serve(tmp_path: Path) -> None:
    engine = await found_engine("embedded")  # which does not know it
    with pytest.raises(EngineBuildError, match=rf"does not serve: Q4_K_M with {FLAG}: llama-server exited with 1"):
        await check_engine(replace(engine, flags=engine.flags | {FLAG}), tmp_path)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ('[ "$1" != --model ] || kill -ILL $$', "dies of SIGILL on Q4_K_M"),
        ('[ "$1" != --model ] || kill -BUS $$', "dies of SIGBUS on Q4_K_M"),
        ('[ "$1" != --model ] || sh -c "kill -ILL \\$\\$" || exit', "dies of SIGILL on Q4_K_M"),
        (
            'case "$2" in *in-F32*) ;; *) set -- "$@" --pooling cls ;; esac',
            "computes wrong vectors on Q4_K_M: a cosine",
        ),
    ],
)
async def test_an_engine_that_is_miscompiled_is_told_apart_from_one_that_does_not_serve(
    tmp_path: Path, fault: str, said: str
) -> None:
    with pytest.raises(Miscompiled, match=f"^the built engine {said}"):
        await check_engine(await faulty(tmp_path, fault), tmp_path)


async def test_an_engine_that_dies_of_an_image_is_miscompiled(tmp_path: Path) -> None:
    engine = await faulty(tmp_path, '[ "$1" != --model ] || kill -ILL $$')
    with pytest.raises(Miscompiled, match=r"^the built engine dies of SIGILL on images$"):
        await check_media(engine, tmp_path)


async def faulty(folder: Path, fault: str) -> Engine:
    """The embedded engine, with a line of shell before it."""
    wrapper = program(folder / "llama-server", f'{fault}\nexec {sys.executable} -P -m launcher.engine.embedded "$@"')
    return replace(await found_engine("embedded"), argv=(str(wrapper),))


async def test_a_software_device_is_checked_with_one_quantisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_models, "QUANTIZATIONS", QUANTIZATIONS)
    assert 0.998 < await check_engine(await found_engine("embedded"), tmp_path, software=True) < 1
    assert {path.name for path in tmp_path.iterdir()} == {"Q8_0.gguf", "Q8_0-in-F32.gguf"}


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_every_kernel_of_amx_gets_matrices_that_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantization: str
) -> None:
    """As `ggml/src/ggml-cpu/amx/amx.cpp` asks: rows a multiple of 32 in number and of a block in width."""
    monkeypatch.setattr(check_models, "QUANTIZATIONS", QUANTIZATIONS)
    model, in_f32 = (gguf.GGUFReader(path) for path in check_models.write_model(tmp_path, quantization))
    layers = [tensor for tensor in model.tensors if tensor.name.startswith("blk.") and len(tensor.shape) == 2]
    assert {tensor.tensor_type for tensor in layers} == {*QUANTIZATIONS[quantization]}
    assert all(tensor.shape[0] % 256 == 0 and tensor.shape[1] % 32 == 0 for tensor in layers)
    for tensor, plain in zip(model.tensors, in_f32.tensors, strict=True):
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.isfinite(numbers).all()
        assert np.array_equal(numbers, plain.data)
