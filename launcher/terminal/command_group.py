"""The `trillama` command as typer's group: a wrong argument is reported in plain words, not in those of pydantic."""

from typing import cast

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from proxy.contract.settings_file import plain_message


class CommandGroup(TyperGroup):
    """All commands are parsed and run inside `invoke`."""

    def invoke(self, ctx: object) -> object:
        try:
            return super().invoke(cast("typer.Context", ctx))  # typer's base class of it has no public name
        except typer.BadParameter as error:
            if isinstance(error.__cause__, ValidationError):
                error.message = plain_message(error.__cause__.errors(include_url=False)[0])
            raise
