"""The shapes of `input`, for the OpenAPI document only: `inputs` reads them without these models."""

from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema
from typing_extensions import TypeAliasType, TypedDict


class TextItem(TypedDict):
    """A text as an object, in Jina's format."""

    text: str


class PromptItem(TypedDict):
    """A text in llama.cpp's format."""

    prompt_string: str


class ImageItem(TypedDict):
    """An image, in Jina's format: a URL, a data URI or base64; any task, and without a prefix."""

    image: str


class PdfItem(TypedDict):
    """A PDF, in Jina's format: a URL, a data URI or base64. The only input; each page is one image."""

    pdf: str


class TextPart(TypedDict):
    """A part of a text, in OpenAI's format."""

    type: Literal["text", "input_text"]
    text: str


class ImageAddress(TypedDict):
    url: str


class ImagePart(TypedDict):
    """An image, in OpenAI's format; the `url` may be a data URI."""

    type: Literal["image_url"]
    image_url: ImageAddress | str


class Base64Part(TypedDict):
    """An image, in Voyage's format: a data URI."""

    type: Literal["image_base64"]
    image_base64: str


Parts = Annotated[list[TextPart], Field(min_length=1, description="The parts of one text, joined without a separator.")]
OneImage = Annotated[list[ImagePart | Base64Part], Field(min_length=1, max_length=1, description="One image.")]


class Contents(TypedDict):
    """A text in parts, or one image."""

    content: Parts | OneImage


class Message(TypedDict):
    """In vLLM's format: one text or one image."""

    role: Literal["user"]
    content: str | Parts | OneImage


Messages = Annotated[list[Message], Field(min_length=1, max_length=1)]
TokenId = Annotated[int, WithJsonSchema({"$ref": "#/components/schemas/TokenId"})]
IdsField = Annotated[list[TokenId], Field(min_length=1, description="One input of token ids.")]
InputField = str | TextItem | ImageItem | PromptItem | ImagePart | Contents
InputsField = TypeAliasType(
    "InputsField", InputField | IdsField | Annotated[list[InputField | IdsField | Parts], Field(min_length=1)]
)
ItemsField = TypeAliasType(
    "ItemsField", InputsField | PdfItem | Annotated[list[PdfItem], Field(min_length=1, max_length=1)]
)
