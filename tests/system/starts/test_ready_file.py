"""`serve --ready-file`: what the program that started us reads."""

import json
from pathlib import Path

import aiohttp

from tests.support.servers.serve import quick_engine, trillama_serve


async def test_the_ready_file_says_where_it_serves_until_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    file.write_text("of an earlier run", encoding="utf-8")
    config = {"demo": True, "port": 0, "engine": quick_engine()}
    async with trillama_serve(config, arguments=("--ready-file", str(file))) as serve:
        await serve.until("cosine similarity")
        content = json.loads(file.read_text(encoding="utf-8"))
        assert content["pid"] == serve.process.pid
        assert content["url"].endswith(f":{content['port']}")
        async with aiohttp.ClientSession() as session, session.get(content["url"] + "/ready") as response:
            assert response.status == 200
            assert response.headers["X-Trillama-Spaces"] == content["spaces"]
        serve.process.terminate()
        assert await serve.ended() == 0
    assert not file.exists()
