"""All nodes of a Front are in one vector space for each backend."""

from proxy.front.spaces import UNKNOWN_SPACE, Space, conflict, repinned

Q8, Q4 = Space("space-of-q8", "Q8_0"), Space("space-of-q4", "Q4_K_M")


def test_another_space_is_named_by_its_id_and_quantisation() -> None:
    assert conflict({"code": Q8, "retrieval": Q4}, {"retrieval": Q8}) == (
        "other vector space: retrieval space-of-q4 (Q4_K_M), the cluster serves space-of-q8 (Q8_0)"
    )


def test_another_space_of_the_same_quantisation_is_named_by_its_id() -> None:
    assert conflict({"code": Space("x", "Q8_0")}, {"code": Q8}) == (
        "other vector space: code x (Q8_0), the cluster serves space-of-q8 (Q8_0)"
    )
    assert conflict({"code": Q4}, {"code": Space("space-of-q8")}) == (
        "other vector space: code space-of-q4 (Q4_K_M), the cluster serves space-of-q8"
    )


def test_what_is_unknown_contradicts_nothing() -> None:
    assert conflict({"code": Space(UNKNOWN_SPACE)}, {"code": Q8}) is None
    assert conflict({"code": Q8}, {"code": Space(UNKNOWN_SPACE)}) is None
    assert conflict({"code": Q8}, {}) is None


def test_the_first_node_sets_the_spaces() -> None:
    assert repinned({}, {}, [{}, {"code": Q8}], {"code": Q8}) == {"code": Q8}
    assert repinned({}, {}, [], {"code": Space(UNKNOWN_SPACE)}) == {}


def test_a_space_stays_while_a_listed_node_has_it() -> None:
    assert repinned({"code": Q8}, {}, [{"code": Q8}, {"code": Q4}], {"code": Q4}) == {"code": Q8}


def test_a_space_that_no_listed_node_has_is_given_up() -> None:
    assert repinned({"code": Q8}, {}, [{"code": Q4}, {"code": Q4}], {"code": Q4}) == {"code": Q4}


def test_configured_spaces_never_change() -> None:
    pinned = repinned({"code": Space("space-of-q8")}, {"code": "space-of-q8"}, [{"code": Q4}], {"code": Q4})
    assert pinned["code"].id == "space-of-q8"
    assert repinned({}, {"code": "space-of-q8"}, [], {"code": Q8}) == {"code": Q8}
