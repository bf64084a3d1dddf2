"""A llama-server with one fault, for what llama.cpp does not do on demand. Standard library only: it starts quickly.

$FAULTY is `BACKEND=FAULT`, with * for all of them; the other backends get vectors of the right shape.
"""

import base64
import http.server
import json
import math
import os
import signal
import socketserver
import struct
import sys
import threading
import time

DIMENSIONS = 64
NO_VECTORS = ("answers nothing", "answers garbage", "dies of SIGILL in a batch")


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


BUSY = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fault = ""

    def do_GET(self) -> None:
        if self.path == "/health":
            loading = self.fault == "never ready"
            self._answer(503 if loading else 200, {"status": "loading" if loading else "ok"})
        elif self.path == "/metrics":
            self._answer(200, "llamacpp:requests_processing 0\nllamacpp:requests_deferred 0\n")
        else:
            self._answer(200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            self._answer(200, {"tokens": list(body["content"].encode())})
            return
        if self.fault in NO_VECTORS:
            self._fail()
            return
        if self.fault == "hangs in a batch" and len(body["input"]) > 4:
            time.sleep(3600)
        if self.fault == "takes one batch at a time" and not BUSY.acquire(blocking=False):
            self._answer(500, "it computes another batch")
            return
        vector = self._vector(as_bytes=body.get("encoding_format") == "base64")
        if self.fault == "is slow":
            time.sleep(0.5)
        if self.fault == "takes one batch at a time":
            time.sleep(0.02)
            BUSY.release()
        self._answer(
            200,
            {
                "usage": {"prompt_tokens": 40},
                "data": [{"index": n, "embedding": vector} for n in range(len(body["input"]))],
            },
        )

    def _fail(self) -> None:
        if self.fault == "answers nothing":
            time.sleep(3600)
        if self.fault == "dies of SIGILL in a batch":
            os.kill(os.getpid(), signal.SIGILL)
        self._answer(200, "<html>hello</html>")

    def _vector(self, *, as_bytes: bool) -> object:
        length = DIMENSIONS // 2 if self.fault == "answers short vectors" else DIMENSIONS
        value = math.nan if self.fault == "answers NaN" else 1 / math.sqrt(DIMENSIONS)
        if as_bytes:
            return base64.b64encode(struct.pack("<f", value) * length).decode()
        return [None if math.isnan(value) else value] * length

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 # the base class's name
        pass

    def _answer(self, status: int, body: object) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def flood() -> None:
    while True:
        sys.stdout.write("what a lot there is to say " * 100 + "\n")


def tell() -> bool:
    """Answer a question about the engine itself, if it is one."""
    if "--version" in sys.argv:
        sys.stdout.write("version: 1 (faulty)\n")
    elif "--list-devices" in sys.argv:
        sys.stdout.write(os.environ.get("FAULTY_DEVICES", "Available devices:\n"))
    elif "--help" in sys.argv:
        sys.stdout.write("".join(f"{flag} N   a flag\n" for flag in os.environ["FAULTY_FLAGS"].split()))
    else:
        return False
    return True


def begin(fault: str) -> None:
    """Faults before it listens."""
    if fault == "exits":
        sys.exit("error: out of something")
    if fault == "dies of SIGILL":
        os.kill(os.getpid(), signal.SIGILL)
    if fault == "loses its GPU" and "CUDA0" in sys.argv:
        sys.exit('error while handling argument "--device": invalid device: CUDA0')
    if fault == "falls back to the CPU":
        sys.stderr.write("warning: no usable GPU found, --gpu-layers option will be ignored\n")
        sys.stderr.flush()
    if fault == "ignores SIGTERM":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if fault == "floods its log":
        threading.Thread(target=flood, daemon=True).start()


def main() -> None:
    if tell():
        return
    socket = sys.argv[sys.argv.index("--host") + 1]
    backend, _, fault = os.environ.get("FAULTY", "").partition("=")
    if backend == "*" or socket.endswith(f"/{backend}.sock"):
        Handler.fault = fault
    begin(Handler.fault)
    with Server(socket, Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
