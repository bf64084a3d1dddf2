"""The `trillama` command as typer's group: commands are loaded when used; wrong arguments are said in plain words."""

from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar, cast

import typer
from pydantic import ValidationError
from typer.core import TyperCommand, TyperGroup

from launcher.loading import interruptible
from proxy.contract.settings_file import plain_message


class CommandGroup(TyperGroup):
    """All commands are parsed and run inside `invoke`.

    `modules` says where each command is, `MODULE:APP`: the command of that name in that typer app, or the app itself.
    Each is loaded when it is looked up, as all of them take a second of processor time.
    """

    modules: ClassVar[Mapping[str, str]] = {}

    def list_commands(self, _: object) -> list[str]:
        return list(self.modules)

    def get_command(self, ctx: object, cmd_name: str) -> TyperCommand | None:
        looked_up = (cmd_name,) if cmd_name in self.modules else self.modules  # typer suggests one of those it knows
        for name in looked_up:
            if name not in self.commands:
                self.add_command(_loaded(name, self.modules[name]), name)
        return cast("TyperCommand | None", super().get_command(cast("typer.Context", ctx), cmd_name))

    def invoke(self, ctx: object) -> object:
        try:
            return super().invoke(cast("typer.Context", ctx))  # typer's base class of it has no public name
        except typer.BadParameter as error:
            if isinstance(error.__cause__, ValidationError):
                error.message = plain_message(error.__cause__.errors(include_url=False)[0])
            raise


def _loaded(name: str, place: str) -> TyperCommand:
    module, _, attribute = place.partition(":")
    with interruptible():
        app: typer.Typer = getattr(import_module(module), attribute)
    alone = typer.Typer(rich_markup_mode=None)
    alone.registered_commands = [one for one in app.registered_commands if one.name == name]
    if not alone.registered_commands:
        alone.add_typer(app, name=name)
    return cast("TyperCommand", typer.main.get_group(alone).commands[name])
