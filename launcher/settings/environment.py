"""Checks the variables that the hub's client reads on import, where a wrong value ends in a traceback."""

import os

from launcher.errors import ConfigError

WHOLE_NUMBERS = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")


def check_environment() -> None:
    """Raises ConfigError naming the variable. Call it before anything imports huggingface_hub."""
    for name in WHOLE_NUMBERS:
        if not (value := os.environ.get(name, "0").strip()).isdecimal():
            raise ConfigError(f"the environment's {name} is {value!r}: set it to a number of whole seconds")
