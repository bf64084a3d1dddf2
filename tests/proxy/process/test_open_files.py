"""Connections fit into the limit on open files, so that accepting one never fails."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.process.open_files import OWN, SPARE, STEPS, room


@given(st.integers(256, 2**20))
def test_connections_their_burst_and_our_own_files_fit(files: int) -> None:
    found = room(files)
    assert found.connections >= 16
    assert found.connections + SPARE + STEPS * found.accepts + OWN <= files


def test_common_limits() -> None:
    assert (room(1024).connections, room(1024).accepts) == (640, 32)
    assert room(65536).connections > 60000
