"""Which host does which part, and what becomes of those of a host that is lost."""

from hypothesis import given
from hypothesis import strategies as st

from launcher.corpus.display import JobProgress
from launcher.corpus.on_hosts.board import PartBoard
from proxy.bulk.ledger import RowRange

PARTS = [RowRange(source, start, start + 10) for source in range(2) for start in range(0, 50, 10)]
BEGUN = JobProgress(rows_done=10, error_rows=1, hosts=0)


def board() -> PartBoard:
    """Of two inputs with five parts each, the first of which is done."""
    made = PartBoard([50, 50], PARTS[:1], BEGUN)
    for worker in ("a", "b"):
        made.enter(worker)
    return made


def wrote(rows: int, errors: int = 0) -> JobProgress:
    return JobProgress(rows_done=rows, error_rows=errors, texts=rows, in_flight=1, limit=4)


def test_a_part_is_given_once_and_never_if_it_is_done() -> None:
    made = board()
    assert not made.take("a", PARTS[0])
    assert made.take("a", PARTS[1])
    assert not made.take("b", PARTS[1])
    assert made.view().rows_left == 80


def test_an_input_is_read_while_it_has_parts_to_give() -> None:
    made = board()
    for part in PARTS[:5]:
        made.take("a", part)
    assert (made.left(0), made.left(1)) == (False, True)


def test_what_a_lost_worker_had_is_given_to_others_and_it_may_not_write_it() -> None:
    made = board()
    made.take("a", PARTS[1])
    made.take("a", PARTS[2])
    made.finish("a", PARTS[1], wrote(10))
    made.leave("a")
    assert not made.holds("a", PARTS[2])
    assert not made.take("b", PARTS[1])
    assert made.take("b", PARTS[2])
    assert made.holds("b", PARTS[2])
    assert not made.take("a", PARTS[3])


def test_figures_are_of_all_workers_and_those_of_now_of_who_works() -> None:
    made = board()
    made.take("a", PARTS[1])
    made.finish("a", PARTS[1], wrote(10, errors=2))
    assert not made.report("b", wrote(20))
    made.leave("a")
    progress = made.view().progress
    assert (progress.rows_done, progress.error_rows, progress.texts) == (40, 3, 30)
    assert (progress.in_flight, progress.limit, progress.hosts) == (1, 4, 1)


def test_after_a_stop_nothing_is_given_and_what_is_in_work_may_be_written() -> None:
    made = board()
    made.take("a", PARTS[1])
    made.stop()
    assert made.report("a", wrote(0))
    assert not made.left(1)
    assert not made.take("a", PARTS[2])
    assert made.holds("a", PARTS[1])


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(PARTS), st.sampled_from(("take", "finish", "leave")))))
def test_no_part_is_done_twice_and_none_is_forgotten(steps: list[tuple[str, RowRange, str]]) -> None:
    made, holder, done = board(), dict[RowRange, str](), {PARTS[0]}
    for worker, part, step in steps:
        if step == "take":
            made.enter(worker)
            if made.take(worker, part):
                assert part not in done
                assert part not in holder
                holder[part] = worker
        elif step == "finish" and made.holds(worker, part):
            made.finish(worker, part, wrote(0))
            assert holder.pop(part) == worker
            done.add(part)
        elif step == "leave":
            made.leave(worker)
            holder = {part: one for part, one in holder.items() if one != worker}
        assert made.view().rows_left == 100 - 10 * len(done | holder.keys())
