"""`python -m launcher.engine.embedded`: llama.cpp's own server from the xllamacpp wheel, as a llama-server.

It takes the flags that `launcher.engine.argv` emits and behaves as the native one: same routes, same exit codes. The
first SIGTERM or SIGINT stops it gracefully, the second at once; while the model loads, the first does so at once.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from launcher.host.cores import physical_cores

if TYPE_CHECKING:
    from typing import TypedDict

    from xllamacpp import CommonParams, Server

    class DeviceInfo(TypedDict):
        name: str
        description: str
        memory_free: int
        memory_total: int
        type: object


SIGNALS = (signal.SIGTERM, signal.SIGINT)
POOLING = ("none", "mean", "cls", "last", "rank")
ROPE_SCALING = ("none", "linear", "yarn")
FLASH_ATTENTION = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}


class Options(argparse.Namespace):
    """The flags. Those without a default are required: the wheel's own defaults differ from llama-server's."""

    model: str
    host: str
    embedding: bool
    pooling: str
    kv_unified: bool
    parallel: int
    cache_ram: int
    slot_prompt_similarity: float
    flash_attn: str
    batch_size: int
    ubatch_size: int
    ctx_size: int
    threads_http: int
    metrics: bool
    no_ui: bool
    verbosity: int
    offline: bool
    fit: str
    gpu_layers: int
    device: str | None
    tensor_split: list[float] | None
    threads: int
    lora: str | None
    rope_scaling: str | None
    rope_freq_scale: float


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal. Returns 0 after a signal, 1 for any failure, with the reason on stderr."""
    if "--version" in arguments:
        return _print_version()
    if "--list-devices" in arguments:
        return _print_devices()
    options = _parse(arguments)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # Python's own handler of SIGINT would wait for the model
    try:
        server = _start(options)
    except RuntimeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    _wait_for_signal()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # the next one must kill us even while `del` waits for clients (trap T6)
    del server  # finishes and answers the batch in flight, and closes the socket
    return 0


def _print_version() -> int:
    import xllamacpp  # noqa: PLC0415

    sys.stdout.write(f"version: {xllamacpp.__version__} (xllamacpp)\n")
    return 0


def _print_devices() -> int:
    """As llama-server prints them: every device but the CPU, with total and free MiB."""
    sys.stdout.write("Available devices:\n")
    for one in (devices := _devices()):
        total, free = one["memory_total"] // 2**20, one["memory_free"] // 2**20
        sys.stdout.write(f"  {one['name']}: {one['description']} ({total} MiB, {free} MiB free)\n")
    if not devices:
        sys.stdout.write("  (none)\n")
    return 0


def _devices() -> "list[DeviceInfo]":
    import xllamacpp  # noqa: PLC0415

    kinds = xllamacpp.ggml_backend_dev_type
    found = [one for one in xllamacpp.get_device_info() if one["type"] != kinds.GGML_BACKEND_DEVICE_TYPE_CPU]
    cards = any(
        one["type"] == kinds.GGML_BACKEND_DEVICE_TYPE_GPU for one in found
    )  # beside a card, no integrated GPU is used
    return [one for one in found if not (cards and one["type"] == kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)]


def _parse(arguments: Sequence[str]) -> Options:
    options, unknown = _parser().parse_known_args(arguments, namespace=Options())
    if unknown:
        _refuse(f"invalid argument: {unknown[0]}")
    if options.device:
        _check_device(options.device)
    return options


def _check_device(device: str) -> None:
    """The wheel cannot select devices: it must not silently use others than requested."""
    known = [one["name"] for one in _devices()]
    if device != (",".join(known) or "none"):
        _refuse(
            f"invalid device: {device} (available: {', '.join(known) or 'none'}); the embedded llama.cpp always uses "
            "all of them: choose with CUDA_VISIBLE_DEVICES, or run `trillama engine build --cuda`"
        )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _refuse(message)


def _refuse(message: str) -> NoReturn:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(1)  # as llama-server does; argparse would exit with 2


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="launcher.engine.embedded", allow_abbrev=False, description=__doc__)
    add = parser.add_argument
    add("--version", action="store_true", help="show version and exit")
    add("--model", required=True, help="model path to load")
    add("--host", required=True, help="path of the unix socket to listen on")
    add("--parallel", type=int, required=True, help="number of slots")
    add("--batch-size", type=int, required=True, help="logical maximum batch size")
    add("--ubatch-size", type=int, required=True, help="physical maximum batch size")
    add("--ctx-size", type=int, required=True, help="size of the context")
    add("--cache-ram", type=int, required=True, help="maximum cache size in MiB")
    add("--slot-prompt-similarity", type=float, default=0.1, help="similarity that makes a slot preferred")
    add("--pooling", choices=POOLING, required=True, help="pooling type for embeddings")
    add("--flash-attn", choices=FLASH_ATTENTION, default="auto", help="use of Flash Attention")
    add("--fit", choices=("on", "off"), default="on", help="whether to adjust unset arguments to the memory available")
    add("--gpu-layers", type=int, default=-1, help="layers to store in VRAM")
    add("--list-devices", action="store_true", help="print list of available devices and exit")
    add("--device", help="devices to use for offloading; here all that exist, or `none` if there is none")
    add("--tensor-split", type=_proportions, help="fraction of the model to offload to each device, comma-separated")
    add("--threads", type=int, default=physical_cores(), help="threads that compute (default: physical cores)")
    add("--threads-http", type=int, default=-1, help="threads that answer HTTP")
    add("--lora", help="path of a LoRA adapter")
    add("--rope-scaling", choices=ROPE_SCALING, help="RoPE frequency scaling method")
    add("--rope-freq-scale", type=float, default=0.0, help="RoPE frequency scaling factor, 1/N for N times the context")
    add("--verbosity", type=int, default=3, help="1: errors, 2: warnings, 3: info")
    for flag in ("--embedding", "--kv-unified", "--metrics", "--no-ui", "--offline"):
        add(flag, action="store_true", help="as llama-server's")
    return parser


def _proportions(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _start(options: Options) -> "Server":
    """Load the model and listen. Raises RuntimeError, after llama.cpp has written the reason to stderr."""
    from xllamacpp import Server  # noqa: PLC0415

    return Server(_params(options))


def _params(options: Options) -> "CommonParams":
    import xllamacpp  # noqa: PLC0415 # loads 100 MB, which --help does not need

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.hostnames = [options.host]
    params.embedding = options.embedding
    params.pooling_type = xllamacpp.llama_pooling_type[f"LLAMA_POOLING_TYPE_{options.pooling.upper()}"]
    params.flash_attn_type = xllamacpp.llama_flash_attn_type[
        f"LLAMA_FLASH_ATTN_TYPE_{FLASH_ATTENTION[options.flash_attn]}"
    ]
    params.kv_unified = options.kv_unified
    params.n_parallel = options.parallel
    params.n_batch = options.batch_size
    params.n_ubatch = options.ubatch_size
    params.n_ctx = options.ctx_size
    params.cache_ram_mib = options.cache_ram
    params.slot_prompt_similarity = options.slot_prompt_similarity
    params.n_gpu_layers = options.gpu_layers
    if options.tensor_split:
        params.tensor_split = options.tensor_split
    if options.lora:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(options.lora, 1.0)]
    if options.rope_scaling:
        name = f"LLAMA_ROPE_SCALING_TYPE_{options.rope_scaling.upper()}"
        params.rope_scaling_type = xllamacpp.llama_rope_scaling_type[name]
    params.rope_freq_scale = options.rope_freq_scale
    params.fit_params = options.fit == "on"
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.n_threads_http = options.threads_http
    params.endpoint_metrics = options.metrics
    params.ui = not options.no_ui
    params.verbosity = options.verbosity
    params.offline = options.offline
    return params


def _wait_for_signal() -> None:
    """Block until SIGTERM or SIGINT, whichever thread receives it."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)  # written by the C handler: no signal is lost between a check and a wait
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    os.read(reader, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
