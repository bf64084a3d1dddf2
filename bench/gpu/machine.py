"""Where a phase runs: on the card or the CPU, with which engine, in which folders, and the time it has left."""

import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from bench.gpu import models
from bench.gpu.models import Sizes
from bench.gpu.scale import Scale
from bench.made import Made, ModelShape
from bench.servers.contenders import SLOTS, Host
from launcher.engine.discovery import Engine
from launcher.host.cores import usable_cores
from launcher.settings.config import SupervisionSettings
from launcher.settings.folders import runtime_base
from launcher.supervision.standalone import Standalone
from tests.support.servers.stack import FAMILY_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchMachine:
    """`work` keeps models between phases; `ends_at` (monotonic) is when a phase should have ended by itself."""

    scale: Scale
    on_gpu: bool
    engine: Engine
    out: Path
    work: Path
    ends_at: float

    @property
    def gpu_layers(self) -> int:
        return 99 if self.on_gpu else 0

    @property
    def torch_device(self) -> str:
        return "cuda" if self.on_gpu else "cpu"

    @property
    def left_s(self) -> float:
        """Seconds until this phase should have ended."""
        return self.ends_at - time.monotonic()

    def model(self, sizes: Sizes, quantization: str, seed: int = 0) -> Path:
        """The file of a random model, written on first use."""
        name = f"{sizes.layers}x{sizes.n_embd}-{quantization}-{seed}.gguf"
        return models.write(self.work / "models" / name, sizes, quantization, seed=seed)

    def family(self, sizes: Sizes) -> Path:
        """The family file for models of those sizes."""
        whole = tomllib.loads(FAMILY_FILE.read_text(encoding="utf-8"))
        file = self.work / f"{sizes.layers}x{sizes.n_embd}.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        size = {"dimensions": sizes.n_embd, "trained_dimensions": [sizes.n_embd]}
        file.write_text(tomli_w.dumps({**whole, **size}), encoding="utf-8")
        return file

    def engine_settings(self) -> dict[str, object]:
        """The `[engine]` of a `trillama serve` that is measured."""
        own = {"llama_server": self.engine.argv[0]} if len(self.engine.argv) == 1 else {}
        return {"gpu_layers": self.gpu_layers, "slots": SLOTS, **own}

    def host(self, quantization: str, *, slots: int = SLOTS) -> Host:
        """The real model, for the measures of `bench` that are used here, too."""
        sizes = self.scale.real
        shape = ModelShape(
            name=f"{sizes.layers} layers",
            why=f"{sizes.layers} layers x {sizes.n_embd}, n_ff {sizes.n_ff}, {sizes.vocabulary} tokens, {quantization}",
            layers=sizes.layers,
            n_embd=sizes.n_embd,
            heads=sizes.heads,
            n_ff=sizes.n_ff,
            vocabulary=sizes.vocabulary,
            dtype="F16",
        )
        return Host(
            made=Made(shape, self.model(sizes, quantization), self.family(sizes)),
            engine=self.engine,
            stock=self.engine,
            threads=usable_cores(),
            gpu_layers=self.gpu_layers,
            batch_tokens=self.scale.batch_tokens,
            slots=slots,
        )

    def alone(self, engine: Engine | None = None, *, batch_tokens: int, slots: int = SLOTS) -> Standalone:
        """One llama-server without a proxy."""
        return Standalone(
            log="gpu-bench.log",
            engine=engine or self.engine,
            policy=SupervisionSettings(),
            runtime=runtime_base(),
            slots=slots,
            batch_tokens=batch_tokens,
            gpu_layers=self.gpu_layers,
            threads=None,
        )
