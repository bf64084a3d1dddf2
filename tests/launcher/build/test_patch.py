"""Our patches on made-up sources; what LEAN does, on the engine that this machine has built with it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest

from launcher.build.patches.lean import FLAG, LEAN
from launcher.build.patches.media import MEDIA_FLAG, POOL_MEDIA
from launcher.build.patches.patch import Edit, Patch, apply, digest
from launcher.build.patches.tiles import TILES
from launcher.engine.argv import LEAN_ARCHITECTURES
from tests.support.engines.engine import EngineMissing, EngineRefused, LlamaServer, found_engine, llama_server
from tests.support.models.tiny_models import Architecture, write_model

ONE = Edit(path="src/a.cpp", text="int a;\n", behind="int b;\n")
TWO = Edit(path="src/a.cpp", text="int b;\n", before="int y;\n", behind="// marked\n")
OTHER = Edit(path="b.h", text="bool c;", behind=" bool d;")
MIXED = [[7] * 5, [11, 300, 12, 13] * 100, [9], list(range(3, 250)), [250, 4] * 40, [8] * 33]


def marked(*edits: Edit) -> Patch:
    return Patch(mark="marked", edits=edits)


def sources(folder: Path, **texts: str) -> Path:
    (folder / "src").mkdir()
    (folder / "src" / "a.cpp").write_text(texts["a"])
    (folder / "b.h").write_text(texts["b"])
    return folder


def sources_for(folder: Path, *patches: Patch) -> Path:
    """A source that those patches fit."""
    for name, text in dict.fromkeys((edit.path, edit.text) for patch in patches for edit in patch.edits):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((path.read_text() if path.exists() else "") + text + "\n")
    return folder


def test_each_edit_comes_beside_its_text_and_may_build_on_the_one_before(tmp_path: Path) -> None:
    source = sources(tmp_path, a="// é\nint a;\nint z;\n", b="bool c;\n")
    assert apply(marked(ONE, OTHER, TWO), source) is None
    assert (source / "src" / "a.cpp").read_text() == "// é\nint a;\nint y;\nint b;\n// marked\nint z;\n"
    assert (source / "b.h").read_text() == "bool c; bool d;\n"


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ("int a;\n", "none", "b.h has 'bool c;' 0 times instead of once"),
        ("int a;\n", "bool c; bool c;", "b.h has 'bool c;' 2 times instead of once"),
        ("int a;\nint a;\n", "bool c;", "src/a.cpp has 'int a;' 2 times instead of once"),
        ("int a;\n// marked\n", "bool c;", "src/a.cpp has marked already"),
    ],
)
def test_a_source_that_is_not_as_expected_stays_as_it_is(tmp_path: Path, a: str, b: str, why: str) -> None:
    source = sources(tmp_path, a=a, b=b)
    assert apply(marked(ONE, OTHER), source) == why
    assert ((source / "src" / "a.cpp").read_text(), (source / "b.h").read_text()) == (a, b)


def test_a_source_without_the_file_stays_as_it_is(tmp_path: Path) -> None:
    source = sources(tmp_path, a="int a;\n", b="bool c;")
    assert apply(marked(ONE, Edit(path="c.h", text="x", behind="y")), source) == "it has no c.h"
    assert (source / "src" / "a.cpp").read_text() == "int a;\n"


@pytest.mark.parametrize("patch", [LEAN, POOL_MEDIA, TILES], ids=["LEAN", "MEDIA", "TILES"])
def test_each_of_our_edits_is_made_without_the_others_and_only_once(tmp_path: Path, patch: Patch) -> None:
    source = sources_for(tmp_path, patch)
    other = LEAN if patch is TILES else TILES
    assert apply(other, source) == f"it has no {other.edits[0].path}"
    assert apply(patch, source) is None
    assert apply(patch, source) == f"{patch.edits[0].path} has {patch.mark} already"


def test_two_patches_beside_the_same_text_are_both_made(tmp_path: Path) -> None:
    source = sources_for(tmp_path, LEAN, POOL_MEDIA)
    assert [apply(patch, source) for patch in (LEAN, POOL_MEDIA)] == [None, None]
    arguments = (source / "common" / "arg.cpp").read_text()
    assert [arguments.count(f'"{flag}"') for flag in (FLAG, MEDIA_FLAG)] == [1, 1]


def test_a_source_without_one_of_the_texts_around_images_is_named(tmp_path: Path) -> None:
    source = sources_for(tmp_path, POOL_MEDIA)
    server = source / "tools" / "server" / "server-context.cpp"
    server.write_text(server.read_text().replace("mtmd::batch_ptr & mbatch, ", ""))
    why = apply(POOL_MEDIA, source)
    assert why == "tools/server/server-context.cpp has 'mtmd::batch_ptr & mbatch,' 0 times instead of once"
    assert MEDIA_FLAG not in (source / "common" / "arg.cpp").read_text()


def test_tiles_are_written_to_memory_before_they_are_loaded(tmp_path: Path) -> None:
    assert apply(TILES, sources_for(tmp_path, TILES)) is None
    kept, loaded = (tmp_path / TILES.edits[0].path).read_text().strip().splitlines()
    assert kept.strip().startswith('__asm__ volatile("" : : "m"(tc));')
    assert loaded.strip() == "_tile_loadconfig(&tc);"


def test_another_patch_has_another_digest() -> None:
    assert len({digest(()), digest((LEAN,)), digest((LEAN, TILES)), digest((TILES, LEAN))}) == 4


@pytest.fixture
async def lean_engine() -> None:
    try:
        engine = await found_engine("native")
    except EngineMissing as missing:
        pytest.skip(str(missing))
    if FLAG not in engine.flags:
        pytest.skip(f"the engine of this machine does not know {FLAG}: `trillama engine build` makes one")


@pytest.mark.usefixtures("lean_engine")
@pytest.mark.parametrize("architecture", LEAN_ARCHITECTURES)
async def test_vectors_of_mixed_lengths_are_the_same_to_the_last_bit(
    tmp_path: Path, architecture: Architecture
) -> None:
    model = write_model(tmp_path / "m.gguf", architecture=architecture, vocabulary=20_000)
    full = [[6] * 2048]
    found = []
    for lean in (False, True):
        async with llama_server(model, engine="native", lean=lean) as server:
            found.append([(await server.embed(ids)).tobytes() for ids in (MIXED, full, MIXED[::-1], [[5]])])
            with pytest.raises(EngineRefused, match="too large to process"):
                await server.embed([[6] * 2049])
    assert found[0] == found[1]


@pytest.mark.usefixtures("lean_engine")
async def test_vectors_of_each_token_are_the_same_to_the_last_bit(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.gguf", vocabulary=20_000)
    found = []
    for lean in (False, True):
        async with llama_server(model, engine="native", lean=lean, extra_flags=("--pooling", "none")) as server:
            found.append(await server.post("/embeddings", {"content": MIXED}))
    assert found[0] == found[1]
    assert np.array(orjson.loads(found[0])[1]["embedding"]).shape == (400, 64)


@pytest.mark.usefixtures("lean_engine")
async def test_text_is_still_generated_and_vectors_after_it_are_the_same(tmp_path: Path) -> None:
    """Other batches of the same server have their logits: only those of embeddings go."""
    model = write_model(tmp_path / "m.gguf", vocabulary=20_000)
    found = []
    for lean in (False, True):
        async with llama_server(model, engine="native", lean=lean) as server:
            before = await server.embed(MIXED)
            said = await generated(server, MIXED[3])
            found.append((before.tobytes(), said, (await server.embed(MIXED)).tobytes()))
    assert found[0] == found[1]
    assert len(found[0][1]) == 8


async def generated(server: LlamaServer, ids: Sequence[int]) -> list[int]:
    """The most likely tokens after `ids`."""
    asked = {"prompt": ids, "n_predict": 8, "temperature": 0, "return_tokens": True, "ignore_eos": True}
    tokens: list[int] = orjson.loads(await server.post("/completion", asked))["tokens"]
    return tokens
