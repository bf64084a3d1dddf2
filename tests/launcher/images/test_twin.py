"""Images on real llama.cpp with our patch have the vectors that transformers' own Qwen2.5-VL computes (`twin.py`)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from launcher.build.checks.media import check_media
from launcher.build.checks.media_models import MediaFiles, write_media_model
from launcher.build.patches.media import MEDIA_FLAG
from launcher.errors import EngineBuildError, WrongAnswer
from launcher.images.prompt import BEFORE, golden_pixels, image_input, media_marker
from launcher.supervision.golden_check import GoldenCheck, GoldenImage
from tests.launcher.images.sizes import SIZES
from tests.support.engines.engine import EngineMissing, EngineRefused, found_engine, llama_server
from tests.support.host.programs import program

EXPECTED: Mapping[str, npt.NDArray[np.float32]] = np.load(Path(__file__).with_name("twin.npz"))
QUICK = tuple(size for size in SIZES if size not in {(644, 476), (588, 1008)})  # of these two seconds: 0.9999998 too
SAME = 0.99999


@pytest.fixture(autouse=True)
async def _engine() -> None:
    try:
        engine = await found_engine("native")
    except EngineMissing as missing:
        pytest.skip(str(missing))
    if MEDIA_FLAG not in engine.flags:
        pytest.skip(f"the engine of this machine does not know {MEDIA_FLAG}: `trillama engine build` makes one")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> MediaFiles:
    return write_media_model(tmp_path_factory.mktemp("media"))


def image(height: int, width: int) -> dict[str, object]:
    return image_input(golden_pixels(height, width), media_marker())


def cosine(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    return float(one.astype(np.float64) @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


async def test_vectors_of_images_of_4_to_768_tokens_are_those_of_transformers(files: MediaFiles) -> None:
    async with llama_server(files.model, engine="native", batch_tokens=1024, mmproj=files.mmproj) as server:
        before = await server.tokenize(BEFORE)
        (prefix,) = await server.embed([before])
        for height, width in QUICK:
            ((found,),) = await server.rows([image(height, width)])
            count = len(before) + height // 28 * (width // 28) + 2
            only_image = (count * found - len(before) * prefix) / (count - len(before))
            assert cosine(found, EXPECTED[f"whole_{height}x{width}"]) > SAME, (height, width)
            assert cosine(only_image, EXPECTED[f"image_{height}x{width}"]) > SAME, (height, width)


async def test_the_state_of_every_token_of_an_image_is_that_of_transformers(files: MediaFiles) -> None:
    async with llama_server(files.model, engine="native", mmproj=files.mmproj, pooling="none") as server:
        (rows,) = await server.rows([image(*SIZES[0])])
        assert rows.shape == EXPECTED["states"].shape
        assert min(map(cosine, rows, EXPECTED["states"])) > SAME


async def test_texts_are_the_same_to_the_last_bit_and_a_broken_image_harms_nothing(files: MediaFiles) -> None:
    texts = [[7] * 5, list(range(200)), [9]]
    async with llama_server(files.model, engine="native") as plain:
        expected = await plain.embed(texts)
    async with llama_server(files.model, engine="native", mmproj=files.mmproj) as server:
        good, broken = image(56, 56), {**image(56, 56), "multimodal_data": ["Qk0="]}
        (first,) = await server.rows([good])
        for bad in (broken, {**good, "prompt_string": "no marker"}):
            with pytest.raises(EngineRefused):
                await server.rows([texts[0], bad, good])
        assert (await server.embed(texts)).tobytes() == expected.tobytes()
        assert cosine(first[0], (await server.rows([good]))[0][0]) > SAME


async def test_the_check_of_a_build_passes_an_engine_with_the_patch(tmp_path: Path) -> None:
    await check_media(await found_engine("native"), tmp_path)


@pytest.mark.parametrize(
    ("instead", "said"),
    [("", "does not pool an image over all of its tokens|has 1 states"), ("--no-such-flag", "does not serve images")],
)
async def test_the_check_of_a_build_stops_an_engine_without_it(tmp_path: Path, instead: str, said: str) -> None:
    """Stock llama.cpp answers 200: with the text behind the image."""
    native = await found_engine("native")
    script = f"""
for word; do shift; if [ "$word" = {MEDIA_FLAG} ]; then set -- "$@" {instead}; else set -- "$@" "$word"; fi; done
exec {native.argv[0]} "$@"
"""
    stock = replace(native, argv=(str(program(tmp_path / "stock", script)),))
    with pytest.raises(EngineBuildError, match=rf"the built engine ({said})"):
        await check_media(stock, tmp_path)


async def test_an_image_is_part_of_the_golden_check(files: MediaFiles, tmp_path: Path) -> None:
    golden = GoldenImage(media_marker(), tmp_path / "image.npy")
    async with llama_server(files.model, engine="native", mmproj=files.mmproj) as server:
        canary = GoldenCheck(
            socket=server.socket, dimensions=256, golden=tmp_path / "texts.npy", timeout_s=60, image=golden
        )
        await canary.check_vectors()
        await canary.check_vectors()
        assert (np.load(canary.golden).shape, np.load(golden.golden).shape) == ((3, 256), (1, 256))
        np.save(golden.golden, -np.load(golden.golden))
        with pytest.raises(WrongAnswer, match=r"not those of this file's first start .*delete .*image\.npy"):
            await canary.check_vectors()
    async with llama_server(files.model, engine="native") as texts_only:
        with pytest.raises(WrongAnswer, match="the canary got an answer that is not embeddings"):
            await replace(canary, socket=texts_only.socket).check_vectors()
