"""The format of what `trillama serve` writes: words, or lines of JSON."""

import logging

from launcher.printable import stderr, stdout
from proxy.contract.log_lines import JsonFormatter, LogFormat

_OWN_HANDLERS = "huggingface_hub"  # it writes to stderr by handlers of its own
_handler = logging.StreamHandler()  # without any, Python writes the words of warnings


def use_log_format(wanted: LogFormat) -> None:
    """From now on write what we say, what is logged and Python's warnings like that."""
    as_json = wanted is LogFormat.JSON
    stdout.json_lines = stderr.json_lines = as_json
    logging.captureWarnings(as_json)
    logging.getLogger().removeHandler(_handler)
    if as_json:
        logging.getLogger().addHandler(_handler)
    others = logging.getLogger(_OWN_HANDLERS)
    others.propagate = not as_json  # else each of its lines would be there twice
    for handler in (_handler, *others.handlers):
        handler.setFormatter(JsonFormatter() if as_json else None)
