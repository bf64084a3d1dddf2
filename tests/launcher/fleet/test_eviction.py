"""Starts and evictions: never more than the memory there is, and no backend in use is evicted too soon."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from launcher.fleet.eviction import MIN_RESIDENT_S, Eviction, Resident, plan_eviction

ROOM = {"CUDA0": 10}


def backend(name: str, **changes: object) -> Resident:
    """Asleep, unused, on demand, with half of ROOM."""
    one = Resident(name=name, resident=False, used=False, idle_s=100, up_s=0, memory={"CUDA0": 5}, idle_limit_s=600)
    return replace(one, **changes)  # type: ignore[arg-type] # names of Tenant's fields


def test_a_requested_backend_starts_if_there_is_room() -> None:
    assert plan_eviction([backend("a", used=True), backend("b", resident=True)], ROOM) == Eviction(("a",), ())


def test_two_requested_backends_start_only_if_both_fit() -> None:
    both = [backend("a", used=True), backend("b", used=True)]
    assert plan_eviction(both, ROOM) == Eviction(("a", "b"), ())
    assert plan_eviction(both, {"CUDA0": 9}) == Eviction(("a",), ())


def test_the_least_recently_used_is_evicted() -> None:
    residents = [backend("old", resident=True, idle_s=500), backend("new", resident=True, idle_s=5)]
    assert plan_eviction([*residents, backend("a", used=True)], ROOM) == Eviction((), ("old",))


def test_one_in_use_is_evicted_only_after_its_least_time_and_only_if_no_other_can() -> None:
    busy = backend("busy", resident=True, used=True, idle_s=0, up_s=MIN_RESIDENT_S - 1, memory={"CUDA0": 10})
    wanted = backend("a", used=True)
    assert plan_eviction([busy, wanted], ROOM) == Eviction((), ())
    assert plan_eviction([replace(busy, up_s=MIN_RESIDENT_S), wanted], ROOM) == Eviction((), ("busy",))


def test_one_that_always_runs_never_sleeps() -> None:
    always = backend("always", resident=True, idle_s=1e9, up_s=1e9, idle_limit_s=None, memory={"CUDA0": 10})
    assert plan_eviction([always, backend("a", used=True)], ROOM) == Eviction((), ())


def test_one_that_is_idle_for_its_limit_sleeps() -> None:
    idle = backend("idle", resident=True, idle_s=700, up_s=700)
    assert plan_eviction([idle], {}) == Eviction((), ("idle",))
    assert plan_eviction([replace(idle, up_s=10)], {}) == Eviction((), ())  # just started: its clock starts then
    assert plan_eviction([replace(idle, used=True)], {}) == Eviction((), ())


tenants = st.lists(
    st.builds(
        Resident,
        name=st.uuids().map(str),
        resident=st.booleans(),
        used=st.booleans(),
        idle_s=st.floats(0, 2000),
        up_s=st.floats(0, 2000),
        memory=st.fixed_dictionaries({"CUDA0": st.integers(1, 12)}),
        idle_limit_s=st.none() | st.just(600.0),
    ),
    max_size=6,
)


@given(tenants)
def test_nothing_started_is_over_the_memory_there_is(found: list[Resident]) -> None:
    decision = plan_eviction(found, ROOM)
    resident = [one for one in found if one.resident]
    woken = [one for one in found if one.name in decision.wake]
    if woken:
        assert sum(one.memory["CUDA0"] for one in [*resident, *woken]) <= ROOM["CUDA0"]
    assert all(one.wanted for one in woken)


@given(tenants)
def test_only_residents_that_may_sleep_do(found: list[Resident]) -> None:
    for name in plan_eviction(found, ROOM).sleep:
        (one,) = [other for other in found if other.name == name]
        assert one.resident
        assert one.idle_limit_s is not None
        assert not one.used or one.up_s >= MIN_RESIDENT_S
