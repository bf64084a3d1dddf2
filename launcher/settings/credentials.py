"""API keys passed by systemd (LoadCredential=api_keys:FILE), readable by the service alone."""

import os
from collections.abc import Mapping
from pathlib import Path

from launcher.errors import ConfigError


def api_keys(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The keys in $CREDENTIALS_DIRECTORY/api_keys, one per line; none without the file.

    Raises ConfigError if the file exists but has no key: it was not meant to let everybody in.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return ()
    file = Path(folder, "api_keys")
    try:
        keys = keys_in(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: the API keys cannot be read: {error}") from error
    if not keys:
        raise ConfigError(f"{file} has no API key: write one per line, or take LoadCredential=api_keys out of the unit")
    return keys


def keys_in(text: str) -> tuple[str, ...]:
    """One key per line, without surrounding spaces; empty lines and lines that start with # are skipped."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))
