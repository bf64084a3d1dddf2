"""The many shapes of `input` → texts and token ids. Every refusal names the index."""

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
        return (tuple(value),)
    return tuple(_input(item, f"input.{index}") for index, item in enumerate(value))


def is_token_ids(value: list[object]) -> bool:
    """Whether a list is one input of token ids. JSON's booleans are not numbers."""
    return all(type(item) is int for item in value)


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
        return tuple(item)
    raise invalid(field, 'must be a string, {"text": "…"} or token ids', kind="string_type", given=item)
