"""What is kept of a text that is too long, and what is refused: pure."""

import pytest

from proxy.contract.family import VectorRules
from proxy.embedding import late_chunking, truncation
from proxy.embedding.truncation import MAX_READ, cut_ids
from proxy.faults import Invalid
from proxy.tokens.special import SpecialTokens, special_tokens


@pytest.mark.parametrize(
    ("ids", "special", "kept"),
    [
        ([1, 2, 3, 4, 5, 6], SpecialTokens(), [1, 2, 3, 4]),
        ([9, 2, 3, 4, 5, 6], SpecialTokens(before=(9,)), [9, 2, 3, 4]),
        ([9, 2, 3, 4, 5, 8], SpecialTokens(before=(9,), after=(8,)), [9, 2, 3, 8]),
        ([1, 2, 3, 4, 5, 7, 8], SpecialTokens(after=(7, 8)), [1, 2, 7, 8]),
        ([9, 2, 3, 8], SpecialTokens(before=(9,), after=(8,)), [9, 2, 3, 8]),
    ],
)
def test_the_models_own_tokens_are_kept(ids: list[int], special: SpecialTokens, kept: list[int]) -> None:
    assert list(cut_ids(ids, 4, special)) == kept


@pytest.mark.parametrize(
    ("empty", "text", "found"),
    [
        ([], [5], SpecialTokens()),
        ([1], [1, 5], SpecialTokens(before=(1,))),
        ([2], [5, 2], SpecialTokens(after=(2,))),
        ([1, 2], [1, 5, 6, 2], SpecialTokens(before=(1,), after=(2,))),
        ([1, 1], [1, 5, 1], SpecialTokens(before=(1,), after=(1,))),
    ],
)
def test_special_tokens_are_what_an_empty_text_has(empty: list[int], text: list[int], found: SpecialTokens) -> None:
    assert special_tokens(empty, text) == found


@pytest.mark.parametrize(("empty", "text"), [([1, 2], [1, 5, 3]), ([5], [5]), ([1, 2], [2])])
def test_tokens_that_are_not_around_every_text_are_an_error(empty: list[int], text: list[int]) -> None:
    with pytest.raises(ValueError, match="an empty text has the tokens"):
        special_tokens(empty, text)


def test_a_text_whose_tokens_have_no_bound_is_read_to_a_length_of_its_own() -> None:
    assert truncation.huge({0: "x" * MAX_READ, 1: "x" * (MAX_READ + 1)}, 512, None) == {1: f"{MAX_READ + 1} characters"}
    assert truncation.huge({0: "x" * 6000}, 16, 70) == {0: "more than 85 tokens"}


@pytest.mark.parametrize(
    ("rules", "has_states", "reason"),
    [
        (VectorRules(), False, None),
        (VectorRules(causal=False), True, None),
        (VectorRules(causal=False), False, "this model's tokens see the whole text: set token_level = true"),
        (VectorRules(pooling="last"), True, "the state of the last token"),
        (VectorRules(pooling="cls", causal=False), True, "the state of the first token"),
    ],
)
def test_late_chunking_is_for_means_that_can_be_computed(
    rules: VectorRules, has_states: bool, reason: str | None
) -> None:
    if reason is None:
        late_chunking.check_possible(rules, has_states=has_states)
    else:
        with pytest.raises(Invalid, match=reason):
            late_chunking.check_possible(rules, has_states=has_states)
