"""The many shapes of `input` → texts, token ids and images. Every error names the index."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeGuard

from proxy.faults import invalid
from proxy.quoting import quoted
from proxy.types import ImageSource, Input, Refused

# Clients' names for what is not text: Jina's media, OpenAI's and vLLM's parts, llama.cpp's media.
MEDIA = frozenset(
    {
        *("image", "images", "image_url", "image_base64", "input_image", "pdf"),
        *("video", "video_url", "audio", "audio_url", "input_audio", "multimodal_data"),
    }
)
_TEXTS = ("text", "prompt_string")  # Jina's name and llama.cpp's
TEXT_TYPES = ("text", "input_text")  # of a part
MAX_REFUSED = 4096  # refused inputs of a partial request; with more the request fails
_PART = 2**16  # ids that are checked together: the GIL is held meanwhile
SHAPES = 'must be a string, {"text": "…"}, {"image": "…"}, {"content": [{"type": "text", "text": "…"}]} or token ids'
ONE_EACH = "has both a text and an image, for which the model has no prompt: send two inputs"


def inputs_of(value: object) -> tuple[Input, ...]:
    """The inputs: a string, an object with a text, token ids, or a list mixing these. Raises Invalid."""
    return _texts(value) or tuple(_all_valid(_items(value), listed=isinstance(value, list)))


def items_of(value: object) -> tuple[Input | Refused, ...]:
    """As `inputs_of`, but a Refused stands in the place of an invalid item, for MAX_REFUSED items at most."""
    return _texts(value) or tuple(_few_refused(_items(value)))


def parted(items: Sequence[Input | Refused]) -> tuple[Sequence[Input], Mapping[int, Refused]]:
    """The inputs, with "" in the place of each refused one, and the refused ones by index, as in EmbedRequest."""
    if _none_refused(items):
        return items, {}
    inputs = ["" if isinstance(one, Refused) else one for one in items]
    return inputs, {index: one for index, one in enumerate(items) if isinstance(one, Refused)}


def _none_refused(items: Sequence[Input | Refused]) -> TypeGuard[Sequence[Input]]:
    return Refused not in set(map(type, items))


def _texts(value: object) -> tuple[str, ...]:
    """The texts of most requests: a string, or a list of strings only. Empty for anything else."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) and set(map(type, value)) == {str} else ()


def _all_valid(items: Iterable[Input | Refused], *, listed: bool) -> Iterator[Input]:
    for index, item in enumerate(items):
        if isinstance(item, Refused):
            raise item.error(f"input.{index}" if listed else "input")
        yield item


def _few_refused(items: Iterable[Input | Refused]) -> Iterator[Input | Refused]:
    refused = 0
    for index, item in enumerate(items):
        if isinstance(item, Refused):
            refused += 1
            if refused > MAX_REFUSED:
                raise item.error(f"input.{index}")
        yield item


def _items(value: object) -> Iterable[Input | Refused]:
    if isinstance(value, dict):
        return [_item(value)]
    if not isinstance(value, list):
        raise invalid("input", "must be a string, an object with `text`, or a list of these", given=value)
    if not value:
        raise invalid("input", "must have at least one text", kind="too_short", given=value)
    if (ids := _ids(value)) is not None:
        return [ids]
    return map(_item, value)


def _ids(value: Sequence[object]) -> Sequence[int] | None:
    """A list that is one input of token ids: integers, or floats with an integer value. Booleans are not numbers."""
    if _all_int(value):
        return value
    return list(map(int, value)) if _all_whole(value) else None


def _all_int(value: Sequence[object]) -> TypeGuard[Sequence[int]]:
    parts = (value[start : start + _PART] for start in range(0, len(value), _PART))
    return all(set(map(type, part)) == {int} for part in parts)


def _all_whole(value: Sequence[object]) -> TypeGuard[Sequence[float]]:
    return all(type(item) is int or (type(item) is float and item.is_integer()) for item in value)


def _item(item: object) -> Input | Refused:
    if isinstance(item, dict):
        text = item.get("text")
        return text if len(item) == 1 and isinstance(text, str) else _object(item)  # the usual case first
    if isinstance(item, str):
        return item
    match item:
        case []:
            return Refused("is an empty list of token ids", "too_short", item)
        case [dict(), *_]:
            return _joined(item)
        case [*_] if (ids := _ids(item)) is not None:
            return ids
    return Refused(SHAPES, "string_type", item)


def _object(one: dict[str, object]) -> str | ImageSource | Refused:
    if isinstance(image := one.get("image"), str):
        return _image(one, image)
    if media := _media(one):
        verb = "has" if any(isinstance(one.get(name), str) for name in _TEXTS) else "is"
        return _not_text(one, verb, media)
    match one:
        case {"text": str(), "content": [*_]}:
            return Refused("has both `text` and `content`: send one of them", "value_error", one)
        case {"text": str() as text} | {"prompt_string": str() as text}:
            return text
        case {"content": [_, *_] as parts}:
            return _joined(parts)
    return Refused(SHAPES, "string_type", one)


def _image(one: dict[str, object], image: str) -> ImageSource | Refused:
    if any(one.get(name) is not None for name in (*_TEXTS, "content")):
        return Refused(ONE_EACH, "unsupported", one)
    if others := [name for name in one if name in MEDIA and name != "image" and one[name]]:
        return Refused(f"has both an image and {others[0]}: send one of them", "value_error", one)
    return ImageSource(image)


def _joined(parts: Sequence[object]) -> str | Refused:
    """The texts of an input's parts, joined without a separator, as llama.cpp does."""
    texts = list[str]()
    for part in parts:
        match part:
            case dict() if media := _media(part):
                return _not_text(parts, "has", media + " part")
            case {"type": str() as kind} if kind not in TEXT_TYPES:
                return Refused(f"has a part of type {quoted(kind)}, and only text is read", "unsupported", parts)
            case {"text": str() as text}:
                texts.append(text)
            case _:
                return Refused(SHAPES, "string_type", parts)
    return "".join(texts)


def _media(one: dict[str, object]) -> str | None:
    """The kind of media that an object is or has: by its type, or by a key with a value."""
    kind = one.get("type")
    if isinstance(kind, str) and kind in MEDIA:
        return kind
    return None if MEDIA.isdisjoint(one) else next((name for name in one if name in MEDIA and one[name]), None)


def _not_text(given: object, verb: str, media: str) -> Refused:
    article = "an" if media[0] in "aeiou" else "a"
    return Refused(f'{verb} {article} {media}, and only texts and {{"image": …}} are read', "unsupported", given)
