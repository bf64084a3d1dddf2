"""The many shapes of `input` → texts. Every refusal names the index."""

from proxy.errors import Invalid, invalid


def texts_of(value: object) -> tuple[str, ...]:
    """The texts of an `input`: a string, `{"text": …}`, or a list mixing both. Raises Invalid."""
    if isinstance(value, (str, dict)):
        return (_text(value, "input"),)
    if not isinstance(value, list):
        raise invalid("input", "must be a string, an object with `text`, or a list of these", given=value)
    if not value:
        raise invalid("input", "must have at least one text", kind="too_short", given=value)
    if all(_is_int(item) for item in value):
        raise _token_ids("input")
    return tuple(_text(item, f"input.{index}") for index, item in enumerate(value))


def _text(item: object, field: str) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, dict) and isinstance(text := item.get("text"), str):
        return text
    if isinstance(item, dict) and "image" in item:
        raise invalid(field, "is an image, and this is a text-only model", kind="unsupported", given=item)
    if isinstance(item, list) and item and all(_is_int(token) for token in item):
        raise _token_ids(field)
    raise invalid(field, 'must be a string or {"text": "…"}', kind="string_type", given=item)


def _token_ids(field: str) -> Invalid:
    message = "is token ids of another model's vocabulary: send text (LangChain: check_embedding_ctx_length=False)"
    return invalid(field, message, kind="unsupported")


def _is_int(item: object) -> bool:
    return isinstance(item, int) and not isinstance(item, bool)
