"""JSON Schema of what a wire model accepts: every name of a field, and null for absent.

pydantic writes one name per field; the document must not exclude what the server accepts.
"""

from collections.abc import Mapping

from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue

SCHEMAS = "#/components/schemas/"  # where a document has them
NULL: JsonSchemaValue = {"type": "null"}
_ABOUT = ("description", "default", "examples")


def media_schemas(*, served: bool) -> dict[str, JsonSchemaValue]:
    """The schemas, by name, that fields with media refer to, on a server that takes images or does not."""
    if not served:
        refused: JsonSchemaValue = {"not": {}, "description": "This server takes no images."}
        return {"Image": refused, "Pdf": refused, "Modality": {"const": "text"}}
    files = "The URL of a PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or PPM; a data URI; or base64."
    return {
        "Image": {"type": "string", "minLength": 1, "description": files},
        "Pdf": {"type": "string", "minLength": 1, "description": "A PDF, in the same ways as an image."},
        "Modality": {"enum": ["text", "image"]},
    }


def as_accepted(schema: JsonSchemaValue, fields: Mapping[str, FieldInfo]) -> JsonSchemaValue:
    """`schema` of a model with those fields, extended by all names of each field and by null.

    A field is required in the sense that at least one of its names is there and not null.
    """
    properties: dict[str, JsonSchemaValue] = {}
    required: list[str] = []
    demands: list[JsonSchemaValue] = []
    for field, info in fields.items():
        names = _names(field, info)
        own: JsonSchemaValue = schema["properties"][names[0]]
        own.pop("title", None)
        if info.is_required() and len(names) == 1:
            properties[names[0]] = own
            required.append(names[0])
            continue
        properties[names[0]] = _or_null(own)
        other = {key: value for key, value in own.items() if key not in _ABOUT}
        properties |= {name: _or_null({**other, "description": f"The same as `{names[0]}`."}) for name in names[1:]}
        if info.is_required():
            demands.append({"anyOf": [{"required": [name], "properties": {name: other}} for name in names]})
    accepted = {**schema, "properties": properties, "required": required, "allOf": demands}
    return {key: value for key, value in accepted.items() if value or key not in {"required", "allOf"}}


def with_name(schema: JsonSchemaValue, name: str, own: JsonSchemaValue) -> JsonSchemaValue:
    """`schema` as from `as_accepted`, where that other name of a required field has a schema of its own."""
    schema["properties"][name] = _or_null(own)
    for demand in schema["allOf"]:
        for choice in demand["anyOf"]:
            if choice["required"] == [name]:
                choice["properties"] = {name: own}
    return schema


def example(schema: JsonSchemaValue, schemas: Mapping[str, JsonSchemaValue]) -> object:
    """A minimal request: the examples of its required fields."""
    while "$ref" in schema:
        schema = schemas[schema["$ref"].removeprefix(SCHEMAS)]
    if "examples" in schema:
        return schema["examples"][0]
    if "anyOf" in schema:
        return example(schema["anyOf"][0], schemas)
    required = [schema, *(each["anyOf"][0] for each in schema.get("allOf", ()))]
    names = [name for each in required for name in each.get("required", ())]
    return {name: example(schema["properties"][name], schemas) for name in names} if names else "hello"


def _names(field: str, info: FieldInfo) -> list[str]:
    alias = info.validation_alias
    if isinstance(alias, AliasChoices):
        return [name for name in alias.choices if isinstance(name, str)]
    return [alias if isinstance(alias, str) else field]


def _or_null(schema: JsonSchemaValue) -> JsonSchemaValue:
    about = {key: value for key, value in schema.items() if key in _ABOUT}
    kind = {key: value for key, value in schema.items() if key not in _ABOUT}
    choices = kind["anyOf"] if kind.keys() == {"anyOf"} else [kind]
    return {**about, "anyOf": choices if NULL in choices else [*choices, NULL]}
