"""Reads a TOML file into a settings model; errors use the terms of the file."""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ValidationError
from pydantic_core import ErrorDetails

T = TypeVar("T", bound=BaseModel)

# pydantic's messages name Python's types; a TOML file has lists and tables.
_MESSAGES = {
    "missing": "is missing",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "string_type": "must be a string",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "path_type": "must be a path",
}

_TOML_FAULTS = {
    "^Cannot overwrite a value": "the same name is there twice",
    r"^Cannot declare \(.*\) twice": "the same table is there twice",
    r"^Illegal character '\\n'": "a quotation mark is missing",
}


class BadSettings(Exception):
    """A setting is missing, unknown or contradicts another; the message names file and field."""


def read_toml(path: Path) -> dict[str, object]:
    """The file's content, without the byte order mark that editors on Windows write. Raises BadSettings."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadSettings(f"{path}: cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"{path}: not valid TOML: {_toml_fault(error)}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise BadSettings(f"{path}: not valid TOML: it is not UTF-8 (at line {line})") from error
    except RecursionError:
        raise BadSettings(f"{path}: not valid TOML: its lists or tables are nested too deeply") from None


def validated_settings(model: type[T], given: Mapping[str, object], where: Path | str) -> T:
    """The settings. Raises BadSettings with every fault, named as in the file `where`."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise BadSettings(f"{where}: {'; '.join(_faults(model, given, error))}") from error


def settings_faults(model: type[BaseModel], given: Mapping[str, object]) -> tuple[str, ...]:
    """Every fault of the settings, named as in their file; empty if there is none."""
    try:
        model.model_validate(given)
    except ValidationError as error:
        return tuple(_faults(model, given, error))
    return ()


def home_path(path: Path) -> Path:
    """The path with `~` expanded. Raises ValueError, which names the path, if there is no such home directory."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: there is no home directory of that name: give the whole path") from error


def plain_message(fault: ErrorDetails) -> str:
    """What is wrong with a value, without the names of Python's types, nor the words that pydantic puts before it."""
    message = fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return _MESSAGES.get(fault["type"], message.replace("String should", "must"))


LocalPath = Annotated[Path, AfterValidator(home_path)]


def _toml_fault(error: tomllib.TOMLDecodeError) -> str:
    """What is wrong, and where, in words that need no knowledge of parsers."""
    text = str(error)
    for parsers, ours in _TOML_FAULTS.items():
        text = re.sub(parsers, ours, text)
    return text


def _faults(model: type[BaseModel], given: Mapping[str, object], error: ValidationError) -> Iterator[str]:
    """One line for each fault; pydantic reports a union as one for each of its types, and a validator several as one.

    A validator's are the arguments of its ValueError.
    """
    found: dict[tuple[tuple[str | int, ...], int], dict[str, None]] = {}
    for fault in error.errors(include_url=False):
        for number, message in enumerate(_messages(model, fault)):
            found.setdefault((_place(fault, given), number), {})[message] = None
    for (place, _), messages in found.items():
        yield f"{'.'.join(map(str, place))}: {' or '.join(messages)}" if place else " or ".join(messages)


def _messages(model: type[BaseModel], fault: ErrorDetails) -> tuple[str, ...]:
    raised: object = fault.get("ctx", {}).get("error")
    if isinstance(raised, ValueError) and len(raised.args) > 1:
        return tuple(map(str, raised.args))
    return (_message(model, fault),)


def _place(fault: ErrorDetails, given: object) -> tuple[str | int, ...]:
    """The fault's place as far as the file has it: pydantic appends the type that it tried."""
    place: list[str | int] = []
    for part in fault["loc"]:
        inner = _inside(given, part)
        if inner is None and fault["type"] != "missing":
            break
        given = inner
        place.append(part)
    return tuple(place)


def _inside(given: object, part: str | int) -> object:
    if isinstance(given, Mapping):
        return given.get(part)
    return given[part] if isinstance(given, list) and isinstance(part, int) and part < len(given) else None


def _message(model: type[BaseModel], fault: ErrorDetails) -> str:
    if fault["type"] == "extra_forbidden":
        return _unknown(str(fault["loc"][-1]), sorted(_names(model, fault["loc"][:-1])))
    return plain_message(fault)


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"there is no such setting; did you mean {near[0]}?" if near else "there is no such setting"


def _names(model: type[BaseModel], place: tuple[str | int, ...]) -> set[str]:
    """The settings that exist in the table at that place."""
    for part in place:
        if isinstance(part, str) and part in model.model_fields:
            inner = _model_in(model.model_fields[part].annotation)
            if inner is None:
                return set()
            model = inner
    return set(model.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The model in an annotation such as `dict[str, Model] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := _model_in(one))), None)
