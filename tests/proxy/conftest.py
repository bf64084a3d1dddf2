"""One stack per engine for all tests of the proxy: starting it takes seconds, asking it does not."""

from collections.abc import Iterator

import pytest
from anyio.from_thread import start_blocking_portal

from tests.support.servers.stack import Stack, stack, write_models


@pytest.fixture(scope="session")
def served(engine_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three models and a proxy with its defaults and batches, in a loop of a thread: blocking clients can ask too."""
    models, kept = write_models(tmp_path_factory.mktemp("models")), tmp_path_factory.mktemp("batches")
    running = stack(engine_kind, models, batches_dir=str(kept))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(running) as served:
        yield served
