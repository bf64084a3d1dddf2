"""The command line as a table: what guards against which trap is there, whatever the placement."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.engine.argv import REQUIRED_FLAGS, ServerSpec, argv, check_extra, environment, media_environment
from launcher.errors import ConfigError, EngineError
from proxy.contract.family import RopeScaling
from tests.support.engines.engine import llama_server
from tests.support.models.tiny_models import write_model


@dataclass(frozen=True, slots=True)
class FakeEngine:
    flags: frozenset[str] = REQUIRED_FLAGS
    argv: tuple[str, ...] = ("llama-server",)


PLACEMENT = ServerSpec(
    name="retrieval",
    model=Path("/models/a b.gguf"),
    socket=Path("/run/r.sock"),
    slots=16,
    batch_tokens=2048,
    gpu_layers=99,
    threads=2,
)


def value_of(flag: str, line: tuple[str, ...]) -> str:
    return line[line.index(flag) + 1]


def flags_of(line: tuple[str, ...]) -> set[str]:
    return {word for word in line if word.startswith("--")}


def test_an_engine_that_knows_the_required_flags_is_given_all_of_them_and_no_other() -> None:
    assert flags_of(argv(FakeEngine(), PLACEMENT)) == REQUIRED_FLAGS


def test_paths_are_one_word_each() -> None:
    line = argv(FakeEngine(), PLACEMENT)
    assert (value_of("--model", line), value_of("--host", line)) == ("/models/a b.gguf", "/run/r.sock")


def test_threads_are_the_engine_s_choice_unless_given() -> None:
    assert value_of("--threads", argv(FakeEngine(), PLACEMENT)) == "2"
    assert "--threads" not in argv(FakeEngine(), replace(PLACEMENT, threads=None))


def test_devices_are_the_engine_s_choice_unless_given() -> None:
    assert not {"--device", "--tensor-split"} & flags_of(argv(FakeEngine(), PLACEMENT))
    one = argv(FakeEngine(), replace(PLACEMENT, devices=("CUDA1",)))
    assert value_of("--device", one) == "CUDA1"
    assert "--tensor-split" not in one
    two = argv(FakeEngine(), replace(PLACEMENT, devices=("CUDA0", "CUDA1"), tensor_split=(0.25, 0.75)))
    assert (value_of("--device", two), value_of("--tensor-split", two)) == ("CUDA0,CUDA1", "0.25,0.75")


def test_what_a_model_needs_is_on_its_line_or_an_engine_that_lacks_it_is_refused() -> None:
    scaling = RopeScaling(type="yarn", freq_scale=0.25)
    own = replace(PLACEMENT, pooling="last", lora=Path("/models/l.gguf"), rope_scaling=scaling)
    newer = FakeEngine(REQUIRED_FLAGS | {"--lora", "--rope-scaling", "--rope-freq-scale"})
    line = argv(newer, own)
    flags = ("--pooling", "--lora", "--rope-scaling", "--rope-freq-scale")
    assert [value_of(flag, line) for flag in flags] == ["last", "/models/l.gguf", "yarn", "0.25"]
    with pytest.raises(EngineError, match="retrieval: this llama-server has no --lora, which the model needs"):
        argv(FakeEngine(), own)


def test_images_are_computed_where_the_model_is_and_only_by_an_engine_that_pools_them() -> None:
    taking = replace(PLACEMENT, mmproj=Path("/models/m.gguf"), media_marker="<image>")
    with pytest.raises(EngineError, match="retrieval: this llama-server has no --mmproj"):
        argv(FakeEngine(), taking)
    flags = ("--mmproj", "--pool-media", "--image-min-tokens", "--image-max-tokens", "--no-warmup")
    where = ("--mmproj-device", "--no-mmproj-offload")
    engine = FakeEngine(REQUIRED_FLAGS | set(flags) | set(where))
    line = argv(engine, taking)
    assert flags_of(line) == REQUIRED_FLAGS | set(flags)
    assert [value_of(flag, line) for flag in (flags[0], *flags[2:4])] == ["/models/m.gguf", "4", "768"]
    assert value_of("--mmproj-device", argv(engine, replace(taking, devices=("CUDA1", "CUDA2")))) == "CUDA1"
    assert "--no-mmproj-offload" in argv(engine, replace(taking, gpu_layers=0))
    assert media_environment(taking) == {"LLAMA_MEDIA_MARKER": "<image>"}
    assert media_environment(PLACEMENT) == {}


@given(slots=st.integers(1, 256), tokens=st.integers(1, 131_072))
def test_a_text_as_long_as_the_batch_is_computed_whole_beside_one_that_is_not_cleared_yet(
    slots: int, tokens: int
) -> None:
    line = argv(FakeEngine(), replace(PLACEMENT, slots=slots, batch_tokens=tokens))
    assert value_of("--batch-size", line) == value_of("--ubatch-size", line)
    batch = int(value_of("--ubatch-size", line))
    assert tokens <= batch < tokens + slots
    assert batch % slots == 0, "else llama-server aborts at its start if it pools by the mean"
    assert int(value_of("--ctx-size", line)) == 2 * batch + 256
    assert value_of("--parallel", line) == str(slots)
    assert "--kv-unified" in line
    assert value_of("--cache-ram", line) == "1"


async def test_a_batch_that_is_no_multiple_of_the_slots_is_computed(tmp_path: Path, engine_kind: str) -> None:
    model = write_model(tmp_path / "m.gguf", architecture="eurobert")
    async with llama_server(model, engine=engine_kind, slots=7, batch_tokens=100) as server:
        assert (await server.embed([[5] * 100])).shape == (1, 64)


@pytest.mark.parametrize(
    ("known", "added"),
    [
        ({"--fit"}, ("--fit", "off")),
        ({"--no-ui", "--no-webui"}, ("--no-ui",)),
        ({"--no-webui"}, ("--no-webui",)),
        ({"--no-logits-for-embeddings"}, ("--no-logits-for-embeddings",)),
    ],
)
def test_a_flag_that_some_engines_lack_is_given_to_those_that_know_it(known: set[str], added: tuple[str, ...]) -> None:
    plain = argv(FakeEngine(), PLACEMENT)
    assert argv(FakeEngine(REQUIRED_FLAGS | known), PLACEMENT) == (*plain, *added)


def test_the_environment_brings_no_flags_but_keeps_what_chooses_the_gpu() -> None:
    inherited = {
        "LLAMA_ARG_MODEL": "other.gguf",
        "LLAMA_API_KEY": "secret",
        "LLAMA_SERVER_ROUTER_PORT": "1",
        "CUDA_VISIBLE_DEVICES": "1",
        "GGML_NO_BACKTRACE": "",
    }
    assert environment(inherited) == {
        "CUDA_VISIBLE_DEVICES": "1",
        "GGML_NO_BACKTRACE": "1",
        "OMP_WAIT_POLICY": "passive",
    }


def test_the_user_may_choose_how_threads_wait() -> None:
    assert environment({"OMP_WAIT_POLICY": "active"})["OMP_WAIT_POLICY"] == "active"


def test_cleaning_an_environment_twice_changes_nothing() -> None:
    once = environment({"LLAMA_ARG_MODEL": "other.gguf", "PATH": "/bin"})
    assert environment(once) == once


@pytest.mark.parametrize(
    "flag",
    [
        "--no-cache-idle-slots",  # the guard against trap T2
        "--cache-type-k",
        "--override-kv",
        "--rope-freq-base",
        "--override-tensor",
        "-nkvo",
        "--tensor-split",
        "--rpc",
        "--log-verbose",
        "--log-prompts-dir",
        "--embd-gemma-default",
        "--tools",
        "--mmproj-device",
        "--pool-media",
        "--port=1",
    ],
)
def test_what_would_change_vectors_placement_or_privacy_is_not_the_user_s_to_set(flag: str) -> None:
    with pytest.raises(ConfigError, match="is set by trillama itself"):
        check_extra((flag, "x"), frozenset({flag}))


def test_how_threads_are_placed_is_the_user_s_to_set() -> None:
    check_extra(("--numa", "distribute", "--prio", "-1"), frozenset({"--numa", "--prio"}))
    with pytest.raises(ConfigError, match="has no --nume"):
        check_extra(("--nume", "x"), frozenset({"--numa"}))
