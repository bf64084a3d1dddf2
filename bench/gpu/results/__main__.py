"""`python -m bench.gpu.results FILE…`: takes the results of phases into `results.json`, and writes RESULTS.md."""

import argparse
from pathlib import Path

from bench.gpu.results import table
from bench.gpu.results.found import Result

_FOLDER = Path(__file__).parents[1]


def main() -> None:
    """Without files RESULTS.md is only written again."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.results", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="what `run.sh` wrote: build.json, truth.json, …")
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="of results.json and RESULTS.md")
    arguments = parser.parse_args()
    kept = arguments.folder / "results.json"
    before = table.read(kept)
    new = [Result.model_validate_json(path.read_bytes()) for path in arguments.files]
    try:
        results = table.merged_results(before, new)
    except table.RehearsalError as error:
        parser.error(str(error))
    kept.write_bytes(table.written(results))
    (arguments.folder / "RESULTS.md").write_text(table.results_page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
