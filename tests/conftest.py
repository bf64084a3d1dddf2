"""Fixtures that several folders share."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.engines.engine import KINDS, EngineMissing, native_binary

# Machines are shared and noisy: no property is timed.
settings.register_profile("untimed", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `engine_kind` runs once per engine, or per one that its module names in ENGINE_KINDS."""
    marked = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "engine_kind" in metafunc.fixturenames and "engine_kind" not in marked:
        kinds = getattr(metafunc.module, "ENGINE_KINDS", KINDS)
        metafunc.parametrize("engine_kind", kinds, indirect=True, scope="session")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Tests that share what is slow to start run in one process: those of a stack, else those of a file.

    The longest of these groups come first, so that no process is left alone with one at the end.
    """
    for item in items:
        assert isinstance(item, pytest.Function)
        kind = item.callspec.params.get("engine_kind", "") if hasattr(item, "callspec") else ""
        group = f"served-{kind}" if "served" in item.fixturenames else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: ("served" not in getattr(item, "fixturenames", ()), "support" not in item.path.parts))
    yield
    grouped = all("@" in item.nodeid for item in items)
    assert grouped or not config.getoption("loadgroup", default=False), "this pytest-xdist does not group this pytest"


@pytest.fixture(scope="session")
def engine_kind(request: pytest.FixtureRequest) -> str:
    """An engine; its tests are skipped where this machine does not have it."""
    kind = str(request.param)
    if kind == "native":
        try:
            native_binary()
        except EngineMissing as missing:
            pytest.skip(str(missing))
    return kind
