"""The only place of the launcher that exits: errors become one line on stderr and the exit code of their class."""

import resource
import sys
from contextlib import suppress
from io import TextIOWrapper


def main() -> None:
    """Run the `trillama` command; see `trillama --help` for the exit codes."""
    _write_anything()
    _raise_open_files()
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(130)


def _write_anything() -> None:
    """No locale keeps a line from being written: what its encoding lacks is written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # None where it is closed
            stream.reconfigure(errors="backslashreplace")


def _raise_open_files() -> None:
    """Take all the open files that the system allows, for us and for our children: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # no limit here, and another one behind it
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _run() -> None:
    # Imported here, so that Ctrl-C while Python is still loading is as quiet as later.
    from launcher.errors import LauncherError  # noqa: PLC0415
    from launcher.printable import Terminal  # noqa: PLC0415
    from launcher.settings import environment  # noqa: PLC0415
    from launcher.terminal.streams import losing  # noqa: PLC0415

    stderr = Terminal(stderr=True)
    try:
        environment.check()
        from launcher.cli.app import app  # noqa: PLC0415

        app()
    except LauncherError as error:
        losing(stderr).print(f"trillama: {error}", soft_wrap=True, markup=False, highlight=False, style="red")
        sys.exit(error.exit_code)
    except OSError as error:  # a folder that cannot be written, a full disk: the system's words say which
        from launcher.settings.folders import explain_write_error  # noqa: PLC0415

        known = explain_write_error(error)
        losing(stderr).print(f"trillama: {known or error}", soft_wrap=True, markup=False, highlight=False, style="red")
        sys.exit(known.exit_code if known else 1)


if __name__ == "__main__":
    main()
