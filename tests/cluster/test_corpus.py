"""A corpus job that is spread over the hosts: killed wherever it can be, it makes the files of a job without Ray."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import psutil
from pyarrow import parquet

from tests.support.nodes.cluster import HOSTS, TRILLAMA, LocalCluster, children, environment

ROWS = 3000
SHAPE = ("--part-rows", "128", "--dimensions", "64")


def started(cluster: LocalCluster, *arguments: str) -> subprocess.Popen[bytes]:
    argv = (sys.executable, "-P", *TRILLAMA[1:], "corpus", *arguments, "--json")
    where = cluster.folder / "here"  # with a file that the workers must not import
    where.mkdir(exist_ok=True)
    (where / "proxy.py").write_text("raise ImportError", encoding="utf-8")
    return subprocess.Popen(argv, env=environment(cluster.folder, "head"), stdout=subprocess.PIPE, cwd=where)


def until(job: subprocess.Popen[bytes], condition: Callable[[dict[str, int]], bool]) -> None:
    """Read the job's figures until the condition holds."""
    assert job.stdout
    assert any(condition(orjson.loads(line)) for line in job.stdout), "it ended before"


def workers(cluster: LocalCluster, host: str) -> list[psutil.Process]:
    return [one for one in children(cluster.programs[host].pid) if "PartWorker" in " ".join(one.cmdline())]


def parts(out: Path) -> list[Path]:
    return sorted((out / "vectors").glob("part-*.parquet"))


def test_a_spread_job_survives_kills_and_makes_the_same_files(stubs: LocalCluster, tmp_path: Path) -> None:
    corpus, spread, whole = tmp_path / "c.txt", tmp_path / "spread", tmp_path / "whole"
    corpus.write_text("".join(f"text {row}\n" for row in range(ROWS)), encoding="utf-8")
    job = started(stubs, "run", str(corpus), "--out", str(spread), "--engine", "ray", *SHAPE)
    until(job, lambda figures: figures["rows_done"] >= 300)
    found = [workers(stubs, host) for host in HOSTS]
    assert [len(ones) for ones in found] == [1, 1]
    found[0][0].kill()
    until(job, lambda figures: figures["rows_done"] >= 900)
    job.kill()
    job.communicate()
    assert 900 <= 128 * len(parts(spread)) < ROWS
    resumed = started(stubs, "resume", str(spread), "--engine", "ray")
    resumed.communicate()
    assert resumed.returncode == 0
    plain = started(stubs, "run", str(corpus), "--out", str(whole), "--url", stubs.url, *SHAPE)
    plain.communicate()
    assert [one.name for one in parts(spread)] == [one.name for one in parts(whole)]
    for one, other in zip(parts(spread), parts(whole), strict=True):
        assert parquet.read_table(one).equals(parquet.read_table(other))


def test_what_a_spread_job_cannot_write_is_refused(stubs: LocalCluster, tmp_path: Path) -> None:
    corpus = tmp_path / "c.txt"
    corpus.write_text("text\n", encoding="utf-8")
    arguments = ("run", str(corpus), "--out", str(tmp_path / "out"), "--engine", "ray", "--format", "npy")
    refused = started(stubs, *arguments)
    refused.communicate()
    assert refused.returncode == 2
    assert not (tmp_path / "out").exists()
