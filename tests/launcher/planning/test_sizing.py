"""What the host's settings come to on a machine: kept, filled in, lowered, warned of or refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from launcher.engine.cpu_fallback import adapt_gpu_layers
from launcher.engine.device_list import Device
from launcher.engine.devices import Devices, without_gpus
from launcher.engine.discovery import Engine, Origin
from launcher.errors import ConfigError, NotEnoughMemory
from launcher.planning.memory import GIB
from launcher.planning.request import request_of
from launcher.planning.sizing import Decision, decide, plan_for, save_choices
from launcher.settings.config import Settings, load
from tests.support.models.tiny_models import write_lora, write_model
from tests.support.servers.stack import BACKENDS


def host(quantization: str | None = None, **host: object) -> Settings:
    return load(None, {"models": {"quantization": quantization}, **host})


def devices(*gpus: tuple[float, float], ram: tuple[float, float] = (100, 100)) -> Devices:
    """(free, total) GiB of each."""
    found = [
        Device(name=f"CUDA{i}", description="", free_bytes=round(free * GIB), total_bytes=round(total * GIB))
        for i, (free, total) in enumerate((*gpus, ram))
    ]
    return Devices(gpus=tuple(found[:-1]), ram=found[-1], has_gpu_backend=True)


def decided(settings: Settings, found: Devices) -> Decision:
    request = request_of(settings, frozenset(), BACKENDS)
    assert request
    return plan_for(settings, request, found)


def test_what_fits_is_served_as_it_is_set_without_a_message() -> None:
    settings = host("Q8_0", max_input_tokens=2048)
    decision = decided(settings, devices((24, 24)))
    assert (decision.settings, decision.notes) == (settings, ())
    assert {name: one.devices for name, one in decision.placements.items()} == dict.fromkeys(BACKENDS, ("CUDA0",))


def test_auto_becomes_a_quantisation_and_is_reported() -> None:
    decision = decided(host("auto"), devices((48, 48)))
    assert (decision.settings.host.models.quantization, decision.settings.max_input_tokens) == ("Q8_0", 8192)
    assert decision.notes == ("Q8_0 has the best published quality, within noise, of what fits",)


def test_a_length_that_nobody_set_is_lowered_to_what_fits_and_reported() -> None:
    decision = decided(host(), devices((12, 12)))
    assert decision.settings.max_input_tokens == 1024
    assert decision.settings.host.models.quantization is None  # the family's own, as before
    assert "the longest text is 1024 tokens" in decision.notes[0]


def test_what_the_whole_gpu_cannot_hold_is_refused_before_anything_starts() -> None:
    with pytest.raises(NotEnoughMemory, match=r"Q4_K_M .* CUDA0 2\.0 GiB"):
        decided(host("Q4_K_M"), devices((2, 2)))


def test_what_another_process_holds_may_come_back_so_it_is_a_warning() -> None:
    decision = decided(host("Q8_0", max_input_tokens=2048), devices((3, 24)))
    assert decision.plan
    assert decision.notes[0].startswith("a model may fail to start: retrieval, code, text-matching at Q8_0 with")


def test_too_little_ram_without_a_gpu_is_a_warning_and_changes_nothing() -> None:
    decision = decided(host("auto", max_input_tokens=8192), devices(ram=(1, 2)))
    assert (decision.plan, decision.placements) == (None, {})
    assert decision.settings.host.models.quantization == "Q4_K_M"
    assert decision.notes[0].startswith("memory may run out: ")


def test_the_lora_of_a_backend_counts_with_its_file(tmp_path: Path) -> None:
    lora = write_lora(tmp_path / "lora.gguf", architecture="qwen2vl")
    sizes = [
        {name: of["Q8_0"].file_bytes for name, of in request.weights.items()}
        for loras in ({}, {"code": str(lora)})
        if (request := request_of(load(None, {"models": {"lora_files": loras}}), frozenset(), BACKENDS))
    ]
    assert {name: sizes[1][name] - size for name, size in sizes[0].items()} == {
        "retrieval": 0,
        "code": lora.stat().st_size,
        "text-matching": 0,
    }


def test_a_file_of_the_user_s_own_counts_as_it_is(tmp_path: Path) -> None:
    model = write_model(tmp_path / "own.gguf")
    settings = host(None)
    files = {"models": settings.host.models.model_copy(update={"files": {"code": model}})}
    request = request_of(settings.with_host(**files), frozenset(), ("code",))
    assert request
    assert {one.file_bytes for one in request.weights["code"].values()} == {model.stat().st_size}


def test_the_engine_s_flag_decides_whether_logits_count() -> None:
    for flags, logits in ((frozenset[str](), True), (frozenset({"--no-logits-for-embeddings"}), False)):
        request = request_of(host(), flags, BACKENDS)
        assert request
        assert request.logits is logits


def test_auto_without_any_size_is_the_familys_quantisation_and_stays_it(engine: Engine, tmp_path: Path) -> None:
    settings = without_figures(host("auto"))
    for quantization in ("Q4_K_M", "Q8_0"):
        decision = decide(settings, engine, devices((48, 48)), BACKENDS)
        assert (decision.plan, decision.settings.host.models.quantization) == (None, quantization)
        expected = f'quantization = "auto": {quantization}, because no file\'s size is known before the first download'
        assert decision.notes == (expected,)
        assert save_choices(settings, decision) == ()
        kept = tmp_path / "cache/auto/jina-embeddings-v4.txt"
        assert kept.read_text(encoding="utf-8") == quantization
        kept.write_text("Q8_0", encoding="utf-8")
    named = settings.with_host(models=settings.host.models.model_copy(update={"quantization": None}))
    assert request_of(named, frozenset(), BACKENDS) is None  # unknown sizes are not guessed


def without_figures(settings: Settings) -> Settings:
    changed = settings.family.weights.model_copy(update={"published": None, "shape": None})
    family = settings.family.model_copy(update={"weights": changed})
    return Settings(settings.host, family, settings.family_file)


def test_a_text_is_at_most_what_the_files_take(engine: Engine, tmp_path: Path) -> None:
    model = write_model(tmp_path / "own.gguf", context=300)
    files = {"files": dict.fromkeys(BACKENDS, str(model))}
    settings = load(None, {"models": files, "engine": {"gpu_layers": 0}})
    assert decide(settings, engine, devices(), BACKENDS).settings.max_input_tokens == 300
    with pytest.raises(ConfigError, match="max_input_tokens = 512: the model's file takes texts of 300 tokens"):
        decide(settings.with_host(max_input_tokens=512), engine, devices(), BACKENDS)


def test_demo_models_are_not_planned() -> None:
    engine = Engine(argv=("/nonexistent",), version="", flags=frozenset(), origin=Origin.CONFIGURED, env={})
    settings = load(None, {"demo": True})
    assert decide(settings, engine, without_gpus(), BACKENDS) == Decision(settings=settings, plan=None)


def test_models_that_the_user_lets_take_turns_need_one_place() -> None:
    turns = {"backends": {"code": {"mode": "on-demand"}, "text-matching": {"mode": "on-demand"}}}
    decision = decided(host("Q8_0", max_input_tokens=2048, **turns), devices((12, 12)))
    assert decision.plan
    assert decision.plan.on_demand == ("code", "text-matching")
    assert decision.notes == ()
    longer = decided(host("Q8_0", max_input_tokens=8192, **turns), devices((12, 12)))
    assert longer.plan
    assert longer.plan.on_demand == BACKENDS  # one more than was asked for, and the plan says so
    assert "take turns" in longer.notes[0]


def test_auto_chooses_again_what_it_chose_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILLAMA_CACHE", str(tmp_path))
    engine = Engine(argv=("/bin/false",), version="1", flags=frozenset(), origin=Origin.PATH, env={})
    settings = host("auto", max_input_tokens=512)
    settings = settings.with_host(engine=settings.host.engine.model_copy(update={"gpu_layers": 0}))
    first = decide(settings, engine, without_gpus(), BACKENDS)
    assert first.plan
    assert save_choices(settings, first) == ()
    kept = tmp_path / "auto" / "jina-embeddings-v4.txt"
    assert kept.read_text(encoding="utf-8") == first.plan.quantization == "Q8_0"
    kept.write_text("Q4_K_M", encoding="utf-8")
    again = decide(settings, engine, without_gpus(), BACKENDS)
    assert again.settings.host.models.quantization == "Q4_K_M"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Any engine, and a cache of its own."""
    monkeypatch.setenv("TRILLAMA_CACHE", str(tmp_path / "cache"))
    return Engine(argv=("/bin/false",), version="1", flags=frozenset(), origin=Origin.PATH, env={})


def test_the_longest_text_does_not_depend_on_who_uses_memory_now(engine: Engine) -> None:
    for free in (12, 11, 8, 5):
        for names in (BACKENDS, BACKENDS[:1]):  # one call gets what a server of all serves
            decision = decide(host(), engine, devices((free, 12)), names)
            assert decision.settings.max_input_tokens == 1024
    busy = decide(host(), engine, devices((3, 12)), BACKENDS)
    assert busy.settings.max_input_tokens == 1024
    assert busy.short
    assert "the longest text is 1024 tokens: with 8192 it does not fit" in decision.notes[0] + busy.notes[0]


def test_without_a_gpu_the_longest_text_comes_from_the_ram_there_is(engine: Engine) -> None:
    cpu = host(engine={"gpu_layers": 0})
    lengths = {decide(cpu, engine, devices(ram=(free, 24)), BACKENDS).settings.max_input_tokens for free in (23, 12, 2)}
    assert lengths == {2048}


def test_the_longest_text_is_remembered_until_models_or_machine_are_others(engine: Engine, tmp_path: Path) -> None:
    def length(settings: Settings, total: float) -> int:
        decision = decide(settings, engine, devices((total, total)), BACKENDS)
        assert save_choices(settings, decision) == ()
        return decision.settings.max_input_tokens

    assert length(host(), 12) == 1024
    kept = tmp_path / "cache/auto/jina-embeddings-v4-length.toml"
    kept.write_text(kept.read_text().replace("1024", "512", 1))
    assert length(host(), 12.1) == 512  # a driver's update changes a few MiB
    assert length(host("IQ1_S"), 12.1) == 2048
    assert length(host(), 24) == 4096
    assert length(host(max_input_tokens=700), 24) == 700
    kept.write_text("damaged")
    assert length(host(), 12) == 1024


def test_a_length_that_cannot_be_kept_is_reported(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    decision = decide(host(), engine, devices((12, 12)), BACKENDS)
    (note,) = save_choices(host(), decision)
    assert "cannot be kept" in note
    assert "set max_input_tokens" in note


def test_a_machine_of_one_memory_counts_it_once_and_says_so(engine: Engine) -> None:
    found = devices((60, 60), ram=(38, 40))
    shared = replace(found, gpus=tuple(replace(one, integrated=True) for one in found.gpus))
    apart, together = (decide(host("Q8_0"), engine, one, BACKENDS) for one in (found, shared))
    assert together.settings.max_input_tokens < apart.settings.max_input_tokens == 8192
    assert "RAM too" in together.notes[-1]
    held = decide(host("Q8_0"), engine, replace(shared, ram=replace(shared.ram, free_bytes=0)), BACKENDS)
    assert held.short
    again = decide(host("Q8_0"), engine, held_by_us(shared), BACKENDS, ours={"CUDA0": 60 * GIB})
    assert again.plan
    assert not again.short


def held_by_us(found: Devices) -> Devices:
    """The same with nothing free."""
    gpus = tuple(replace(one, free_bytes=0) for one in found.gpus)
    return replace(found, gpus=gpus, ram=replace(found.ram, free_bytes=0))


def test_layers_are_asked_only_of_an_engine_that_has_code_for_a_gpu() -> None:
    bare = replace(without_gpus(), listed=True)
    assert adapt_gpu_layers(host(), bare).host.engine.gpu_layers == 0
    for found in (without_gpus(), replace(bare, has_gpu_backend=True), replace(devices((8, 8)), listed=True)):
        assert adapt_gpu_layers(host(), found).host.engine.gpu_layers == 99
