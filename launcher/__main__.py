"""The only place where the launcher exits: an error becomes one line on stderr and the exit code of its class."""

import os
import resource
import sys
from contextlib import suppress
from io import TextIOWrapper

import trillama
from launcher.loading import interruptible


def main() -> None:
    """Run the `trillama` command; see `trillama --help` for the exit codes."""
    trillama.check()
    _escape_unencodable()
    _raise_open_files()
    os.umask(os.umask(0o077) | 0o002)  # whatever the caller's is, nobody else may change models or golden vectors
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(130)


def _escape_unencodable() -> None:
    """Write what the locale's encoding lacks as an escape, so that no locale prevents a line from being written."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="backslashreplace")


def _raise_open_files() -> None:
    """Raise the limit of open files to the hard one, for us and our children: each connection is an open file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # unlimited here, but the kernel has a limit of its own
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _run() -> None:
    # Imported here, so that Ctrl-C while Python is still loading is as quiet as later.
    with interruptible():
        from launcher.errors import LauncherError  # noqa: PLC0415
        from launcher.printable import stderr  # noqa: PLC0415
        from launcher.settings import environment  # noqa: PLC0415
        from launcher.terminal.streams import losing  # noqa: PLC0415

    try:
        environment.check_environment()
        with interruptible():
            from launcher.cli.app import app  # noqa: PLC0415

        app()
    except LauncherError as error:
        losing(stderr).say(f"trillama: {error}", style="red")
        sys.exit(error.exit_code)
    except OSError as error:  # a folder that cannot be written, a full disk: the system's words say which
        from launcher.settings.folders import explain_write_error  # noqa: PLC0415

        known = explain_write_error(error)
        losing(stderr).say(f"trillama: {known or error}", style="red")
        sys.exit(known.exit_code if known else 1)


if __name__ == "__main__":
    main()
