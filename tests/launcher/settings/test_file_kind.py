"""A file that is given to the wrong command is named, with the command that takes it."""

from itertools import product
from pathlib import Path

from tests.support.servers.trillama import Run, commands

CONFIGS = Path(__file__).parents[3] / "configs"
KINDS = {
    "host": (CONFIGS / "cpu.toml", "a host's file", "`trillama serve --config {}`"),
    "family": (CONFIGS / "families" / "bge-m3.toml", "a family file", "`trillama families check {}`"),
    "proxy": (CONFIGS / "proxy.toml", "the file of a proxy alone", "`trillama proxy --config {}`"),
    "cluster": (Path("my cluster.toml"), "a cluster's file", "`trillama cluster head '{}'`"),
}
TAKERS = {
    ("serve", "--config"): "host",
    ("proxy", "--config"): "proxy",
    ("families", "check"): "family",
    ("cluster", "front", "--node", "127.0.0.1:8080"): "cluster",
}


def test_a_file_of_another_kind_is_named_with_its_command(tmp_path: Path) -> None:
    (tmp_path / KINDS["cluster"][0]).write_text("[front]\nfronts = 1\n[ray]\nport = 6379\n", encoding="utf-8")
    with commands({"TRILLAMA_CACHE": str(tmp_path)}) as run:
        for (command, wanted), (kind, (file, name, taker)) in product(TAKERS.items(), KINDS.items()):
            if kind != wanted:
                words = (f"is {name}, not {KINDS[wanted][1]}", taker)
                _is_refused(run, command, tmp_path / file, *words)


def _is_refused(run: Run, command: tuple[str, ...], path: Path, *words: str) -> None:
    done = run(*command, str(path))
    assert done.code == 78, done.err
    assert done.err.count("\n") == 1
    for one in words:
        assert one.format(path) in done.err
