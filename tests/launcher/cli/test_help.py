"""What `trillama -h` shows on a terminal of 80 columns."""

from pathlib import Path

from tests.support.servers.trillama import commands


def test_no_command_s_description_is_cut(tmp_path: Path) -> None:
    with commands({"TRILLAMA_CACHE": str(tmp_path), "COLUMNS": "80"}) as run:
        for group in ([], ["corpus"], ["models"], ["engine"], ["families"], ["service"]):
            shown = run(*group, "-h")
            assert shown.code == 0, shown.err
            listed = shown.out.partition("Commands:")[2]
            assert "..." not in listed, listed
