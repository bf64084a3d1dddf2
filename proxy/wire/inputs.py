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
ONE_IMAGE = "has several images, and a vector is of one: send an input for each"
PDF_ALONE = "is a PDF, which must be the only input of its request: each of its pages gets a vector"
PDF_ELSEWHERE = "is a PDF, which is served at /v1/embeddings only: each of its pages gets a vector"
# Jina's, OpenAI's (a URL, or an object with one), Voyage's.
FILE_NAMES = ("image", "image_url", "image_base64", "pdf")


def inputs_of(value: object) -> tuple[Input, ...]:
    """The inputs: a string, an object with a text, token ids, or a list mixing these. Raises Invalid."""
    if texts := _texts(value):
        return texts
    items = (_not_pdf(item, PDF_ELSEWHERE) for item in _items(value))
    return tuple(_all_valid(items, listed=isinstance(value, list)))


def items_of(value: object) -> tuple[Input | Refused, ...]:
    """As `inputs_of`, but a Refused stands in the place of an invalid item, for MAX_REFUSED items at most.

    A PDF may be the only input.
    """
    if texts := _texts(value):
        return texts
    items = tuple(_few_refused(_items(value)))
    return items if len(items) == 1 else tuple(_not_pdf(item, PDF_ALONE) for item in items)


def input_of_message(messages: object) -> Sequence[object]:
    """The one input in vLLM's `messages`, as an item of `input`. Raises Invalid."""
    match messages:
        case [{"content": str() as text, **other}] if other.get("role", "user") == "user":
            return [text]
        case [{"content": [*parts], **other}] if other.get("role", "user") == "user":
            return [{"content": parts}]
        case [_, _, *_]:
            message = "has several messages, and a vector is of one text or one image: send `input`, a list of these"
            raise invalid("messages", message, kind="unsupported")
    message = 'must be [{"role": "user", "content": …}]: a text, or a list of parts'
    raise invalid("messages", message, given=messages)


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
    refused = dict[int, Refused]()
    for index, item in enumerate(items):
        if isinstance(item, Refused):
            refused[index] = item
            if len(refused) > MAX_REFUSED:
                first = min(refused)
                raise refused[first].error(f"input.{first}")
        yield item


def _not_pdf(item: Input | Refused, reason: str) -> Input | Refused:
    """The item; if it is a PDF, that it is refused for this reason."""
    if isinstance(item, ImageSource) and item.pdf:
        return Refused(reason, "unsupported", item.item)
    return item


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
    if source := _source_of(one):
        return _alone(one, source)
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


def _source_of(one: dict[str, object]) -> ImageSource | None:
    """The image or PDF that an object or a part is or has."""
    for name in FILE_NAMES:
        match one.get(name):
            case (str() as file) | {"url": str() as file}:
                return ImageSource(file, pdf=name == "pdf")
    return None


def _alone(one: dict[str, object], source: ImageSource) -> ImageSource | Refused:
    """The image or PDF, if its object has nothing else."""
    if any(one.get(name) is not None for name in (*_TEXTS, "content")):
        return Refused("has both a text and a PDF: send one of them" if source.pdf else ONE_EACH, "unsupported", one)
    given = [name for name in one if name in MEDIA and one[name]]
    if len(given) > 1:
        return Refused(f"has both {given[0]} and {given[1]}: send one of them", "value_error", one)
    return source


def _joined(parts: Sequence[object]) -> str | ImageSource | Refused:
    """The texts of an input's parts, joined without a separator, as llama.cpp does; or the one image that it is."""
    texts, images = list[str](), list[ImageSource]()
    for part in map(_part, parts):
        match part:
            case str():
                texts.append(part)
            case ImageSource():
                images.append(part)
            case Refused():
                return part._replace(given=parts)
    if not images:
        return "".join(texts)
    if texts or len(images) > 1:
        return Refused(ONE_EACH if texts else ONE_IMAGE, "unsupported", parts)
    return images[0]


def _part(part: object) -> str | ImageSource | Refused:
    match part:
        case dict() if source := _source_of(part):
            return _alone(part, source)
        case dict() if media := _media(part):
            return _not_text(part, "has", media + " part")
        case {"type": str() as kind} if kind not in TEXT_TYPES:
            return Refused(f"has a part of type {quoted(kind)}, and only text and images are read", "unsupported", part)
        case {"text": str() as text}:
            return text
    return Refused(SHAPES, "string_type", part)


def _media(one: dict[str, object]) -> str | None:
    """The kind of media that an object is or has: by its type, or by a key with a value."""
    kind = one.get("type")
    if isinstance(kind, str) and kind in MEDIA:
        return kind
    return None if MEDIA.isdisjoint(one) else next((name for name in one if name in MEDIA and one[name]), None)


def _not_text(given: object, verb: str, media: str) -> Refused:
    article = "an" if media[0] in "aeiou" else "a"
    return Refused(f'{verb} {article} {media}, and only texts and {{"image": …}} are read', "unsupported", given)
