"""One server with images for all tests of this folder."""

from collections.abc import Iterator

import pytest
from anyio.from_thread import start_blocking_portal

from tests.support.engines.engine import EngineMissing
from tests.support.servers.media import serving_images
from tests.support.servers.stack import Stack


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A proxy that takes images, and fetches none."""
    settings = {"images": {"urls": "off"}, "cache_bytes": 2**20, "batches_dir": str(tmp_path_factory.mktemp("batches"))}
    running = serving_images(tmp_path_factory.mktemp("media"), settings)
    with start_blocking_portal() as portal:
        try:
            with portal.wrap_async_context_manager(running) as served:
                yield served
        except EngineMissing as missing:
            pytest.skip(str(missing))
