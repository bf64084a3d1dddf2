"""A package index on loopback for the real pip, and those that are out of reach."""

import hashlib
import io
import os
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(slots=True)
class PackageIndex:
    """The wheels of an index by file name; a test may change them while it runs."""

    url: str
    wheels: dict[str, bytes] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)

    def add(self, name: str, files: Mapping[str, bytes], *, zipped: bool = False) -> None:
        """A package NAME==1.0 with these files in a folder, or in a zip file inside of it."""
        module = name.replace("-", "_")
        content = {"model.zip": archive(files)} if zipped else {f"model/{one}": data for one, data in files.items()}
        about = {
            f"{module}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
            f"{module}-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{module}-1.0.dist-info/RECORD": b"",
        }
        wheel = archive({**{f"{module}/{one}": data for one, data in content.items()}, **about})
        self.wheels[f"{module}-1.0-py3-none-any.whl"] = wheel


def archive(files: Mapping[str, bytes]) -> bytes:
    """A zip file of these files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return packed.getvalue()


def sums(files: Mapping[str, bytes]) -> dict[str, str]:
    """The SHA-256 of each file."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def only(url: str) -> dict[str, str]:
    """The environment in which pip asks this index alone, and keeps nothing."""
    unset = dict.fromkeys(("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"), "")
    return {**unset, "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{url}/simple", "PIP_NO_CACHE_DIR": "1"}


DEAD = "http://127.0.0.1:9"  # nothing listens there


@contextmanager
def package_index() -> Iterator[PackageIndex]:
    """An index that is empty at first."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/").rpartition("/")[2]
            if name in index.wheels:
                index.fetched.append(name)
                content, kind = index.wheels[name], "application/octet-stream"
            else:
                ours = [wheel for wheel in index.wheels if wheel.startswith(f"{name.replace('-', '_')}-")]
                content = "".join(f'<a href="/files/{wheel}">{wheel}</a>' for wheel in ours).encode()
                kind = "text/html"
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index = PackageIndex(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()
