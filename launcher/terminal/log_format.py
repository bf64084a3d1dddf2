"""The format of what `trillama serve` writes: words, or lines of JSON."""

import logging

from launcher.printable import stderr, stdout
from proxy.contract.log_lines import JsonFormatter, LogFormat

_OWN_HANDLERS = "huggingface_hub"  # it writes to stderr by handlers of its own


def use_log_format(wanted: LogFormat) -> None:
    """From now on write what we say, what is logged and Python's warnings like that."""
    as_json = wanted is LogFormat.JSON
    stdout.json_lines = stderr.json_lines = as_json
    logging.captureWarnings(as_json)
    root, formatter = logging.getLogger(), JsonFormatter() if as_json else None
    root.handlers = [logging.StreamHandler()] if as_json else []  # without any, Python writes the words of warnings
    for handler in (*root.handlers, *logging.getLogger(_OWN_HANDLERS).handlers):
        handler.setFormatter(formatter)
