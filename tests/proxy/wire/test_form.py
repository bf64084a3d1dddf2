"""Multipart forms: the fields and the file, however they arrive; anything else is a BadForm, soon."""

from collections.abc import Mapping

import pytest

from proxy.wire.form import FIELD_BYTES, FORM_FIELDS, BadForm, Form, FormReader

TYPE = "multipart/form-data; boundary=X"
FILE = b'Content-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'


def field(name: str, value: bytes = b"v") -> bytes:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value


def form(*parts: bytes) -> bytes:
    return b"".join(b"--X\r\n" + part + b"\r\n" for part in parts) + b"--X--\r\n"


def read(body: bytes, *, piece: int = 2**16, kind: str = TYPE) -> tuple[Form, bytes]:
    """The form, and the content of its file."""
    content = list[bytes]()
    reader = FormReader(kind, content.append)
    for start in range(0, len(body), piece):
        reader.feed(body[start : start + piece])
    return reader.end(), b"".join(content)


@pytest.mark.parametrize("piece", [1, 7, 2**16])
def test_a_form_is_its_fields_and_its_file(piece: int) -> None:
    lines = b"a\r\n--\r\n-X\r\n--Y\r\n" * 9
    whole = b"preamble\r\n" + form(field("purpose", b"batch"), FILE + lines, field("note", b"\xff")) + b"epilogue"
    assert read(whole, piece=piece) == (Form({"purpose": "batch", "note": "\ufffd"}, "a.jsonl"), lines)


def test_a_boundary_need_not_be_text() -> None:
    body = form(field("a")).replace(b"--X", b"--\xff")
    assert read(body, kind='multipart/form-data; boundary="\udcff"')[0].fields == {"a": "v"}


def test_a_form_may_have_no_file_and_no_field() -> None:
    assert read(b"--X--") == (Form({}, None), b"")
    assert read(form(b'Content-Disposition: form-data; name="file"\r\n\r\nx')) == (Form({}, "file"), b"x")


BROKEN: Mapping[str, bytes] = {
    "nothing": b"",
    "no boundary": b"no boundary at all",
    "cut off": form(FILE + b"x")[:-8],
    "no colon": form(b"nonsense\r\n\r\nx"),
    "no name of a header": form(b": b\r\n\r\nx"),
    "control character": form(b"A\x00: b\r\n\r\nx"),
    "no disposition": form(b"\r\nx"),
    "long header": form(b"A: " + b"b" * 9000 + b"\r\n\r\nx"),
    "endless header": b"--X\r\nA: " + b"b" * 10_000_000,
    "many headers": form(b"A: b\r\n" * 200 + b"\r\nx"),
    "not UTF-8": form(b'Content-Disposition: form-data; name="file"; filename="\xff"\r\n\r\nx'),
    "two files": form(FILE + b"x", FILE + b"x"),
    "large field": form(field("a", bytes(FIELD_BYTES + 1))),
    "many fields": form(*[field(f"a{number}") for number in range(FORM_FIELDS + 2)]),
    "many fields of one name": form(*[field("a")] * 100_000),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.timeout(10)
def test_anything_else_is_no_form(case: str) -> None:
    with pytest.raises(BadForm):
        read(BROKEN[case])


def test_a_form_that_was_cut_off_is_named_so() -> None:
    with pytest.raises(BadForm, match="it ends before its last part is complete"):
        read(BROKEN["cut off"])


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=", 'x; boundary="\n"'])
def test_a_form_needs_a_boundary(kind: str) -> None:
    with pytest.raises(BadForm):
        read(form(FILE), kind=kind)
