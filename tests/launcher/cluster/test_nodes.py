"""Which nodes serve, and how many: the decisions of a cluster, without one."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from launcher.cluster.nodes import (
    HostReport,
    HostReports,
    HostTable,
    QueuedTokensPolicy,
    agree,
    listed_nodes,
    next_spaces,
    node_verdicts,
)

OLD, NEW = {"retrieval": "aa (Q8_0)", "code": "ab (Q8_0)"}, {"retrieval": "ba (Q4_K_M)", "code": "bb (Q4_K_M)"}


def node(host: str, spaces: dict[str, str], revision: int = 1, *, ready: bool = True) -> HostReport:
    return HostReport(host=host, pid=1, url=f"http://{host}:1", spaces=spaces, revision=revision, ready=ready)


def test_the_first_ready_node_pins_the_spaces() -> None:
    assert next_spaces({}, {}, [node("a", NEW, ready=False), node("b", OLD)], None) == OLD


def test_what_cluster_toml_asks_for_never_moves() -> None:
    assert next_spaces(OLD, OLD, [node("a", NEW, 2), node("b", NEW, 2)], 2) == OLD


def test_a_node_that_was_not_rolled_moves_nothing() -> None:
    reports = [node("a", NEW), node("b", NEW), node("c", OLD)]
    assert next_spaces(OLD, {}, reports, 2) == OLD
    assert next_spaces(OLD, {}, reports, None) == OLD


def test_without_a_roll_nothing_moves_even_if_nobody_serves() -> None:
    assert next_spaces(OLD, {}, [node("a", NEW)], None) == OLD


def test_a_roll_moves_the_spaces_once_as_many_nodes_have_the_new_ones() -> None:
    old = [node(name, OLD) for name in "cd"]
    assert next_spaces(OLD, {}, [node("a", NEW, 2), *old], 2) == OLD
    assert next_spaces(OLD, {}, [node("a", NEW, 2), node("b", NEW, 2), *old], 2) == NEW


def test_two_hosts_are_never_without_a_serving_node() -> None:
    assert next_spaces(OLD, {}, [node("a", NEW, 2), node("b", OLD)], 2) == NEW


def test_a_backend_on_demand_agrees_until_its_space_is_known() -> None:
    unknown = {**OLD, "code": "unknown ()"}
    assert agree(unknown, OLD)
    assert next_spaces({}, {}, [node("a", unknown)], None) == {"retrieval": OLD["retrieval"]}
    assert next_spaces({"retrieval": OLD["retrieval"]}, {}, [node("a", OLD)], None) == OLD


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.sampled_from([0, 1]), st.booleans()), max_size=6))
def test_the_served_nodes_always_agree(rows: list[tuple[int, int, bool]]) -> None:
    reports = [node(str(n), (OLD, NEW)[kind], rev, ready=ready) for n, (rev, kind, ready) in enumerate(rows)]
    pinned = next_spaces(OLD, {}, reports, 2)
    served = listed_nodes({}, HostReports(nodes=tuple((one, 0) for one in reports), complete=True), pinned, ())
    assert len({str(one.spaces) for one in reports if one.host in served}) <= 1


def test_a_refused_node_has_the_reason() -> None:
    (verdict,) = node_verdicts([(node("a", NEW), 0)], OLD, ())
    assert verdict.reason == "other vector space: retrieval ba (Q4_K_M), the cluster serves aa (Q8_0)"


def test_drained_and_starting_nodes_have_their_reasons() -> None:
    starting = HostReport(host="b", pid=1, revision=1)
    assert [one.reason for one in node_verdicts([(node("a", OLD), 0), (starting, 0)], OLD, {"a"})] == [
        "drained",
        "it starts",
    ]


def test_nodes_stay_listed_until_each_had_the_time_to_report() -> None:
    before, reports = {"a": "http://a:1", "b": "http://b:1"}, ((node("a", OLD), 0),)
    assert listed_nodes(before, HostReports(nodes=reports), OLD, ()).keys() == {"a", "b"}
    assert listed_nodes(before, HostReports(nodes=reports, complete=True), OLD, ()).keys() == {"a"}
    assert listed_nodes(before, HostReports(nodes=reports), OLD, {"b"}).keys() == {"a"}


def test_a_node_that_was_started_again_is_counted_and_only_its_own_end_removes_it() -> None:
    table = HostTable()
    for pid in (1, 2):
        table.report(HostReport(host="a", pid=pid, revision=1))
    assert [(one.pid, restarts) for one, restarts in table.nodes().nodes] == [(2, 1)]
    table.leave("a", 1)
    assert len(table.nodes().nodes) == 1
    table.leave("a", 2)
    assert table.nodes().nodes == ()


@dataclass
class Facts:
    """Of Ray's context, what the policy reads."""

    current_num_replicas: int
    aggregated_metrics: dict[str, dict[object, float]] = field(default_factory=dict)


def test_nodes_are_added_for_tokens_that_take_too_long() -> None:
    facts = Facts(2, {"queued_tokens": {"a": 90_000.0, "b": 30_000.0}, "tokens_per_s": {"a": 1000.0, "b": 1000.0}})
    assert QueuedTokensPolicy(30.0)(facts)[0] == 4


def test_one_node_is_left_without_a_queue_and_none_is_guessed_without_a_speed() -> None:
    idle = Facts(3, {"queued_tokens": {"a": 0.0}, "tokens_per_s": {"a": 1000.0}})
    assert QueuedTokensPolicy(30.0)(idle)[0] == 1
    assert QueuedTokensPolicy(30.0)(Facts(3))[0] == 3
