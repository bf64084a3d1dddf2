"""One cluster of stub nodes for all tests here that do not end it."""

import importlib.util
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.nodes.cluster import LocalCluster, local_cluster

QUANTIZATION = "quantization"
# Reads its quantisation from a file when it starts, as a real node reads the host's configuration.
STUB = f'exec {sys.executable} -m tests.support.nodes.stub_node --quantization "$(cat "$0")" --gpu-ms 2 "$@"'

if importlib.util.find_spec("ray") is None:
    collect_ignore = [
        "test_corpus.py",
        "test_demo.py",
        "test_kills.py",
        "test_roll.py",
        "test_scaling.py",
        "test_serving.py",
    ]
else:
    with warnings.catch_warnings():  # Ray's own use of pydantic
        warnings.simplefilter("ignore")
        import ray.serve  # noqa: F401


@pytest.fixture(scope="session")
def stub_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that says which quantisation a stub serves from its next start on."""
    path = tmp_path_factory.mktemp("stub") / QUANTIZATION
    path.write_text("Q8_0", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def stubs(stub_model: Path) -> Iterator[LocalCluster]:
    """Two hosts with stub nodes."""
    node = ("/bin/sh", "-c", STUB, str(stub_model))
    with local_cluster([f"--node-argv={word}" for word in node]) as cluster:
        yield cluster
