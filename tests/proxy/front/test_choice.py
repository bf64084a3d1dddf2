"""The node for a piece: the one that would be done first, the same one for the same short text."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.front.choice import PATIENCE, NodeLoad, at_once, choose, waiting_of_others

LOADS = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(
        NodeLoad,
        in_flight=st.integers(0, 10**6),
        others=st.integers(0, 10**6),
        tokens_per_s=st.sampled_from([0.0, 100.0, 5000.0]),
    ),
    min_size=1,
)


def load(in_flight: int = 0, others: int = 0, tokens_per_s: float = 1000.0) -> NodeLoad:
    return NodeLoad(in_flight=in_flight, others=others, tokens_per_s=tokens_per_s)


def test_the_node_that_is_done_first_is_chosen() -> None:
    assert choose({"a": load(100), "b": load(50)}, 10, b"") == "b"
    assert choose({"a": load(100, tokens_per_s=5000), "b": load(50)}, 10, b"") == "a"
    assert choose({"a": load(0, others=100), "b": load(50)}, 10, b"") == "b"


def test_a_node_of_unknown_speed_counts_as_the_others() -> None:
    assert choose({"a": load(100, tokens_per_s=0), "b": load(200, tokens_per_s=5000)}, 10, b"") == "a"


def test_idle_nodes_share_the_keys() -> None:
    nodes = {name: load() for name in "abcd"}
    counted = Counter(choose(nodes, 10, str(key).encode()) for key in range(400))
    assert min(counted.values()) > 50


def test_a_key_keeps_its_node_when_another_leaves() -> None:
    nodes = {name: load() for name in "abcd"}
    for key in map(str.encode, map(str, range(100))):
        before = choose(nodes, 10, key, cached=True)
        without = {name: one for name, one in nodes.items() if name != "d"}
        assert choose(without, 10, key, cached=True) == before or before == "d"


@settings(max_examples=40)
@given(LOADS, st.integers(1, 1000), st.binary(max_size=9))
def test_what_may_be_cached_goes_to_its_node_unless_that_takes_much_longer(
    loads: dict[str, NodeLoad], tokens: int, key: bytes
) -> None:
    idle = {name: load() for name in loads}
    first, chosen = choose(idle, tokens, key, cached=True), choose(loads, tokens, key, cached=True)
    speeds = [one.tokens_per_s for one in loads.values() if one.tokens_per_s]
    typical = sum(speeds) / len(speeds) if speeds else 1000.0
    seconds = {
        name: (one.in_flight + one.others + tokens) / (one.tokens_per_s or typical) for name, one in loads.items()
    }
    assert chosen == first or seconds[first] > PATIENCE * min(seconds.values())
    assert seconds[chosen] <= PATIENCE * min(seconds.values())


def test_a_request_never_occupies_more_than_two_pieces_per_node() -> None:
    assert [at_once(nodes) for nodes in (0, 1, 4)] == [2, 2, 8]


def test_what_others_sent_is_what_waits_beyond_our_own() -> None:
    assert waiting_of_others(500, 200) == 300
    assert waiting_of_others(100, 200) == 0
