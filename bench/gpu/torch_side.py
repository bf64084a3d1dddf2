"""All that needs PyTorch, each time a process of its own, whose memory on the card is free again when it ends.

`vectors` is the second opinion on every vector: Qwen2's forward pass, which shares no code with llama.cpp, on the
numbers of the same file. `speed` times the same model in batches of the best size. `hold` takes memory away, so that a
large card is a small one.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import gguf
import numpy as np
import torch
from torch.nn import functional

from launcher.measure.loadgen import lengths

_BATCHES = (16, 64, 256)  # texts of a batch of `speed`; the best counts
MOST_TOKENS = 32_768  # of a batch of `speed`


class Twin:
    """The model of a GGUF file in `dtype`; norms, biases and positions are float32."""

    def __init__(self, path: Path, *, device: str, dtype: torch.dtype, ids: np.ndarray | None = None) -> None:
        """With `ids` only the embeddings of those tokens are read."""
        reader = gguf.GGUFReader(path)
        self._fields = {name: field.contents() for name, field in reader.fields.items()}
        self._turns: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._rows = torch.arange(len(self._fields["tokenizer.ggml.tokens"]), device=device)
        self._tensors: dict[str, torch.Tensor] = {}
        for one in reader.tensors:
            data = one.data
            if one.name == "token_embd.weight" and ids is not None:
                needed = np.unique(ids)
                self._rows[torch.from_numpy(needed).to(device)] = torch.arange(len(needed), device=device)
                data = data[needed]
            values = torch.from_numpy(gguf.quants.dequantize(data, one.tensor_type).copy())
            self._tensors[one.name] = values.to(device, dtype if values.ndim == 2 else torch.float32)

    def states(self, ids: torch.Tensor) -> torch.Tensor:
        """(texts, tokens) → the last state of each token in float32. Texts of one length, or padded at their end."""
        x = self._tensors["token_embd.weight"][self._rows[ids]]
        for number in range(self._hyper("block_count")):
            x = self._layer(f"blk.{number}.", x)
        return self._normed("output_norm", x.float())

    def _hyper(self, name: str) -> int:
        return int(self._fields[f"qwen2vl.{name}"])

    def _layer(self, layer: str, x: torch.Tensor) -> torch.Tensor:
        x = x + self._attention(layer, self._normed(layer + "attn_norm", x))
        y = self._normed(layer + "ffn_norm", x)
        gate, up = self._linear(layer + "ffn_gate", y), self._linear(layer + "ffn_up", y)
        return x + self._linear(layer + "ffn_down", functional.silu(gate) * up)

    def _attention(self, layer: str, x: torch.Tensor) -> torch.Tensor:
        heads, kv_heads = self._hyper("attention.head_count"), self._hyper("attention.head_count_kv")
        q = self._rotated(_split(self._linear(layer + "attn_q", x), heads))
        k = self._rotated(_split(self._linear(layer + "attn_k", x), kv_heads))
        v = _split(self._linear(layer + "attn_v", x), kv_heads)
        k, v = (each.repeat_interleave(heads // kv_heads, dim=1) for each in (k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self._linear(layer + "attn_output", mixed.transpose(1, 2).flatten(2))

    def _rotated(self, x: torch.Tensor) -> torch.Tensor:
        """Each pair (i, i + size/2) of a head turned by position * base**(-2i/size)."""
        tokens, half = x.shape[-2], x.shape[-1] // 2
        if tokens not in self._turns:
            turn = float(self._fields["qwen2vl.rope.freq_base"]) ** (-torch.arange(half, dtype=torch.float64) / half)
            angles = torch.outer(torch.arange(tokens, dtype=torch.float64), turn)
            self._turns[tokens] = (angles.cos().float().to(x.device), angles.sin().float().to(x.device))
        cos, sin = self._turns[tokens]
        left, right = x[..., :half].float(), x[..., half:].float()
        return torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1).to(x.dtype)

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        bias = self._tensors.get(name + ".bias")
        return functional.linear(x, self._tensors[name + ".weight"], None if bias is None else bias.to(x.dtype))

    def _normed(self, name: str, x: torch.Tensor) -> torch.Tensor:
        epsilon = float(self._fields["qwen2vl.attention.layer_norm_rms_epsilon"])
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + epsilon)
        return (wide * self._tensors[name + ".weight"]).to(x.dtype)


def _split(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(texts, tokens, heads * size) → (texts, heads, tokens, size)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def vectors(arguments: argparse.Namespace) -> None:
    """Carry out the jobs of a JSON file, one after the other; see `bench.gpu.twin.TwinJob`."""
    torch.backends.cuda.matmul.allow_tf32 = False
    for job in json.loads(arguments.jobs.read_text(encoding="utf-8")):
        found = _vectors(Path(job["model"]), np.load(job["texts"]), _dtype(job["dtype"]), arguments.device)
        np.save(job["out"], found)


def _vectors(model: Path, given: Mapping[str, np.ndarray], dtype: torch.dtype, device: str) -> np.ndarray:
    """The mean state of each span, (spans, n_embd): a span is a text's number, and its first and last token."""
    texts = np.split(given["ids"], np.cumsum(given["lengths"])[:-1])
    twin = Twin(model, device=device, dtype=dtype, ids=given["ids"])
    spans = given["spans"]
    found: list[np.ndarray] = [np.empty(0)] * len(spans)
    for number, ids in enumerate(texts):
        states = twin.states(torch.from_numpy(ids[None]).to(device))[0].double()
        for place in np.flatnonzero(spans[:, 0] == number):
            _, first, end = spans[place]
            found[place] = states[first:end].mean(dim=0).cpu().numpy()
    return np.stack(found)


def speed(arguments: argparse.Namespace) -> None:
    """Print tokens per second of each kind of text at the best batch, padding not counted, as JSON."""
    twin = Twin(arguments.model, device=arguments.device, dtype=_dtype(arguments.dtype))
    best = {kind: max(_speed(twin, kind, size, arguments) for size in _BATCHES) for kind in arguments.kinds.split(",")}
    sys.stdout.write(json.dumps(best) + "\n")


def _speed(twin: Twin, kind: str, size: int, arguments: argparse.Namespace) -> float:
    batches = _batches(kind, size)
    for batch in islice(batches, 2):  # warm
        _run(twin, batch, arguments.device)
    tokens, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < arguments.seconds:
        batch = next(batches)
        _run(twin, batch, arguments.device)
        tokens += sum(batch)
    return tokens / seconds


def _batches(kind: str, size: int) -> Iterator[list[int]]:
    """Lengths of texts, sorted among sixteen batches, as sentence-transformers does, so that little is padded."""
    random = np.random.default_rng(1)
    while True:
        ordered = sorted(lengths(random, kind, 16 * size))
        step = max(1, min(size, MOST_TOKENS // ordered[-1]))
        batches = [ordered[first : first + step] for first in range(0, len(ordered), step)]
        yield from (batches[number] for number in random.permutation(len(batches)))


def _run(twin: Twin, batch: Sequence[int], device: str) -> None:
    """Compute and fetch the mean vectors of a batch."""
    ids = torch.randint(0, 256, (len(batch), max(batch)), device=device)
    own = torch.arange(max(batch), device=device) < torch.tensor(batch, device=device)[:, None]
    means = (twin.states(ids) * own[..., None]).sum(dim=1) / own.sum(dim=1, keepdim=True)
    means.cpu()


def hold(arguments: argparse.Namespace) -> None:
    """Take that many bytes of the card until standard input ends; says "held" when it has them."""
    blocks = [torch.empty(arguments.bytes, dtype=torch.uint8, device="cuda")]
    sys.stdout.write("held\n")
    sys.stdout.flush()
    sys.stdin.read()
    blocks.clear()


def _dtype(name: str) -> torch.dtype:
    return torch.float16 if name == "float16" else torch.float32


def main() -> None:
    """One of the three."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.torch_side", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("vectors")
    command.set_defaults(run=vectors)
    command.add_argument("jobs", type=Path)
    command.add_argument("--device", choices=("cuda", "cpu"), required=True)
    command = commands.add_parser("speed")
    command.set_defaults(run=speed)
    command.add_argument("model", type=Path)
    command.add_argument("--device", choices=("cuda", "cpu"), required=True)
    command.add_argument("--dtype", choices=("float32", "float16"), required=True)
    command.add_argument("--kinds", required=True)
    command.add_argument("--seconds", type=float, required=True)
    command = commands.add_parser("hold")
    command.set_defaults(run=hold)
    command.add_argument("bytes", type=int)
    arguments = parser.parse_args()
    with torch.inference_mode():
        arguments.run(arguments)


if __name__ == "__main__":
    main()
