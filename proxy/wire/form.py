"""Reads a multipart form piece by piece: its fields, and one file, whose content is passed on as it comes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

FIELD_BYTES, FORM_FIELDS = 4096, 16  # of a form, beside its file
FORM_BYTES = FORM_FIELDS * 2 * FIELD_BYTES  # of a form without the file's content, about
_FILE = "file"  # the name of the field with the file


class BadForm(Exception):
    """It is not a form that is read here; `args[0]` says why."""


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form, and the name of the file in it; None if it has none."""

    fields: Mapping[str, str]
    filename: str | None


class FormReader:
    """One form. `write` gets the content of its file. Each method may raise BadForm, and block as `write` does."""

    def __init__(self, content_type: str, write: Callable[[bytes], object]) -> None:
        boundary = parse_options_header(content_type)[1].get("boundary", "")
        try:
            self._parser = PushMultipartParser(
                boundary.encode(errors="surrogateescape"), max_segment_count=FORM_FIELDS + 1
            )
        except MultipartError as error:
            raise BadForm(str(error)) from error
        self._write = write
        self._fields: dict[str, bytes] = {}
        self._name = ""  # of the field that is being read
        self._filename: str | None = None

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the form."""
        try:
            for event in self._parser.parse(data):
                if isinstance(event, MultipartSegment):
                    self._begin(event)
                elif event:
                    self._continue(event)
        except MultipartError as error:
            raise BadForm(str(error)) from error

    def end(self) -> Form:
        """The form, whose last bytes were read."""
        try:
            self._parser.close()
        except MultipartError as error:
            raise BadForm("it ends before its last part is complete") from error
        return Form({name: value.decode(errors="replace") for name, value in self._fields.items()}, self._filename)

    def _begin(self, part: MultipartSegment) -> None:
        self._name = part.name or ""
        if self._name != _FILE:
            self._fields[self._name] = b""
        elif self._filename is None:
            self._filename = part.filename or _FILE
        else:
            raise BadForm("it has two files")

    def _continue(self, content: bytes) -> None:
        if self._name == _FILE:
            self._write(content)
            return
        self._fields[self._name] += content
        if len(self._fields[self._name]) > FIELD_BYTES:
            raise BadForm(f"a field has more than {FIELD_BYTES} bytes")
