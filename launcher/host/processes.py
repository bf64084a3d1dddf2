"""The processes of this host, as far as it tells."""

from collections.abc import Iterator, Sequence

import psutil


def running(facts: Sequence[str] = ()) -> Iterator[psutil.Process]:
    """Each process, with these facts of psutil's in `info`; none where /proc is empty or not to be read."""
    try:
        yield from psutil.process_iter(list(facts))
    except (OSError, IndexError, psutil.Error):  # IndexError: psutil takes for granted that there is one
        return
