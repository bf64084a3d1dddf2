"""A hub with the family's files, and a user's home and configuration: where `trillama models` is tested."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from tests.support.servers.stack import FAMILY_FILE
from tests.support.servers.trillama import Done, Run, trillama
from tests.support.sources.hub import Hub

BACKENDS = ("retrieval", "code", "text-matching")
WEIGHTS = tomllib.loads(FAMILY_FILE.read_text(encoding="utf-8"))["weights"]["models"]
MIB = 2**20
OUT_OF_REACH = "http://127.0.0.1:9"


def home_env(hub: Hub, home: Path) -> dict[str, str]:
    """The environment of a user of that hub with everything below `home`."""
    return {**hub.env(home), "TRILLAMA_CACHE": str(home / "trillama")}


@dataclass(slots=True)
class Place:
    hub: Hub
    home: Path
    config: Path
    run: Run

    def models(self, *arguments: str, **env: str) -> Done:
        """`trillama models …` with this configuration."""
        line = ("models", *arguments, "--config", str(self.config))
        return trillama(*line, env={**self.env, **env}) if env else self.run(*line)

    def configure(self, **models: object) -> None:
        """Write the configuration, with that `[models]` table."""
        self.config.write_text(tomli_w.dumps({"family": "small.toml", "models": models}), encoding="utf-8")

    @property
    def env(self) -> dict[str, str]:
        return home_env(self.hub, self.home)

    def blob(self, backend: str, quantization: str) -> Path:
        """Where the cache has the content."""
        repo = WEIGHTS[backend]["repo"].replace("/", "--")
        file = WEIGHTS[backend]["file"].format(quantization=quantization)
        (path,) = (self.home / "hub" / f"models--{repo}" / "snapshots").glob(f"*/{file}")
        return path.resolve()

    def local(self) -> list[tuple[str, str | None, str]]:
        done = self.models("list", "--local", "--json")
        return [(row["backend"], row["quantization"], row["use"]) for row in json.loads(done.out)["local"]]

    def halves(self) -> list[Path]:
        return list(self.home.rglob("*.trillama.incomplete"))

    def put(self, backend: str, quantization: str, content: bytes) -> None:
        source = WEIGHTS[backend]
        self.hub.add(source["repo"], source["file"].format(quantization=quantization), content)
