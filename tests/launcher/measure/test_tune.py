"""`trillama tune`: the search, what is dropped, and the profile that the next start uses or leaves out."""

import json
import tempfile
import time
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from launcher.engine import profile
from launcher.engine.devices import without_gpus
from launcher.engine.discovery import Engine, Origin
from launcher.engine.profile import Profile, apply_saved
from launcher.errors import ChildError
from launcher.measure.loadgen import LENGTHS
from launcher.measure.tune import Bench, Measured, Setting, axes, gain, search, smaller_batches
from launcher.settings.config import EngineSettings, load
from launcher.supervision.standalone import Standalone
from tests.support.engines.engine import found_engine
from tests.support.models.tiny_models import write_model
from tests.support.servers.serve import trillama_serve
from tests.support.servers.stack import BATCH_TOKENS, small_host
from tests.support.servers.trillama import commands

FIRST = Setting(slots=16, batch_tokens=1024, threads=None, flash_attention="auto")
WAYS = axes(FIRST, physical=4, usable=8)
FOREVER = time.monotonic() + 1e6


class Speeds:
    """A machine whose speed is a function of the setting; `noise` are factors of its first measurements."""

    def __init__(self, speeds: Mapping[Setting, float], noise: tuple[float, ...] = ()) -> None:
        self._speeds = speeds
        self._noise = list(noise)

    async def measure(self, setting: Setting) -> Measured:
        speed = self._speeds.get(setting, 100.0) * (self._noise.pop(0) if self._noise else 1.0)
        if speed < 0:
            return Measured(setting=setting, tokens_per_s={"short": -speed}, dropped="wrong vectors")
        return Measured(setting=setting, tokens_per_s={"short": speed})


async def test_each_axis_is_searched_from_the_best_so_far() -> None:
    eight = replace(FIRST, slots=8)
    speeds = {eight: 150.0, replace(eight, flash_attention="off"): 200.0}
    found = await search(FIRST, WAYS, Speeds(speeds).measure, FOREVER)
    assert found.best.setting == replace(eight, flash_attention="off")
    assert found.left_out == ()
    assert found.measured[0].setting == FIRST


async def test_the_fastest_is_not_taken_if_its_vectors_are_wrong() -> None:
    found = await search(FIRST, WAYS, Speeds({replace(FIRST, slots=8): -900.0}).measure, FOREVER)
    assert found.best.setting == FIRST


async def test_a_slow_first_measurement_is_not_a_gain_of_the_second() -> None:
    found = await search(FIRST, WAYS, Speeds({}, noise=(0.3,)).measure, FOREVER)
    assert found.best.setting == FIRST
    assert found.best.tokens_per_s == {"short": 100.0}


async def test_when_the_time_is_up_the_rest_is_named() -> None:
    found = await search(FIRST, WAYS, Speeds({}).measure, until_s=0)
    assert len(found.measured) == 1
    assert len(found.left_out) == sum(map(len, WAYS)) == 4 + 2 + 2


async def test_settings_that_do_not_work_at_all_are_an_error() -> None:
    with pytest.raises(ChildError, match="wrong vectors"):
        await search(FIRST, WAYS, Speeds({FIRST: -1.0}).measure, FOREVER)


@given(st.dictionaries(st.sampled_from([one for way in WAYS for one in way]), st.floats(1, 1000)))
async def test_the_best_is_never_slower_than_the_first(speeds: dict[Setting, float]) -> None:
    found = await search(FIRST, WAYS, Speeds(speeds).measure, FOREVER)
    assert gain(found.best, found.measured[0]) >= 1
    assert all(gain(one, found.best) <= 1.07 for one in found.measured)  # what is nearly as fast may stay untaken


def test_a_batch_that_is_smaller_than_promised_is_advice_only() -> None:
    assert [one.batch_tokens for one in smaller_batches(FIRST)] == [512]
    assert all(one.batch_tokens == 1024 for way in WAYS for one in way)
    assert axes(FIRST, physical=2, usable=2)[2] == ()


async def test_vectors_of_another_model_are_dropped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGS_DIRECTORY", str(tmp_path))
    model = write_model(tmp_path / "m.gguf")
    run = Standalone(
        log="tune.log",
        engine=await found_engine("embedded"),
        policy=load(None).host.supervision,
        runtime=Path(tempfile.gettempdir()),  # a socket's path is short
        slots=4,
        batch_tokens=256,
        gpu_layers=0,
        threads=2,
    )
    bench = Bench(run, model, seed=1, kind_s=0.01)
    setting = Setting(slots=4, batch_tokens=256, threads=2, flash_attention="auto")
    first = await bench.measure(setting)
    assert first.dropped == ""
    assert first.worst_cosine == pytest.approx(1, abs=1e-5)
    assert set(first.tokens_per_s) == {"short", "medium", "long", "mixed"}
    other = await bench.measure(replace(setting, slots=1, flash_attention="off"))
    assert (other.dropped, other.worst_cosine > 0.999) == ("", True)
    write_model(model, seed=1)
    assert "not those of the first setting" in (await bench.measure(setting)).dropped


async def test_it_measures_and_the_next_start_uses_it(tmp_path: Path) -> None:
    env = {"TRILLAMA_CACHE": str(tmp_path), "LOGS_DIRECTORY": str(tmp_path)}
    config = small_host(tmp_path)
    with commands(env) as run:
        done = run("tune", "--config", str(config), "--minutes", "0.02", "--write", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    first = {"slots": 16, "batch_tokens": BATCH_TOKENS, "threads": 2, "flash_attention": "auto"}
    assert found["measured"][0]["setting"] == first
    assert found["best"]["worst_cosine"] > 0.999
    assert set(found["best"]["tokens_per_s"]) == set(LENGTHS)
    assert "threads under [engine] stay as they are set" in done.err.replace("\n", " ")
    kept = Profile.model_validate(found["profile"])
    changed = kept.model_copy(update={"slots": 8, "threads": 1, "flash_attention": "off"})
    profile.write_profile(changed, tmp_path / "tune" / "jina-embeddings-v4.toml")
    async with trillama_serve(tomllib.loads(config.read_text(encoding="utf-8")), env=env) as served:
        line = " ".join(served.child("small-retrieval").cmdline())
    assert "--parallel 8" in line
    assert "--flash-attn off" in line
    assert "--threads 2" in line  # the file sets it


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"engine": "built 9"}, "another engine: its result is ignored"),
        ({"machine": "m", "model": "x"}, "another machine and model"),
        ({"max_input_tokens": 99}, "another max_input_tokens"),
    ],
)
def test_a_profile_of_something_else_is_left_out_with_a_line(
    changed: dict[str, object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRILLAMA_CACHE", str(tmp_path))
    model = tmp_path / "m.gguf"
    model.write_bytes(b"x")
    settings = load(None)
    settings = settings.with_host(engine=EngineSettings(gpu_layers=0))
    engine = Engine(argv=("e",), version="1", flags=frozenset(), origin=Origin.BUILT, env={})
    origin = profile.origin_of(settings, engine, without_gpus(), model)
    kept = Profile(
        backend="retrieval",
        date="now",
        origin=origin.model_copy(update=changed),
        slots=3,
        flash_attention="on",
        tokens_per_s={},
    )
    profile.write_profile(kept, profile.profile_path(settings))
    lines: list[str] = []
    found = apply_saved(settings, engine, without_gpus(), {"retrieval": model}, lines.append).host.engine
    assert (found.slots, found.flash_attention) == ((16, "auto") if changed else (3, "on"))
    assert said in " ".join(lines)
    assert bool(lines) == bool(changed)
    assert apply_saved(settings, engine, without_gpus(), {"code": model}, lines.append) == settings


def test_a_damaged_profile_is_left_out_with_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILLAMA_CACHE", str(tmp_path))
    settings = load(None)
    file = profile.profile_path(settings)
    file.parent.mkdir(parents=True)
    file.write_text(tomli_w.dumps({"slots": 3}), encoding="utf-8")
    engine = Engine(argv=("e",), version="1", flags=frozenset(), origin=Origin.BUILT, env={})
    lines: list[str] = []
    assert apply_saved(settings, engine, without_gpus(), {}, lines.append) == settings
    assert "cannot be read and is ignored" in lines[0]
