"""Fixtures that several rooms share."""

import pytest

from tests.engine import KINDS, EngineMissing, native_binary


@pytest.fixture(scope="session", params=KINDS)
def engine_kind(request: pytest.FixtureRequest) -> str:
    """Each engine this machine has; a test that asks for it runs once per engine."""
    kind = str(request.param)
    if kind == "native":
        try:
            native_binary()
        except EngineMissing as missing:
            pytest.skip(str(missing))
    return kind
