"""Converts what a client sent to typed fields, or to one sentence for each wrong field."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec

from hubbub.chat.errors import Invalid, Malformed

S = TypeVar("S", bound=msgspec.Struct)

_LARGEST = 2**53 - 1  # the largest whole number that JSON keeps exact everywhere (RFC 8259, section 6)
_MISSING = object()
_UNFIT = object()
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_fields_of = cache(msgspec.structs.fields)
_MOST_FIELDS = 1000  # of a body whose unknown fields are named
# Of unknown fields, so that a refusal costs little.
_MOST_NAMED = 20
_LONGEST_NAME = 100


def fields(kind: type[S], body: bytes) -> S:
    """The JSON object in ``body`` as a ``kind``.

    Raises:
        Malformed: not JSON, or not an object.
        Invalid: one or more fields are missing or wrong, or are none of this kind.
    """
    try:
        body.decode()  # what is in no field is not looked at below, and JSON is UTF-8
        given, unknown = _given(kind, body or b"{}")
        content = {name: _plain(value) for name, value in given.items()}
    except msgspec.ValidationError:
        raise Malformed("The body must be a JSON object.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"The body is not valid JSON: {error}.") from None
    return convert(kind, content, unknown)


def _given(kind: type[msgspec.Struct], body: bytes) -> tuple[dict[str, msgspec.Raw], list[str]]:
    """The fields of a ``kind`` that the body has, and a sentence for each other field. If the body may have many
    fields, one sentence is for all others: to make a list of them would hold the event loop.
    """
    has = [field.encode_name for field in _fields_of(kind)]
    if body.count(b":") <= _MOST_FIELDS:
        given = _decode(body)
        return {name: given[name] for name in has if name in given}, _unknown(given, has)
    found = zip(has, msgspec.structs.astuple(_raw(kind, closed=False).decode(body)), strict=True)
    try:
        _raw(kind, closed=True).decode(body)
        unknown = []
    except msgspec.ValidationError:
        unknown = [f"there are fields that are not of this request; it has: {', '.join(has)}"]
    return {name: value for name, value in found if value}, unknown


@cache
def _raw(kind: type[msgspec.Struct], *, closed: bool) -> msgspec.json.Decoder[msgspec.Struct]:
    """Decodes the values of a kind's fields as JSON, empty where a field is missing. Other fields are an error if it is
    ``closed``, else ignored."""
    members = [
        (field.name, msgspec.Raw, msgspec.field(default=msgspec.Raw(), name=field.encode_name))
        for field in _fields_of(kind)
    ]
    return msgspec.json.Decoder(msgspec.defstruct(kind.__name__, members, forbid_unknown_fields=closed))


def _plain(value: msgspec.Raw) -> Any:
    """The value of a string, a number, a boolean or null. No field takes anything else, and lists and objects are not
    made, for as many as a body has room for would hold the event loop. Nor does one take a number that can't be one of
    Python's, as 1e999.
    """
    if bytes(memoryview(value)[:1]) in (b"[", b"{"):
        return _UNFIT
    try:
        return msgspec.json.decode(value)
    except msgspec.ValidationError:
        return _UNFIT


def _unknown(given: Collection[str], has: list[str]) -> list[str]:
    """A sentence for each field that is none of those that a request ``has``, up to some."""
    unknown = [name for name in given if name not in has]
    sentences = [
        f"{name[:_LONGEST_NAME]} is not a field of this request; it has: {', '.join(has)}"
        for name in unknown[:_MOST_NAMED]
    ]
    if len(unknown) > _MOST_NAMED:
        sentences.append(f"{len(unknown) - _MOST_NAMED} further names are not fields of this request")
    return sentences


def convert(kind: type[S], content: Mapping[str, Any], wrong: Sequence[str] = ()) -> S:
    """``content`` as a ``kind``, each field checked by itself. Other fields are ignored.

    Raises:
        Invalid: one or more fields are missing or wrong. ``wrong`` is what the caller has found wrong.
    """
    values: dict[str, Any] = {}
    errors = [*wrong]
    for field in _fields_of(kind):
        value = content.get(field.encode_name, _MISSING)
        if value is _MISSING:
            if field.required:
                errors.append(f"{field.encode_name} is required: {_expected(field.type)}")
            continue
        if type(value) is float and value.is_integer() and _takes_int(field.type):
            value = int(value)  # 1.0 is an integer too (JSON Schema, section 6.1.1 of its validation)
        try:
            values[field.name] = msgspec.convert(value, field.type)
        except msgspec.ValidationError:
            errors.append(f"{field.encode_name} must be {_expected(field.type)}")
    if errors:
        raise Invalid(errors)
    return kind(**values)


def _expected(kind: Any) -> str:
    """What a field takes, in words."""
    return _words(msgspec.inspect.type_info(kind))


def _words(info: msgspec.inspect.Type) -> str:
    if isinstance(info, msgspec.inspect.Metadata):
        return _words(info.type)
    if isinstance(info, msgspec.inspect.StrType):
        if info.min_length and info.max_length:
            return f"a string of {info.min_length} to {info.max_length} characters"
        return f"a string of at most {info.max_length} characters" if info.max_length is not None else "a string"
    if isinstance(info, msgspec.inspect.IntType):
        return f"a whole number from {info.ge} to {info.le}"
    if isinstance(info, msgspec.inspect.LiteralType):
        return " or ".join(f'"{value}"' for value in info.values)
    if isinstance(info, msgspec.inspect.UnionType):
        return " or ".join(_words(part) for part in info.types if not isinstance(part, msgspec.inspect.NoneType))
    raise TypeError(f"no words for {info}")


def query(kind: type[S], text: bytes) -> S:
    """The query string as a ``kind``; the last of a repeated parameter counts, unknown ones are ignored.

    Raises:
        Invalid: a parameter is wrong, or the query is not UTF-8.
    """
    try:
        pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=50)
    except ValueError:
        raise Invalid(["the query string must be percent-encoded UTF-8 of at most 50 parameters"]) from None
    content: dict[str, Any] = dict(pairs)
    for field in _fields_of(kind):
        if field.encode_name in content and _takes_int(field.type):
            value = content[field.encode_name]
            if value.isascii() and value.isdigit() and len(value) < 17:
                content[field.encode_name] = int(value)
    return convert(kind, content)


def _takes_int(kind: Any) -> bool:
    return kind is int or any(_takes_int(part) for part in get_args(kind) if get_origin(kind) is not None)


def number(text: str) -> int | None:
    """The number of a chat or a message in a path; None if it can't be one."""
    if text.isascii() and text.isdigit() and len(text) < 17:
        value = int(text)
        return value if 0 < value <= _LARGEST else None
    return None
