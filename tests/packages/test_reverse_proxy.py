"""The reverse proxies of docs/security.md, as they stand there, in front of the service of the .deb."""

import json
import re
from pathlib import Path

import pytest

from tests.packages.conftest import ROOT
from tests.packages.debian import KEY, RELEASES, deb, debian, shell, start
from tests.support.host.booted import Booted

PAGE = ROOT / "docs" / "security.md"
NAME = "embeddings.example.com"
CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
    f"-subj /CN={NAME} -addext subjectAltName=DNS:{NAME} -keyout /etc/ssl/embeddings.key -out /etc/ssl/embeddings.pem"
)
CURL = f"curl --silent --cacert /etc/ssl/embeddings.pem --resolve {NAME}:443:127.0.0.1 --write-out '\\n%{{http_code}}'"
BODY = "--header 'Content-Type: application/json' --data @/mnt/data/body.json"
STARTS = {
    "nginx": ("/etc/nginx/conf.d/trillama.conf", "nginx", "nginx -s stop"),
    "caddyfile": ("/etc/caddy/Caddyfile", "HOME=/root caddy start --config /etc/caddy/Caddyfile", "caddy stop"),
}


def example(language: str) -> str:
    """The one block of that language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("suite", RELEASES)
async def test_each_example_serves_by_tls(tmp_path: Path, suite: str) -> None:
    package = deb(suite)
    async with debian(suite, tmp_path) as inside:
        await shell(
            inside,
            f"echo 127.0.0.1 localhost > /etc/hosts; apt-get install --yes /mnt/dist/{package.name}; {CERTIFICATE}",
        )
        await start(inside)
        for language, (file, begin, end) in STARTS.items():
            (tmp_path / "data" / language).write_text(example(language), encoding="utf-8")
            # Not into our pipe, which would be open as long as the daemon is.
            await shell(
                inside, f"cp /mnt/data/{language} {file}; {{ {begin}; }} > /tmp/log 2>&1 || {{ cat /tmp/log; exit 1; }}"
            )
            await answers(inside, tmp_path / "data" / "body.json")
            await shell(inside, f"{end}; while ss --no-header -ltn 'sport = :443' | grep -q .; do :; done")


async def answers(inside: Booted, body: Path) -> None:
    """Vectors with a key, 401 without one, no metrics; a body as large as trillama takes arrives there."""
    address, key = f"https://{NAME}/v1/embeddings", f"--header 'Authorization: Bearer {KEY}'"
    body.write_text(json.dumps({"input": ["overheating lightsaber"]}), encoding="utf-8")
    vectors, _, status = (await shell(inside, f"{CURL} {BODY} {key} {address}")).rpartition("\n")
    assert status == "200", vectors
    assert len(json.loads(vectors)["data"][0]["embedding"]) == 2048
    assert (await shell(inside, f"{CURL} {BODY} {address}")).endswith("\n401")
    assert (await shell(inside, f"{CURL} {key} https://{NAME}/metrics")).endswith("\n403")
    body.write_text(json.dumps({"input": ["a" * 30_000_000]}), encoding="utf-8")
    assert "INPUT_TOKEN_LIMIT_EXCEEDED" in await shell(inside, f"{CURL} {BODY} {key} {address}")
