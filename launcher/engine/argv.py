"""The command line and the environment of one llama-server. Pure; the only file that knows its flags.

Flags are spelled in full, as every engine that is new enough knows them. T1 to T5 are the traps that were measured on
llama.cpp; each comment says what goes wrong without the flag.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from launcher.errors import ConfigError
from launcher.settings.config import FlashAttention

FLAG = re.compile(r"--?[A-Za-z]")  # a number below zero is a value

# What no engine may lack: without one of these it would not start, or would answer with wrong vectors.
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

# What a user may not set: we decide it, for the sake of the vectors, of other users or of the supervision.
RESERVED_FLAGS = REQUIRED_FLAGS | frozenset(
    """
    -m -mu --model-url -dr --docker-repo -hf -hfr --hf-repo -hff --hf-file -hft --hf-token
    --models-dir --models-preset --models-max --models-autoload
    -md --model-draft --spec-draft-model -hfd -hfrd --hf-repo-draft --spec-draft-hf
    -mm --mmproj -mmu --mmproj-url
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
    """.split()  # noqa: SIM905 # as a table, by what they are about
)

# The golden texts and the proxy's own, in tokens of one byte; llama.cpp's contexts are multiples of it.
CHECK_TOKENS = 256

PRESETS = ("-default", "-spec")  # --embd-gemma-default: another model with settings of its own


class EngineCommand(Protocol):
    """What a command line needs to know of an engine; see `launcher.engine.Engine`."""

    @property
    def argv(self) -> tuple[str, ...]: ...

    @property
    def flags(self) -> frozenset[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """One backend's process: `slots` texts of together `batch_tokens` tokens are computed at once.

    `socket` must end in `.sock`: only by this does llama-server tell a unix socket from an address. `devices` are
    llama.cpp's names (CUDA0); none means all there are, its own default. `tensor_split` has the part of each of them.
    `pooling` "none" gives the state of every token.
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
    pooling: Literal["mean", "none"] = "mean"


def check_extra(flags: Sequence[str], known: frozenset[str]) -> None:
    """Raises ConfigError for a flag of the user's that is ours to decide, or that the engine does not know."""
    for flag in (word.split("=")[0] for word in flags if FLAG.match(word)):
        if flag in RESERVED_FLAGS or flag.endswith(PRESETS):
            raise ConfigError(
                f"[engine] extra_flags: {flag} is set by trillama itself; README.md says which setting is it"
            )
        if flag not in known:
            raise ConfigError(f"[engine] extra_flags: this llama-server has no {flag}; `llama-server --help` lists all")


def context_tokens(batch_tokens: int) -> int:
    """The tokens that the KV cache must hold (T2): a full batch, the slots of the one before that are not cleared yet,
    and the texts by which launcher and proxy check it, which may come beside a batch.
    """
    return 2 * batch_tokens + CHECK_TOKENS


def argv(engine: EngineCommand, placement: ServerSpec) -> tuple[str, ...]:
    """The command that serves `placement` with `engine`, which must know REQUIRED_FLAGS."""
    return (
        *engine.argv,
        *_given(placement),
        *_guards(placement),
        *_where_known(engine.flags),
        *placement.extra_flags,
    )


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """`inherited` for a llama-server: `argv` alone decides, so every variable that llama.cpp reads as a flag goes."""
    kept = {name: value for name, value in inherited.items() if not name.startswith("LLAMA_")}
    return {
        "OMP_WAIT_POLICY": "passive",  # three servers that spin on the same cores are a fifth slower than in turn
        **kept,
        "GGML_NO_BACKTRACE": "1",  # else a crash hangs in a debugger that it starts to print a stack trace
    }


def _given(placement: ServerSpec) -> Iterator[str]:
    yield from ("--model", str(placement.model), "--host", str(placement.socket))
    yield from ("--parallel", str(placement.slots), "--gpu-layers", str(placement.gpu_layers))
    if placement.threads is not None:
        yield from ("--threads", str(placement.threads))
    if placement.devices:
        yield from ("--device", ",".join(placement.devices))
    if len(placement.devices) > 1 and placement.tensor_split:
        yield from ("--tensor-split", ",".join(f"{part:.4g}" for part in placement.tensor_split))


def _guards(placement: ServerSpec) -> Iterator[str]:
    tokens = placement.batch_tokens
    yield from ("--embedding", "--pooling", placement.pooling)
    yield "--kv-unified"  # T1: else texts of mixed lengths in one batch get wrong vectors, with status 200
    yield from ("--cache-ram", "1")  # T2: 1 MiB holds no text, so nothing is kept, yet used slots are still cleared
    yield from ("--slot-prompt-similarity", "0")  # nothing is reused between texts: do not search for it
    yield from ("--flash-attn", placement.flash_attention)
    yield from ("--batch-size", str(tokens), "--ubatch-size", str(tokens))  # a text must lie whole in one batch
    yield from ("--ctx-size", str(context_tokens(tokens)))
    yield from ("--threads-http", "64")  # T3: with fewer threads than connections one may wait for seconds
    yield "--metrics"
    yield from ("--verbosity", "1")  # errors only: more is three lines for each text
    yield "--offline"


def _where_known(flags: frozenset[str]) -> Iterator[str]:
    """Flags that not every engine has, and that it can do without."""
    yield from [flag for flag in ("--no-ui", "--no-webui") if flag in flags][:1]  # renamed in 2026
    if "--fit" in flags:
        yield from ("--fit", "off")  # else layers may move to the CPU without a word if memory is short
    if "--no-logits-for-embeddings" in flags:
        yield "--no-logits-for-embeddings"  # T5: the logits of each token are computed, and thrown away
