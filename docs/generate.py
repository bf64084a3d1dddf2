"""`make docs`: docs/configuration.md from the models of the settings; the comment at a field is its meaning."""

import ast
import inspect
import io
import json
import tokenize
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue

from launcher.cluster.settings import ClusterConfig
from launcher.settings.config import HostConfig
from launcher.settings.family import FamilyFile
from proxy.contract.front import FrontSettings
from proxy.contract.settings import EdgeOptions, ProxyOptions, ProxySettings

PAGE = Path(__file__).with_name("configuration.md")
HEAD = """\
# Configuration

`make docs` writes this page from the code. The files are TOML. A setting that is unknown, or out of its bounds, is
refused by name before anything starts. `NAME` stands for a backend (of jina-embeddings-v4: `retrieval`, `code` or
`text-matching`), below `tasks` for a task, below `quantizations` for a quantisation. Settings that end in `_s` are
seconds, in `_bytes` bytes. Where the default is "-" the meaning says what happens without the setting.

## The host's file

`trillama serve --config FILE`, and `--config` of the other commands. `configs/` has an example per kind of host.
"""
PROXY = """\
## The proxy's file

`trillama proxy --config FILE`, for llama-servers that run elsewhere; `configs/proxy.toml` is an example. At its top
level it has the settings of `[proxy]` above, and these:
"""
FRONT = """\
## The Front's file

`python -m proxy --front FILE`, for one endpoint before many hosts; `trillama cluster` writes it. It has the settings of
`[proxy]` above that concern clients, up to `log_format`, and these. Requests wait `start_wait_s` for the first node
that is ready, and `recovery_s` if there was one before.
"""
CLUSTER = """\
## The cluster's file

`trillama cluster head FILE`; [cluster.md](cluster.md) has examples. It may have the table `[proxy]` with those settings
of `[proxy]` above that concern clients, not models or queues: those of a Front.
"""
FAMILY = """\
## The family file

What the models are, and which of them serves which task. `configs/families/` has those that are shipped, and
`trillama families` lists them. [families.md](families.md) shows how to write one of your own; set `family` to its path.
"""
TYPES = {"string": "string", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}
BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


def page() -> str:
    """The whole page."""
    proxy = (PROXY, *_tables(ProxySettings, left_out=frozenset(ProxyOptions.model_fields)))
    front = (FRONT, *_tables(FrontSettings, left_out=frozenset(EdgeOptions.model_fields)))
    cluster = (CLUSTER, *_tables(ClusterConfig, left_out=frozenset({"proxy"})))
    return "\n".join((HEAD, *_tables(HostConfig), *proxy, *front, *cluster, FAMILY, *_tables(FamilyFile)))


def _tables(model: type[BaseModel], name: str = "", left_out: frozenset[str] = frozenset()) -> Iterator[str]:
    """A table of the model's settings, and then those of the models in it."""
    schema, meanings = model.model_json_schema(), _meanings(model)
    fields = {field: info for field, info in model.model_fields.items() if field not in left_out}
    inner = {field: below for field, info in fields.items() if (below := _model_in(info.annotation))}
    if len(inner) < len(fields):
        yield "| setting | type | default | meaning |\n|---|---|---|---|"
        for field, info in fields.items():
            if field not in inner:
                kind = _type(schema["properties"][field], schema.get("$defs", {}))
                yield f"| `{field}` | {kind} | {_default(info)} | {meanings[field]} |"
        yield ""
    for field, below in inner.items():
        table = f"{name}.{field}{'.NAME' if get_origin(fields[field].annotation) is dict else ''}".lstrip(".")
        yield f"### `[{table}]`\n\n{meanings[field][0].upper()}{meanings[field][1:]}.\n"
        yield from _tables(below, table)


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := _model_in(one))), None)


def _type(schema: JsonSchemaValue, named: Mapping[str, JsonSchemaValue]) -> str:
    """A setting's type and bounds in words."""
    if "$ref" in schema:
        return _type(named[schema["$ref"].rpartition("/")[2]], named)
    if "anyOf" in schema:
        return " or ".join(_type(one, named) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{json.dumps(one)}`" for one in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        return f"list of: {_type(schema['items'], named)}"
    if schema["type"] == "object":
        (values,) = schema.get("patternProperties", {"": schema.get("additionalProperties")}).values()
        return f"table of: {_type(values, named)}"
    kind = "path" if schema.get("format") == "path" else TYPES[schema["type"]]
    bounds = [f"{sign} {schema[bound]:g}" for bound, sign in BOUNDS.items() if bound in schema]
    return f"{kind} {', '.join(bounds)}".rstrip()


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is None:
        return "-"
    return f"`{json.dumps(value.value if isinstance(value, Enum) else value)}`"


def _meanings(model: type[BaseModel]) -> Mapping[str, str]:
    """The comment of each field, inherited ones too. Raises KeyError by the field that has none."""
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if issubclass(one, BaseModel) and one is not BaseModel:
            found |= _comments(one)
    return found


def _comments(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Each field of the class that has a comment: beside it, else on the lines above it."""
    source = inspect.getsource(model)
    lines = source.splitlines()
    comments = {
        token.start[0]: token.string.lstrip("# ").partition("  # noqa")[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    for node in body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        first = node.lineno
        while lines[first - 2].lstrip().startswith("#"):
            first -= 1
        beside = [comments[node.end_lineno]] if node.end_lineno in comments else []
        if found := beside or [comments[line] for line in range(first, node.lineno)]:
            yield node.target.id, " ".join(found)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
