"""The whole GPU bench on the CPU, as it runs on the day: `make gpu-rehearsal`, which makes the environment for it."""

import os
import subprocess
from pathlib import Path

import pytest

from bench.gpu.results.found import Result
from bench.gpu.results.goals import verdicts

ROOT = Path(__file__).parents[2]
PHASES = ("build", "truth", "memory", "speed", "faults")
LIMIT_S = 600  # for all phases, on two cores that do nothing else
# What speed and memory are on a CPU says nothing, and needs a quiet machine.
JUDGED = ("build", "truth", "faults")
python = os.environ.get("TRILLAMA_TORCH_PYTHON", "")


@pytest.mark.skipif(not python, reason="$TRILLAMA_TORCH_PYTHON names no Python with PyTorch: make gpu-rehearsal")
@pytest.mark.timeout(2 * LIMIT_S)
def test_every_phase_runs_on_the_cpu_and_finds_right_vectors(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHON": python, "OUT": str(tmp_path / "out")}
    argv = (ROOT / "bench" / "gpu" / "run.sh", *PHASES, "--cpu", "--work", tmp_path / "work")
    done = subprocess.run(argv, env=env, check=False)
    assert done.returncode == 0
    for phase in PHASES:
        result = Result.model_validate_json((tmp_path / "out" / f"{phase}.json").read_bytes())
        assert result.rehearsal
        assert result.figures
        if phase in JUDGED:
            assert [one.goal.figure for one in verdicts(result) if one.words == "NO"] == []
