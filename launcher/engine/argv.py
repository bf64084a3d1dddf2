"""The command line and environment of one llama-server. Pure; the only file that knows its flags.

Flags are spelled in full, which every supported engine understands. T1 to T5 are traps measured on llama.cpp; each
comment says what goes wrong without the flag.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from launcher.errors import ConfigError, EngineError
from launcher.settings.config import FlashAttention
from proxy.contract.family import Pooling, RopeScaling
from proxy.contract.images import IMAGE_TOKENS

_FLAG = re.compile(r"--?[A-Za-z]")  # a negative number is a value

# Every engine must know these: without one it would not start, or would return wrong vectors.
REQUIRED_FLAGS = frozenset(
    {
        "--model",
        "--host",
        "--embedding",
        "--pooling",
        "--kv-unified",
        "--parallel",
        "--cache-ram",
        "--slot-prompt-similarity",
        "--flash-attn",
        "--batch-size",
        "--ubatch-size",
        "--ctx-size",
        "--threads-http",
        "--metrics",
        "--verbosity",
        "--offline",
        "--gpu-layers",
        "--threads",
    }
)

# What a user may not set, because correct vectors, other users or the supervision depend on it.
RESERVED_FLAGS = REQUIRED_FLAGS | frozenset(
    """
    -m -mu --model-url -dr --docker-repo -hf -hfr --hf-repo -hff --hf-file -hft --hf-token
    --models-dir --models-preset --models-max --models-autoload
    -md --model-draft --spec-draft-model -hfd -hfrd --hf-repo-draft --spec-draft-hf
    -mm --mmproj -mmu --mmproj-url --mmproj-auto --no-mmproj --no-mmproj-auto --mmproj-offload --no-mmproj-offload
    --mmproj-device --image-min-tokens --image-max-tokens --mtmd-batch-max-tokens --pool-media --warmup --no-warmup
    --port --path --api-prefix --reuse-port --api-key --api-key-file --ssl-key-file --ssl-cert-file -a --alias
    --embeddings --embd-normalize --rerank --reranking -kvu -no-kvu --no-kv-unified --kv-unified-per-slot
    -np -b -ub -c -cram -sps -fa -t --cache-idle-slots --no-cache-idle-slots --cache-reuse --context-shift
    -ctk --cache-type-k -ctv --cache-type-v --override-kv --rope-scaling --rope-scale --rope-freq-base --rope-freq-scale
    --yarn-orig-ctx --yarn-ext-factor --yarn-attn-factor --yarn-beta-slow --yarn-beta-fast
    -ngl --n-gpu-layers -dev --device -fit --fit -fitt --fit-target -fitc --fit-ctx -sm --split-mode -ts --tensor-split
    -mg --main-gpu --rpc -ot --override-tensor -cmoe --cpu-moe -ncmoe --n-cpu-moe -ncffn --n-cpu-ffn
    -nkvo --no-kv-offload
    -lv --verbose -v --log-verbose --log-verbosity --log-disable --log-file --log-prompts-dir
    -to --timeout --slots --no-slots --no-metrics --sleep-idle-seconds --slot-save-path --media-path
    --tools --tools-runtime -ag --agent --mcp-servers-config --mcp-servers-json --ui-mcp-proxy --webui-mcp-proxy
    --lora --lora-scaled --lora-init-without-apply --control-vector --control-vector-scaled
    --help -h --usage --version --list-devices -cl --cache-list --completion-bash --no-logits-for-embeddings
    """.split()  # noqa: SIM905 # a table, grouped by subject
)

# Those whose logits `--no-logits-for-embeddings` skips: the patch of `trillama engine build` has an edit for each.
LEAN_ARCHITECTURES = ("qwen2vl", "qwen2", "qwen3")

# Room for the golden texts and the proxy's check texts, at a token a byte; llama.cpp's contexts are multiples of 256.
CHECK_TOKENS = 256

PRESETS = ("-default", "-spec")  # --embd-gemma-default: another model with its own settings


class EngineCommand(Protocol):
    """What a command line needs to know of an engine; see `launcher.engine.discovery.Engine`."""

    @property
    def argv(self) -> tuple[str, ...]: ...

    @property
    def flags(self) -> frozenset[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """One backend's process: it computes `slots` texts of `batch_tokens` tokens in all at once.

    `socket` must end in `.sock`: only by this does llama-server tell a UNIX socket from an address. `devices` are
    llama.cpp's names (CUDA0); none means all that exist, its own default. `tensor_split` has the share of each device.
    `pooling` "none" returns the state of every token. `lora` is a LoRA, applied to the weights. `mmproj` is the vision
    encoder of one that takes images, each where its prompt has `media_marker`.
    """

    name: str
    model: Path
    socket: Path
    slots: int
    batch_tokens: int
    gpu_layers: int
    threads: int | None
    flash_attention: FlashAttention = "auto"
    devices: tuple[str, ...] = ()
    tensor_split: tuple[float, ...] = ()
    extra_flags: tuple[str, ...] = ()
    pooling: Pooling | Literal["none"] = "mean"
    rope_scaling: RopeScaling | None = None
    lora: Path | None = None
    mmproj: Path | None = None
    media_marker: str = ""


def check_extra(flags: Sequence[str], known: frozenset[str]) -> None:
    """Raises ConfigError for a user's flag that is reserved, or that the engine does not know."""
    for flag in (word.split("=")[0] for word in flags if _FLAG.match(word)):
        if flag in RESERVED_FLAGS or flag.endswith(PRESETS):
            raise ConfigError(
                f"[engine] extra_flags: {flag} is set by trillama itself; docs/configuration.md has its settings"
            )
        if flag not in known:
            raise ConfigError(f"[engine] extra_flags: this llama-server has no {flag}; `llama-server --help` lists all")


def physical_batch(batch_tokens: int, slots: int) -> int:
    """The `--ubatch-size` for batches of `batch_tokens`: the next multiple of the slots.

    llama-server sizes its buffers for as many texts of one length as there are slots. Where it pools by the mean, it
    aborts at its start if that does not come out even.
    """
    return -(-batch_tokens // slots) * slots


def context_tokens(batch_tokens: int) -> int:
    """The tokens that the KV cache must hold (T2).

    A full batch, the slots of the previous batch that are not cleared yet, and the check texts of launcher and proxy,
    which may arrive beside a batch.
    """
    return 2 * batch_tokens + CHECK_TOKENS


def argv(engine: EngineCommand, spec: ServerSpec) -> tuple[str, ...]:
    """The command that runs `spec` with `engine`, which must know REQUIRED_FLAGS.

    Raises EngineError if the engine lacks a flag that this model's vectors need.
    """
    own = tuple(_vector_flags(spec))
    if lacking := [flag for flag in own if _FLAG.match(flag) and flag not in engine.flags]:
        raise EngineError(f"{spec.name}: this llama-server has no {lacking[0]}, which the model needs: use a newer one")
    return (
        *engine.argv,
        *_chosen(spec),
        *_guards(spec),
        *own,
        *_optional(engine.flags),
        *spec.extra_flags,
    )


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """`inherited` without the variables that llama.cpp reads as flags: `argv` alone decides."""
    others = {name: value for name, value in inherited.items() if not name.startswith("LLAMA_")}
    return {
        "OMP_WAIT_POLICY": "passive",  # three servers that spin on the same cores are a fifth slower than in turn
        **others,
        "GGML_NO_BACKTRACE": "1",  # else a crash hangs in the debugger that is started to print a stack trace
    }


def media_environment(spec: ServerSpec) -> dict[str, str]:
    """The variables of a llama-server that takes images, beside `environment`."""
    return {"LLAMA_MEDIA_MARKER": spec.media_marker} if spec.mmproj else {}


def _chosen(spec: ServerSpec) -> Iterator[str]:
    yield from ("--model", str(spec.model), "--host", str(spec.socket))
    yield from ("--parallel", str(spec.slots), "--gpu-layers", str(spec.gpu_layers))
    if spec.threads is not None:
        yield from ("--threads", str(spec.threads))
    if spec.devices:
        yield from ("--device", ",".join(spec.devices))
    if len(spec.devices) > 1 and spec.tensor_split:
        yield from ("--tensor-split", ",".join(f"{part:.4g}" for part in spec.tensor_split))


def _guards(spec: ServerSpec) -> Iterator[str]:
    tokens = physical_batch(spec.batch_tokens, spec.slots)
    yield from ("--embedding", "--pooling", spec.pooling)
    yield "--kv-unified"  # T1: else texts of mixed lengths in one batch get wrong vectors, with status 200
    yield from ("--cache-ram", "1")  # T2: 1 MiB holds no text, so nothing is cached, yet used slots are still cleared
    yield from ("--slot-prompt-similarity", "0")  # nothing is reused between texts: do not search for it
    yield from ("--flash-attn", spec.flash_attention)
    yield from ("--batch-size", str(tokens), "--ubatch-size", str(tokens))  # a text must fit whole into one batch
    yield from ("--ctx-size", str(context_tokens(tokens)))
    yield from ("--threads-http", "64")  # T3: with fewer threads than connections, one may wait for seconds
    yield "--metrics"
    yield from ("--verbosity", "1")  # errors only: any more logs three lines per text
    yield "--offline"


def _vector_flags(spec: ServerSpec) -> Iterator[str]:
    """The flags without which some models' vectors would be wrong."""
    if spec.lora:
        yield from ("--lora", str(spec.lora))
    if spec.rope_scaling:
        yield from ("--rope-scaling", spec.rope_scaling.type, "--rope-freq-scale", f"{spec.rope_scaling.freq_scale:g}")
    if spec.mmproj:
        yield from ("--mmproj", str(spec.mmproj))
        yield "--pool-media"  # else an image's vector is that of the text behind it, with status 200
        yield from ("--image-min-tokens", "4", "--image-max-tokens", str(IMAGE_TOKENS))  # else it resizes once more
        yield "--no-warmup"  # it would reserve 0.7 GiB, for an image larger than ours
        if not spec.gpu_layers:
            yield "--no-mmproj-offload"
        elif spec.devices:
            yield from ("--mmproj-device", spec.devices[0])


def _optional(flags: frozenset[str]) -> Iterator[str]:
    """Flags that an engine may lack and can do without."""
    yield from [flag for flag in ("--no-ui", "--no-webui") if flag in flags][:1]  # renamed in 2026
    if "--fit" in flags:
        yield from ("--fit", "off")  # else layers move to the CPU silently if memory is short
    if "--no-logits-for-embeddings" in flags:
        yield "--no-logits-for-embeddings"  # T5: else the logits of every token are computed and thrown away
