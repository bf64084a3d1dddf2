"""The plan as properties over any memory, and the choices that it is known by."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.errors import NotEnoughMemory
from launcher.planning.candidates import MIN_TOKENS, DeviceRoom, PlanRequest
from launcher.planning.memory import GIB
from launcher.planning.packing import SPLIT_MARGIN
from launcher.planning.placement import Placement, Plan, place
from launcher.planning.request import request_of
from launcher.planning.shortage import missing_bytes, readable_size
from launcher.settings.config import load

BACKENDS = ("retrieval", "code", "text-matching")
JINA = request_of(load(None), frozenset(), BACKENDS)
assert JINA is not None
AUTO = replace(JINA, quantization=None)

gib = st.floats(0, 40).map(lambda size: round(size * GIB))
rooms = st.builds(
    DeviceRoom, gpus=st.lists(gib, max_size=3).map(lambda sizes: {f"CUDA{i}": s for i, s in enumerate(sizes)}), ram=gib
)
requests = st.builds(
    lambda quantization, tokens, fixed, logits, layers: replace(
        AUTO, quantization=quantization, tokens=tokens, fixed_tokens=fixed, logits=logits, gpu_layers=layers
    ),
    st.sampled_from([None, "F16", "Q8_0", "Q4_K_M", "IQ1_S"]),
    st.sampled_from([100, 512, 1000, 4096, 8192]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 20, 99]),
)


def room(*gpus: float, ram: float = 1000) -> DeviceRoom:
    return DeviceRoom(gpus={f"CUDA{i}": round(size * GIB) for i, size in enumerate(gpus)}, ram=round(ram * GIB))


def planned(plan_request: PlanRequest, room: DeviceRoom) -> Plan | None:
    try:
        return place(plan_request, room)
    except NotEnoughMemory:
        return None


def taken(plan: Plan) -> Mapping[str, float]:
    """The bytes on each device when as much is loaded as ever is."""
    used: Counter[str] = Counter()
    turn: Counter[str] = Counter()  # those that take turns need the most that any of them does
    for one in plan.placed:
        sizes = Counter({"RAM": one.need.ram, **_on_devices(one)})
        if one.on_demand:
            turn |= sizes
        else:
            used += sizes
    return used + turn


def _on_devices(one: Placement) -> dict[str, int]:
    split = one.tensor_split or (1.0,) * len(one.devices)
    margin = SPLIT_MARGIN * one.need.spread if one.tensor_split else 0
    return {
        n: round(one.need.fixed + margin + part * one.need.spread) for n, part in zip(one.devices, split, strict=True)
    }


@given(requests, rooms)
def test_no_plan_exceeds_any_device(plan_request: PlanRequest, room: DeviceRoom) -> None:
    if plan := planned(plan_request, room):
        assert [one.name for one in plan.placed] == list(BACKENDS)
        for name, size in taken(plan).items():
            assert size <= {**room.gpus, "RAM": room.ram}[name] + 10, name


@given(requests, rooms)
def test_what_the_user_has_set_is_never_changed(plan_request: PlanRequest, room: DeviceRoom) -> None:
    if plan := planned(plan_request, room):
        assert plan_request.quantization in (None, plan.quantization)
        assert plan.batch_tokens == plan_request.tokens or not plan_request.fixed_tokens
        assert min(plan_request.tokens, MIN_TOKENS) <= plan.batch_tokens <= plan_request.tokens


@given(requests, rooms, st.dictionaries(st.sampled_from(["CUDA0", "CUDA1", "CUDA2", "RAM"]), gib))
def test_more_memory_never_gives_worse_quality(
    plan_request: PlanRequest, room: DeviceRoom, more: Mapping[str, int]
) -> None:
    larger = DeviceRoom(
        gpus={name: size + more.get(name, 0) for name, size in room.gpus.items()}, ram=room.ram + more.get("RAM", 0)
    )
    before, after = planned(plan_request, room), planned(plan_request, larger)
    if before:
        assert after
        classes = [next(i for i, names in enumerate(AUTO.ranking) if p.quantization in names) for p in (before, after)]
        assert classes[1] <= classes[0]
        if classes[0] == classes[1] and not any(one.tensor_split for one in before.placed):
            assert len(after.on_demand) <= len(before.on_demand)


@given(requests)
def test_an_empty_host_is_refused_with_the_numbers(plan_request: PlanRequest) -> None:
    with pytest.raises(NotEnoughMemory, match=r"take .* GiB of .*RAM, but available are RAM 0\.0 GiB; "):
        place(plan_request, DeviceRoom(gpus={}, ram=0))


@given(requests, rooms)
def test_the_reported_shortage_is_zero_if_and_only_if_it_fits(plan_request: PlanRequest, room: DeviceRoom) -> None:
    assert readable_size(1) == "1 MiB"  # never 0.0 GiB
    for quantization in ("F16", "IQ1_S"):
        alone = replace(plan_request, quantization=quantization, fixed_tokens=True)
        plan = planned(alone, room)
        fits = plan is not None and not plan.on_demand and not any(one.tensor_split for one in plan.placed)
        lacks = missing_bytes(alone, room, quantization)
        assert (lacks == 0) is fits
        if lacks and room.gpus:  # and with that much more of each it does
            more = DeviceRoom(gpus={name: bytes_ + lacks for name, bytes_ in room.gpus.items()}, ram=room.ram + lacks)
            assert missing_bytes(alone, more, quantization) == 0


def test_a_card_with_room_gets_the_fastest_of_the_best_with_the_longest_texts() -> None:
    plan = place(AUTO, room(45))
    assert (plan.quantization, plan.batch_tokens, plan.on_demand) == ("Q8_0", 8192, ())


def test_the_length_gives_way_first_then_what_stays_loaded_and_quality_last() -> None:
    set_ = replace(AUTO, quantization="Q4_K_M")
    assert [(p.batch_tokens, p.on_demand) for p in (place(set_, room(size)) for size in (30, 12, 7, 4))] == [
        (8192, ()),
        (2048, ()),
        (1024, ("code", "text-matching")),
        (2048, BACKENDS),
    ]
    assert place(AUTO, room(4)).quantization in AUTO.ranking[0]
    assert place(AUTO, room(1.9)).quantization not in AUTO.ranking[0]


def test_a_length_that_the_user_set_stays_and_what_would_fit_is_named() -> None:
    plan_request = replace(AUTO, quantization="Q8_0", tokens=8192, fixed_tokens=True)
    with pytest.raises(NotEnoughMemory, match=r"set max_input_tokens = 4096, which would fit"):
        place(plan_request, room(7.3))
    with pytest.raises(NotEnoughMemory, match=r'set quantization = "IQ3_M", which would fit'):
        place(replace(plan_request, tokens=512, quantization="F16"), room(2.6))
    with pytest.raises(NotEnoughMemory, match="use a larger GPU"):
        place(plan_request, room(0.5))


def test_without_a_gpu_everything_is_ram() -> None:
    plan = place(AUTO, room(ram=1000))
    assert [one.devices for one in plan.placed] == [(), (), ()]
    assert all(one.need.vram == 0 for one in plan.placed)


def test_memory_that_the_gpu_shares_with_the_host_is_counted_once() -> None:
    fixed = replace(AUTO, quantization="Q4_K_M", tokens=2048, fixed_tokens=True)
    need = sum(one.need.vram + one.need.ram for one in place(fixed, room(100, ram=100)).placed)
    enough, half = (DeviceRoom(gpus={"Vulkan0": 100 * GIB}, ram=size, unified=True) for size in (need, need // 2))
    assert not place(fixed, enough).on_demand
    assert place(fixed, half).on_demand
    assert not place(fixed, replace(half, unified=False)).on_demand


def test_several_gpus_share_the_models_and_a_model_is_split_only_when_none_holds_it() -> None:
    fixed = replace(AUTO, quantization="Q4_K_M", tokens=2048, fixed_tokens=True)
    assert [one.devices for one in place(fixed, room(4.5, 4.5, 4.5)).placed] == [("CUDA0",), ("CUDA1",), ("CUDA2",)]
    assert [one.devices for one in place(fixed, room(24, 12)).placed] == [("CUDA0",), ("CUDA0",), ("CUDA1",)]
    assert {one.devices for one in place(fixed, room(24, 4.5)).placed} == {("CUDA0",)}  # the other is far slower
    one = replace(fixed, weights={"retrieval": AUTO.weights["retrieval"]}, quantization="F16")
    (whole,) = place(one, room(8, 9)).placed
    assert (whole.devices, whole.tensor_split) == (("CUDA1",), ())
    (split,) = place(one, room(6, 7.5)).placed
    assert split.devices == ("CUDA0", "CUDA1")
    assert sum(split.tensor_split) == pytest.approx(1)
    assert split.tensor_split[0] < split.tensor_split[1]


def test_no_plan_with_images_has_batches_that_an_image_does_not_fit() -> None:
    """Without images a text may be cut down to 512 tokens."""
    named = replace(AUTO, quantization="Q4_K_M")
    rooms = [room(2 + tenths / 10) for tenths in range(40)]
    for of, least in ((named, MIN_TOKENS), (replace(named, encoder_bytes=GIB), 779)):
        assert min(plan.batch_tokens for one in rooms if (plan := planned(of, one))) == least
