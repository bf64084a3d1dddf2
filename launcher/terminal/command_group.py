"""The `trillama` command as typer's group: a wrong argument is reported in plain words, not in those of pydantic."""

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from proxy.contract.settings_file import plain_message


class CommandGroup(TyperGroup):
    """All commands are parsed and run inside `invoke`."""

    def invoke(self, ctx: typer.Context) -> object:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if isinstance(error.__cause__, ValidationError):
                error.message = plain_message(error.__cause__.errors(include_url=False)[0])
            raise
