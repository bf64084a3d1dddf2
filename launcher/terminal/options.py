"""What several commands share: their consoles, their options, and the settings that these mean."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from launcher.printable import Terminal
from launcher.settings.config import Settings, configs_dir, load

EXIT_CODES = """
Exit codes: 0 done, or `serve` was stopped by Ctrl-C or SIGTERM; 1 other failure; 2 wrong arguments; 66 a model file
is missing or wrong; 69 no usable llama-server, or no trillama runs here; 70 building the engine failed;
75 it cannot serve now: the port is taken, the memory or the disk is too small, the hub is out of reach, or no model
becomes ready; 78 wrong configuration, or a folder that cannot be written; 130 stopped before it was done.
"""

stdout, stderr = Terminal(), Terminal(stderr=True)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="The host's TOML file; see configs/ for examples.")]
Demo = Annotated[bool, typer.Option("--demo", help="Serve small demo models, made on first use: no download, no GPU.")]
Url = Annotated[str | None, typer.Option(help="The running server to ask [default: the config's].")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="TRILLAMA_API_KEY",
        help="Its key [default: the config's]. Other users see it in `ps`, but not in the environment.",
    ),
]


def settings_of(config: Path | None, *, demo: bool, overrides: Mapping[str, object] | None = None) -> Settings:
    """The settings of the configuration; for a demo, with the demo's models in place of it. Raises ConfigError."""
    if not demo:
        return load(config, overrides)
    file = configs_dir() / "demo.toml"
    if config is None:
        return load(file, overrides)
    demo_table = tomllib.loads(file.read_text(encoding="utf-8"))
    settings = load(config, {**(overrides or {}), **_models_of(demo_table)})
    return _completed(settings, demo_table)


def _models_of(demo: Mapping[str, object]) -> dict[str, object]:
    """The demo's own models, whatever the user's file says of models."""
    default = load(None).host
    return {"demo": True, "notice": demo["notice"], "family": default.family, "models": {}}


def _completed(settings: Settings, demo: Mapping[str, object]) -> Settings:
    """Take the demo's values for what the user's file leaves open."""
    host, wanted = settings.host, load(None, demo).host
    layers = host.engine if "gpu_layers" in host.engine.model_fields_set else wanted.engine
    engine = host.engine.model_copy(update={"gpu_layers": layers.gpu_layers})
    return settings.with_host(engine=engine, max_input_tokens=host.max_input_tokens or wanted.max_input_tokens)
