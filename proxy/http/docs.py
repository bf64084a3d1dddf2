"""`/docs`: the OpenAPI document as one HTML page, without scripts or external resources."""

import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

from aiohttp import web
from pydantic.json_schema import JsonSchemaValue

from proxy.edge.admission import ORIGINS
from proxy.edge.origins import host_of
from proxy.http.openapi import DOCUMENT
from proxy.wire.schema import NULL, SCHEMAS

TEMPLATE = Path(__file__).with_name("docs.html").read_text(encoding="utf-8")
FORM = " -F purpose=batch -F file=@requests.jsonl"
SAFE = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


async def page(request: web.Request) -> web.Response:
    """`GET /docs`: this server's API as a page, with an example to copy for each path."""
    text = rendered(request.app[DOCUMENT], f"http://{_authority(request)}")
    return web.Response(text=text, content_type="text/html", headers=SAFE)


def _authority(request: web.Request) -> str:
    """The request's `Host` if it can be a name of ours, as users copy commands with it; else our address."""
    given = request.headers.get("Host", "")
    name = host_of(given)
    if name and request.app[ORIGINS].knows(name):
        return given
    address, port = request.get_extra_info("sockname")[:2]
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def rendered(document: Mapping[str, object], url: str) -> str:
    """The whole page. Its examples call the server at `url`."""
    api: JsonSchemaValue = dict(document)
    operations = [(path, method, one) for path, methods in api["paths"].items() for method, one in methods.items()]
    schemas = api["components"]["schemas"]
    parts = {
        "title": escape(api["info"]["title"]),
        "about": _text(api["info"]["description"]),
        "contents": "".join(_entry(path, method, one) for path, method, one in operations),
        "operations": "".join(_operation(path, method, one, url, schemas) for path, method, one in operations),
        "schemas": "".join(_schema(name, one) for name, one in schemas.items()),
    }
    return re.sub(r"{{(\w+)}}", lambda place: parts[place[1]], TEMPLATE)


def _entry(path: str, method: str, one: JsonSchemaValue) -> str:
    link = f'<a href="#{one["operationId"]}">{escape(path)}</a>'
    return f"<tr><td>{method.upper()}</td><td>{link}</td><td>{_text(one['summary'])}</td></tr>"


def _operation(path: str, method: str, one: JsonSchemaValue, url: str, schemas: Mapping[str, JsonSchemaValue]) -> str:
    heading = f'<h2 id="{one["operationId"]}">{method.upper()} <code>{escape(path)}</code></h2>'
    content = one.get("requestBody", {"content": {}})["content"]
    body, form = content.get("application/json"), content.get("multipart/form-data")
    key = {} in one["security"] or not one["security"]
    lines = [f"<section>{heading}<p>{_text(one['summary'])}{'' if key else '. <em>Needs a key.</em>'}</p>"]
    command = curl(url + path, body and body["example"], needs_key=not key, method="get" if form else method)
    lines.append(f"<pre>{escape(command + FORM * bool(form))}</pre>")
    if form:
        lines.append(f"<h3>Form</h3>{_fields(form['schema'])}")
    if body:
        lines.append(f"<h3>Body</h3>{_fields(schemas[body['schema']['$ref'].removeprefix(SCHEMAS)])}")
    return "".join([*lines, f"<h3>Answers</h3>{_answers(one['responses'])}</section>"])


def curl(url: str, body: object, *, needs_key: bool, method: str = "get") -> str:
    """The shell command that sends `body` to `url`, or asks with that method."""
    key = ' -H "Authorization: Bearer $API_KEY"' if needs_key else ""
    if body is None:
        return f"curl {'' if method == 'get' else f'-X {method.upper()} '}{url}{key}"
    text = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    return f"curl {url}{key} -H 'Content-Type: application/json' \\\n  -d '{text}'"


def _answers(responses: Mapping[str, JsonSchemaValue]) -> str:
    rows = []
    for status, answer in responses.items():
        types = (
            f"{escape(name)} {kind(content['schema']) if 'schema' in content else ''}"
            for name, content in answer["content"].items()
        )
        rows.append(f"<tr><td>{status}</td><td>{_text(answer['description'])}</td><td>{'<br>'.join(types)}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _schema(name: str, one: JsonSchemaValue) -> str:
    said = f"<p>{_text(one.get('description', ''))}</p>"
    inside = _fields(one) if "properties" in one else f"<p>{kind(one)}</p>"
    return f'<section><h3 id="{escape(name)}">{escape(name)}</h3>{said}{inside}</section>'


def _fields(schema: JsonSchemaValue) -> str:
    rows = "".join(_field(name, one) for name, one in schema.get("properties", {}).items())
    head = "<tr><th>field</th><th>type</th><th>default</th><th></th></tr>"
    return f"<table>{head}{rows}</table>"


def _field(name: str, one: JsonSchemaValue) -> str:
    default = "" if one.get("default") is None else f"<code>{escape(json.dumps(one['default']))}</code>"
    cells = (f"<code>{escape(name)}</code>", kind(one), default, _text(one.get("description", "")))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def kind(schema: JsonSchemaValue) -> str:
    """A schema in a few words, as HTML; null is left out, as the page explains it."""
    match schema:
        case {"$ref": str(ref)}:
            name = escape(ref.removeprefix(SCHEMAS))
            return f'<a href="#{name}">{name}</a>'
        case {"anyOf": list(choices)}:
            return " or ".join(dict.fromkeys(kind(each) for each in choices if each != NULL))
        case {"const": value}:
            return _values([value])
        case {"enum": list(values)}:
            return _values(values)
        case {"type": "array", "items": dict(items)}:
            return f"list of {kind(items)}"
    return escape(" ".join(_plain(schema)))


def _plain(schema: JsonSchemaValue) -> Iterator[str]:
    yield str(schema.get("type", "anything"))
    if "minimum" in schema and "maximum" in schema:
        yield f"from {schema['minimum']} to {schema['maximum']}"


def _values(values: list[object]) -> str:
    return ", ".join(f"<code>{escape(json.dumps(value))}</code>" for value in values)


def _text(said: str) -> str:
    """A sentence with `code` in it."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(said))
