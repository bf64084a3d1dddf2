"""Every command ends with the exit code that `--help` says, 2 for wrong arguments, and with a sentence."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.errors import ArgumentError, ConfigError
from launcher.fleet.address import Target, server_url, target
from launcher.terminal.options import settings_of
from tests.support.servers.trillama import Run, commands

WRONG = {
    2: """
        serve --port 99999; serve --tiny; serve extra; proxy; embed; embed a --task nope; embed a --url foo:bar:baz
        embed a --url http://; embed a --dimensions 0; embed a --format xml; embed --file none.txt
        embed a --api-key k\u00e9y; embed -; plan --vram many; plan --ram many; compare; compare a.gguf
        compare no no --backend cobol; bench --task nope; bench --url nope:x; bench --seconds 0
        embed a --url x --port 9; embed a --port 0; bench --url x --port 9; bench --seconds no; corpus run a --format x
        corpus verify a --url x --port 9; cluster haproxy --node ftp://x; cluster front --node no:thing
        tune --backend cobol; tune --minutes 0; status --port 0; status --url foo --port 9; status --url x?y=z
        logs cobol; logs -n -1; models; models pull --backend cobol; models pull Q8_0 --multivector
        models remove --backend cobol; engine; engine build --what; service; nope; --what
    """,
    66: "compare no no; models remove Q9_X; models pull Q9_X",
    69: """
        embed a --url 127.0.0.1:9/v1; bench --url 127.0.0.1:9; embed a --port 9; bench --port 9
        status; status --port 9; status --url localhost:9
        logs --port 9; restart; restart code; reload --url http://127.0.0.1:9/
    """,
    78: """
        serve --config none.toml; serve --config .; embed a --config none.toml; plan --config none.toml
        status --config none.toml; logs --config none.toml; restart --config none.toml; reload --config none.toml
        bench --config none.toml; tune --config none.toml; compare no no --config none.toml
        models list --config none.toml; models pull --config none.toml; models verify --config none.toml
        models remove --config none.toml; embed a --demo --config none.toml
    """,
}
PYDANTIC = re.compile("Value error|Input should|unable to parse|ssl:default")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Commands of a user without files, who reaches no server."""
    home = str(tmp_path_factory.mktemp("home"))
    names = ("HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "TRILLAMA_CACHE", "HF_HOME")
    with commands({**dict.fromkeys(names, home), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}) as run:
        yield run


@pytest.mark.parametrize("code", WRONG)
def test_wrong_arguments_end_with_the_code_that_help_names(run: Run, code: int) -> None:
    for line in re.split(r";|\n", WRONG[code].strip()):
        done = run(*line.split())
        assert done.code == code, (line, done)
        assert "Traceback" not in done.err + done.out
        assert done.err or "Usage:" in done.out, line
        assert not PYDANTIC.search(done.err), done.err


def test_why_a_server_cannot_be_reached_is_said(run: Run) -> None:
    for address, words in {
        "http://nosuchhost.invalid": "cannot be found: no host has that name",
        "https://nosuchhost.invalid/v1": "cannot be found: no host has that name",
        "127.0.0.1:9": "does not accept connections",
    }.items():
        for command in (("embed", "a"), ("bench",)):
            done = run(*command, "--url", address)
            assert (done.code, done.out) == (69, "")
            assert words in done.err
            assert address.removesuffix("/v1") in done.err


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("localhost:8080", "http://localhost:8080"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("http://localhost:8080/v1", "http://localhost:8080"),
        ("localhost:8080/v1/", "http://localhost:8080"),
        ("https://host/v1/embeddings", "https://host"),
        (" https://host/behind/a/path/v1 ", "https://host/behind/a/path"),
        ("[::1]:8080/v1", "http://[::1]:8080"),
        ("host", "http://host"),
    ],
)
def test_an_address_is_taken_as_people_and_other_clients_write_it(given: str, url: str) -> None:
    assert server_url(given) == url


@pytest.mark.parametrize(
    "given",
    ["", " ", "http://", "ftp://h", "h:x", "h:99999", "http://[::1", "a b", "h?x=1", "h#x", "h\x1b", "://h", "h:0"],
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(ArgumentError, match="is not the address of a server"):
        server_url(given)


def test_a_server_is_meant_by_its_port_or_by_any_name_of_this_machine() -> None:
    local, other = ("http://127.0.0.1:8081", 8081), ("http://10.0.0.1:8081", 8081)
    for url in ("localhost:8081", "http://127.0.0.1:8081/v1", "[::1]:8081", "0.0.0.0:8081"):
        meant = target(url, None)
        assert meant
        assert meant.is_meant(*local)
    assert not Target(port=8080).is_meant(*local)
    far = target("http://example.org:8081", None)
    assert far
    assert not far.is_meant(*local)
    near = target("http://10.0.0.1:8081", None)
    assert near
    assert (near.is_meant(*other), near.is_meant(*local)) == (True, False)
    assert target(None, None) is None


def test_a_demo_takes_everything_but_its_models_from_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "host.toml"
    file.write_text(
        'port = 8099\nmax_input_tokens = 512\nnotice = "mine"\n[models]\nquantization = "Q8_0"\n[models.files]\n'
        'code = "/no/such.gguf"\n[engine]\nslots = 3\n[proxy]\napi_keys = ["a-key-of-mine"]\n',
        encoding="utf-8",
    )
    mine, alone = (settings_of(one, demo=True, tiny=True).host for one in (file, None))
    assert (mine.demo, mine.port, mine.max_input_tokens, mine.engine.slots) == (True, 8099, 512, 3)
    assert (mine.models, mine.notice, mine.engine.gpu_layers) == (alone.models, alone.notice, 0)
    assert (alone.max_input_tokens, alone.demo) == (4096, True)
    real = settings_of(file, demo=True)
    assert (real.family.name, real.host.demo, real.host.port) == ("all-MiniLM-L6-v2", False, 8099)
    assert (real.host.models, real.host.engine.slots) == (alone.models, 3)
    assert real.fallback
    assert real.fallback.host == mine
    file.write_text(
        "max_input_tokens = 9999\n[engine]\ngpu_layers = 9\n[backends.code]\nidle_s = 1\n"
        '[proxy.model_aliases]\nmine = "jina-embeddings-v4"\n',
        encoding="utf-8",
    )
    assert settings_of(file, demo=True).max_input_tokens == 512
    file.write_text("[engine]\ngpu_layers = 9\n", encoding="utf-8")
    for tiny in (True, False):
        assert settings_of(file, demo=True, tiny=tiny).host.engine.gpu_layers == 9
    assert settings_of(file, demo=True, tiny=True).host.max_input_tokens == 4096
    assert settings_of(None, demo=True, overrides={"port": 1}).host.port == 1
    assert settings_of(file, demo=True, overrides={"port": 1}).host.port == 1
    with pytest.raises(ConfigError):
        settings_of(tmp_path / "none.toml", demo=True)
