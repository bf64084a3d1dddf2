"""A llama-server that cannot be reached is named with the reason in words; its address is for the log alone."""

import asyncio
import logging

import pytest

from proxy.contract.settings import BackendSettings
from proxy.errors import BackendUnavailable
from proxy.llama.client import LlamaClient, connect
from proxy.models.readiness import WaitLimits
from proxy.models.served_model import ServedModel
from tests.support.polling import until
from tests.support.servers.stack import FAMILY_FILE, family_of, unused_port


async def test_why_a_backend_is_not_reached_is_said_in_words_and_without_its_address() -> None:
    cases = {
        f"http://user:secret@127.0.0.1:{unused_port()}": "no connection: Connection refused",
        "http://nosuchhost.invalid:9001": "the name of its host is unknown",
        "unix:///nowhere.sock": "no connection: No such file or directory",
    }
    for url, reason in cases.items():
        async with connect(LlamaClient, "code", BackendSettings(url=url)) as backend:
            with pytest.raises(BackendUnavailable) as down:
                await backend.check()
        assert down.value.message == f"backend code is down: {reason}"


async def test_the_log_says_at_which_address_a_llama_server_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    async def logged() -> bool:
        return bool(caplog.records)

    port = unused_port()
    settings = BackendSettings(url=f"http://user:secret@127.0.0.1:{port}")
    limits = WaitLimits(tokens=1, batch_s=1, start_s=1, recovery_s=1)
    async with connect(LlamaClient, "code", settings) as backend, asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(ServedModel(backend, family_of(FAMILY_FILE), limits).serve())
        await until(logged)
        serving.cancel()
    (line,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert line == (
        "backend code is down: no connection: Connection refused; "
        f"start a llama-server at http://127.0.0.1:{port}, or correct [backends.code] url"
    )
