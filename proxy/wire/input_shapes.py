"""The shapes of `input`, for the OpenAPI document only: `inputs` reads them without these models."""

from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from typing_extensions import TypeAliasType, TypedDict

from proxy.wire.schema import SCHEMAS

# `openapi` defines the names behind each `$ref`, as they depend on the served family.
# `allOf`, as pydantic would try to resolve a bare `$ref` of a TypedDict's field.
ImageField = Annotated[str, WithJsonSchema({"allOf": [{"$ref": f"{SCHEMAS}Image"}]})]
PdfField = Annotated[str, WithJsonSchema({"allOf": [{"$ref": f"{SCHEMAS}Pdf"}]})]
ModalityField = Annotated[Literal["text", "image"], WithJsonSchema({"allOf": [{"$ref": f"{SCHEMAS}Modality"}]})]
TokenId = Annotated[int, WithJsonSchema({"$ref": f"{SCHEMAS}TokenId"})]


class TextItem(TypedDict):
    """A text as an object, in Jina's format."""

    text: str


class PromptItem(TypedDict):
    """A text in llama.cpp's format."""

    prompt_string: str


class ImageItem(TypedDict):
    """An image, in Jina's format: any task, and without a prefix."""

    image: ImageField


class PdfItem(TypedDict):
    """A PDF, in Jina's format: the only input, and each page gets a vector."""

    pdf: PdfField


class TextPart(TypedDict):
    """A part of a text, in OpenAI's format."""

    type: Literal["text", "input_text"]
    text: str


class ImageAddress(TypedDict):
    url: ImageField


class ImagePart(TypedDict):
    """An image, in OpenAI's format."""

    type: Literal["image_url"]
    image_url: ImageAddress | ImageField


class Base64Part(TypedDict):
    """An image, in Voyage's format."""

    type: Literal["image_base64"]
    image_base64: ImageField


Parts = Annotated[list[TextPart], Field(min_length=1, description="The parts of one text, joined without a separator.")]
OneImage = Annotated[list[ImagePart | Base64Part], Field(min_length=1, max_length=1, description="One image.")]


class Contents(TypedDict):
    """A text in parts, or one image."""

    content: Parts | OneImage


IdsField = Annotated[list[TokenId], Field(min_length=1, description="One input of token ids.")]
InputField = str | TextItem | ImageItem | PromptItem | ImagePart | Contents
InputsField = TypeAliasType(
    "InputsField", InputField | IdsField | Annotated[list[InputField | IdsField | Parts], Field(min_length=1)]
)
ItemsField = TypeAliasType(
    "ItemsField", InputsField | PdfItem | Annotated[list[PdfItem], Field(min_length=1, max_length=1)]
)

# vLLM's `messages`: one text or one image.
MESSAGES: JsonSchemaValue = {
    "type": "array",
    "minItems": 1,
    "maxItems": 1,
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"const": "user"}},
        "anyOf": [{"$ref": f"{SCHEMAS}Contents"}, {"properties": {"content": {"type": "string"}}}],
    },
    "description": "vLLM's form of `input`: one text or one image.",
}
# Cohere's `images`.
IMAGE_LIST: JsonSchemaValue = {
    "type": "array",
    "minItems": 1,
    "items": {"$ref": f"{SCHEMAS}Image"},
    "description": "Images, without texts or inputs beside them.",
}
