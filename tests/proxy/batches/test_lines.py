"""What one line may be is bounded before it is computed."""

from pathlib import Path

import orjson

from proxy.batches.lines import BatchLine, LineFault, LineRules, parts_to_do

RULES = LineRules(max_bytes=10**6, items=2048, dimensions=64, answer_bytes=2**16)


def lines_of(path: Path, *bodies: dict[str, object]) -> list[BatchLine]:
    path.write_bytes(b"\n".join(orjson.dumps({"custom_id": str(n), "body": one}) for n, one in enumerate(bodies)))
    return [line for part, _ in parts_to_do(path, set(), RULES) for line in part.lines]


def test_a_line_whose_vectors_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    many, long = ["text"] * 256, "x" * 128
    lines = lines_of(
        tmp_path / "input.jsonl",
        {"input": many},
        {"input": [*many, "one more"]},
        {"input": long, "return_multivector": True},
        {"input": [long, "x"], "return_multivector": True},
    )
    refused = [line.request.code if isinstance(line.request, LineFault) else None for line in lines]
    assert refused == [None, "line_too_long", None, "line_too_long"]
