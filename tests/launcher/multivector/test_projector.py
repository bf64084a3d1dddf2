"""`trillama models pull --multivector`: a few tensors out of a synthetic checkpoint on a hub on loopback."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.conversion.safetensors import as_float32
from launcher.errors import ModelError
from launcher.multivector.lora import LoraConfig, config_of, merged
from launcher.settings.family import MultiVectorSource
from tests.support.servers.stack import FAMILY_FILE
from tests.support.sources.checkpoint import ALPHA, RANK, SHARDS, Checkpoint, checkpoint
from tests.support.sources.hub import COMMIT, TOKEN
from tests.support.sources.place import BACKENDS, Place

LAYOUT = MultiVectorSource.model_validate(tomllib.loads(FAMILY_FILE.read_text(encoding="utf-8"))["multivector"])
WIDTH = 64
PULL = ("pull", "--multivector")


@pytest.fixture
def original(place: Place) -> Checkpoint:
    """The original model, on the hub."""
    one = checkpoint(LAYOUT, WIDTH)
    one.put(place.hub)
    return one


def kept(place: Place) -> Path:
    return place.home / "trillama" / "multivector" / "jina-embeddings-v4.npz"


def test_pull_merges_each_task_as_numpy_does_and_reads_no_byte_that_it_does_not_need(
    place: Place, original: Checkpoint
) -> None:
    done = place.models(*PULL)

    assert done.code == 0, done.err
    assert done.out == f"multivector: {kept(place)}\n"
    assert done.err.count("CC BY-NC 4.0") == 1
    with np.load(kept(place), allow_pickle=False) as file:
        found = dict(file)
    about = json.loads(str(found.pop("about")))
    assert found.keys() == {"bias", *(f"weight.{task}" for task in BACKENDS)}
    assert {values.dtype for values in found.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(found["bias"], original.bias)
    for task, (a, b) in original.lora.items():
        exact = original.weight.astype(np.float64) + ALPHA / RANK * (b.astype(np.float64) @ a.astype(np.float64))
        np.testing.assert_allclose(found[f"weight.{task}"], exact, rtol=1e-5, atol=1e-5)
    assert (about["repo"], about["commit"], about["lora_scale"]) == (LAYOUT.repo, COMMIT, ALPHA / RANK)
    assert len(about["tensors_sha256"]) == 2 + 2 * len(BACKENDS)
    assert set(about["files"]) == {
        *(LAYOUT.index, LAYOUT.adapter, LAYOUT.adapter_config),
        f"model-00002-of-{SHARDS:05}.safetensors",
    }
    assert place.hub.sent_bytes == original.needed_bytes
    assert all(request.range for request in place.hub.downloads())


def test_the_hub_redirects_to_another_host_which_does_not_get_the_token(place: Place, original: Checkpoint) -> None:
    place.hub.gated = place.hub.elsewhere = True

    done = place.models(*PULL, HF_TOKEN=TOKEN)

    assert done.code == 0, done.err
    there = [request for request in place.hub.requests if request.path.startswith("/elsewhere/")]
    assert {(request.method, request.token) for request in there} == {("GET", None)}
    assert place.hub.sent_bytes == original.needed_bytes


def test_what_is_here_needs_no_network_and_what_is_damaged_is_fetched_again(place: Place, original: Checkpoint) -> None:
    assert place.models(*PULL).code == 0
    whole, asked = kept(place).read_bytes(), len(place.hub.requests)
    again = place.models(*PULL)
    assert (again.code, again.err, len(place.hub.requests)) == (0, "", asked)

    kept(place).write_bytes(whole[:-1000])
    assert place.models(*PULL).code == 0
    assert kept(place).read_bytes()[:1000] == whole[:1000]
    assert [path.name for path in kept(place).parent.iterdir()] == [kept(place).name]


def _without(one: Checkpoint, task: str) -> None:
    del one.lora[task]


def _turned(one: Checkpoint) -> None:
    one.weight = np.ascontiguousarray(one.weight.T)


def _infinite(one: Checkpoint) -> None:
    one.bias[3] = np.inf


SPOILT: list[tuple[Callable[[Checkpoint], object], str]] = [
    (lambda one: _without(one, "code"), f"{LAYOUT.adapter} of {LAYOUT.repo} has no tensor base_model.model.multi_"),
    (_turned, f"{LAYOUT.weight} has the shape (64, 128), the family (128, 64)"),
    (_infinite, "not finite"),
    (lambda one: one.config.update(r=5), "rank 5 of a layer (128, 64) needs"),
    (lambda one: one.config.update(use_dora=True), "use_dora is set, which the merge does not support"),
    (lambda one: one.config.pop("r"), f"{LAYOUT.adapter_config} of {LAYOUT.repo}: r: Field required"),
    (lambda one: setattr(one, "layout", LAYOUT.model_copy(update={"bias": "projector.b"})), "has no tensor multi_v"),
    (lambda one: setattr(one, "layout", LAYOUT.model_copy(update={"index": "i.json"})), "has no file model.safe"),
]


@pytest.mark.parametrize(("spoil", "said"), SPOILT)
def test_a_checkpoint_of_another_layout_is_refused_by_what_is_not_there(
    place: Place, original: Checkpoint, spoil: Callable[[Checkpoint], object], said: str
) -> None:
    place.hub.files = {name: content for name, content in place.hub.files.items() if not name.startswith(LAYOUT.repo)}
    spoil(original)
    original.put(place.hub)

    done = place.models(*PULL)

    assert (done.code, kept(place).exists()) == (66, False)
    assert said in done.err


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"no_ranges": True}, "127.0.0.1 ignores HTTP Range and would send all "),
        ({"lost_bytes": 1}, "start again"),
        ({"cut_after": 4}, "check the network and try again"),
        ({"gated": True}, f"accept the licence at http://127.0.0.1:PORT/{LAYOUT.repo}, and set HF_TOKEN"),
    ],
)
def test_a_hub_that_does_not_give_what_was_asked_for_is_named_and_nothing_is_kept(
    place: Place, original: Checkpoint, fault: dict[str, object], said: str
) -> None:
    for name, value in fault.items():
        setattr(place.hub, name, value)

    done = place.models(*PULL)

    assert (done.code, kept(place).exists()) == (75 if "cut_after" in fault else 66, False)
    assert said.replace("http://127.0.0.1:PORT", place.hub.url)[:60] in done.err


def test_bytes_that_are_no_safetensors_file_are_refused(place: Place, original: Checkpoint) -> None:
    for content, said in ((b"\xff" * 64, "its header would have 18446744073709551615 bytes"), (b"", "damaged")):
        place.hub.add(LAYOUT.repo, LAYOUT.adapter, content)
        done = place.models(*PULL)
        assert done.code == 66
        assert said in done.err


def test_offline_it_says_what_forbids_it(place: Place, original: Checkpoint) -> None:
    done = place.models(*PULL, HF_HUB_OFFLINE="1")
    assert (done.code, place.hub.requests) == (66, [])
    assert "HF_HUB_OFFLINE forbids to read it: unset HF_HUB_OFFLINE for this one command" in done.err


def test_it_fetches_no_model_and_so_takes_none(place: Place) -> None:
    done = place.models("pull", "Q8_0", "--multivector")
    assert (done.code, "--multivector downloads no model" in done.err) == (2, True)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1))
def test_bf16_is_the_upper_half_of_a_float32(values: list[float]) -> None:
    exact = np.array(values, dtype=np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    content = (exact >> 16).astype("<u2").tobytes()
    assert as_float32(content, "BF16").tobytes() == exact.tobytes()
    assert as_float32(np.array(values, "<f4").tobytes(), "F32").tolist() == np.array(values, "f4").tolist()


def test_the_scale_is_alpha_by_rank_or_by_its_root() -> None:
    assert LoraConfig(r=16, lora_alpha=32).scale == 2
    assert LoraConfig(r=16, lora_alpha=32, use_rslora=True).scale == 8


def test_a_merge_of_shapes_that_do_not_fit_is_refused() -> None:
    zero = np.zeros((4, 4), np.float32)
    with pytest.raises(ModelError, match=r"the family file names the wrong tensors"):
        merged(zero, zero[:2], zero, LoraConfig(r=2, lora_alpha=2), "x")
    with pytest.raises(ModelError, match="no LoRA adapter that we support"):
        config_of(b"[]", "adapter_config.json")
