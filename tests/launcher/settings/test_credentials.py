"""API keys from a file of systemd's: which lines are keys, and that they are asked for."""

from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.errors import ConfigError
from launcher.settings.config import load
from launcher.settings.credentials import api_keys, keys_in
from tests.support.servers.serve import quick_engine, trillama_serve
from tests.support.servers.stack import small_family


async def test_systemds_keys_are_asked_for_and_none_is_said_to_be_missing(tmp_path: Path) -> None:
    family, models = small_family(tmp_path)
    (tmp_path / "api_keys").write_text("# the team's\n\n  from-systemd  \n", encoding="utf-8")
    config: dict[str, object] = {
        "family": str(family),
        "host": "0.0.0.0",
        "max_input_tokens": 512,
        "models": {"files": {name: str(path) for name, path in models.items()}},
        "engine": quick_engine(),
    }
    async with (
        trillama_serve(config, env={"CREDENTIALS_DIRECTORY": str(tmp_path)}) as serve,
        aiohttp.ClientSession() as session,
    ):
        assert "set api_keys" not in "".join(serve.output)
        for key, status in (("from-systemd", 200), ("# the team's", 401)):
            headers = {"Authorization": f"Bearer {key}"}
            async with session.post(f"{serve.url}/v1/embeddings", json={"input": ["a"]}, headers=headers) as response:
                assert response.status == status


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_a_file_without_a_key_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "api_keys").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="no API key"):
        api_keys({"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_without_the_file_there_are_none(tmp_path: Path) -> None:
    assert api_keys({}) == api_keys({"CREDENTIALS_DIRECTORY": str(tmp_path)}) == ()


def test_the_keys_of_both_places_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "api_keys").write_bytes(b"\xef\xbb\xbfb\r\n")  # as an editor of Windows writes it
    (tmp_path / "host.toml").write_text('[proxy]\napi_keys = ["a"]\n', encoding="utf-8")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load(tmp_path / "host.toml").host.proxy.api_keys == ("a", "b")


@given(st.lists(st.text("abc#-_ ", min_size=1).map(str.strip).filter(lambda key: key and not key.startswith("#"))))
def test_every_line_that_is_no_comment_is_a_key(keys: list[str]) -> None:
    assert keys_in("\n# a comment\n".join(["", *keys, ""])) == tuple(keys)
