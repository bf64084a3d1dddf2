"""One stack per engine for all tests of the proxy: starting it takes seconds, asking it does not."""

from collections.abc import Iterator

import pytest
from anyio.from_thread import start_blocking_portal

from tests.support.stack import Stack, stack, write_models


@pytest.fixture(scope="session")
def served(engine_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three models and a proxy with its defaults, run by a loop in a thread so that blocking clients can ask, too."""
    models = write_models(tmp_path_factory.mktemp("models"))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(stack(engine_kind, models)) as running:
        yield running
