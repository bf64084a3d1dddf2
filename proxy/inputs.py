"""The many shapes of `input` → texts and token ids. Every refusal names the index."""

from typing import TypeGuard

from proxy.embedding import Input
from proxy.errors import invalid


def inputs_of(value: object) -> tuple[Input, ...]:
    """What is to be embedded: a string, `{"text": …}`, token ids, or a list mixing these. Raises Invalid."""
    if isinstance(value, (str, dict)):
        return (_input(value, "input"),)
    if not isinstance(value, list):
        raise invalid("input", "must be a string, an object with `text`, or a list of these", given=value)
    if not value:
        raise invalid("input", "must have at least one text", kind="too_short", given=value)
    if is_token_ids(value):
        return (_ids(value),)
    return tuple(_input(item, f"input.{index}") for index, item in enumerate(value))


def is_token_ids(value: list[object]) -> TypeGuard[list[float]]:
    """Whether a list is one input of token ids: whole numbers, as JSON sees them. Its booleans are not numbers."""
    return all(type(item) is int or (type(item) is float and item.is_integer()) for item in value)


def _ids(value: list[float]) -> tuple[int, ...]:
    return tuple(map(int, value))


def _input(item: object, field: str) -> Input:
    if isinstance(item, str):
        return item
    if isinstance(item, dict) and isinstance(text := item.get("text"), str):
        return text
    if isinstance(item, dict) and "image" in item:
        raise invalid(field, "is an image, and this is a text-only model", kind="unsupported", given=item)
    if isinstance(item, list) and not item:
        raise invalid(field, "is an empty list of token ids", kind="too_short", given=item)
    if isinstance(item, list) and is_token_ids(item):
        return _ids(item)
    raise invalid(field, 'must be a string, {"text": "…"} or token ids', kind="string_type", given=item)
