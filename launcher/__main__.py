"""The only place of the launcher that exits: errors become one line on stderr and the exit code of their class."""

import sys

from launcher.cli import app, stderr
from launcher.errors import LauncherError


def main() -> None:
    """Run the `trillama` command; see `trillama --help` for the exit codes."""
    try:
        app()
    except LauncherError as error:
        stderr.print(f"trillama: {error}", soft_wrap=True, markup=False, highlight=False, style="red")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
