"""The processes of this host, as far as they are visible."""

from collections.abc import Iterator, Sequence

import psutil


def running_processes(facts: Sequence[str] = ()) -> Iterator[psutil.Process]:
    """Each process, with these psutil attributes in `info`; none if /proc is empty or unreadable."""
    try:
        yield from psutil.process_iter(list(facts))
    except (OSError, IndexError, psutil.Error):  # IndexError: psutil assumes that there is at least one
        return
