"""AMQP 0-9-1 as far as a publisher needs it: frames to bytes, and bytes to frames. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

PROTOCOL = b"AMQP\x00\x00\x09\x01"
METHOD, HEADER, BODY, HEARTBEAT_FRAME = 1, 2, 3, 8

# Methods, as class and method in one number.
START, START_OK, TUNE, TUNE_OK = 0xA000A, 0xA000B, 0xA001E, 0xA001F
OPEN, OPEN_OK, CLOSE, CLOSE_OK = 0xA0028, 0xA0029, 0xA0032, 0xA0033
BLOCKED, UNBLOCKED = 0xA003C, 0xA003D
CHANNEL_OPEN, CHANNEL_OPEN_OK, CHANNEL_CLOSE, CHANNEL_CLOSE_OK = 0x14000A, 0x14000B, 0x140028, 0x140029
SELECT, SELECT_OK = 0x55000A, 0x55000B
PUBLISH, RETURN, ACK, NACK = 0x3C0028, 0x3C0032, 0x3C0050, 0x3C0078

_END = b"\xce"
AROUND = 8  # bytes of a frame beside its payload
_head = Struct(">BHI")
_u32 = Struct(">I").pack
_content = Struct(">IQHB").pack  # class and weight, size of the body, which properties, delivery mode
_method = Struct(">I").unpack_from
_confirm = Struct(">QB").unpack_from
_tune = Struct(">HIH")
_closed = Struct(">HB").unpack_from

_BASIC = 60 << 16  # with a weight of 0
_PERSISTENT = 2
_MANDATORY = 1
# The bits of the properties, in the order in which their values follow. Those before the message's id are skipped in
# what the broker returns.
_CONTENT_TYPE, _ENCODING, _HEADERS, _MODE, _PRIORITY = 0x8000, 0x4000, 0x2000, 0x1000, 0x800
_CORRELATION, _REPLY_TO, _EXPIRATION, _MESSAGE_ID, _TYPE = 0x400, 0x200, 0x100, 0x80, 0x20


class Malformed(ValueError):
    """These bytes are no frame that a broker may send."""


class Frame(NamedTuple):
    kind: int
    channel: int
    payload: bytes


class Tune(NamedTuple):
    """What a connection is limited to: channels, bytes of a frame, seconds between two heartbeats. 0 is no limit."""

    channels: int
    frame: int
    heartbeat: int


# To bytes --------------------------------------------------------------------------------------------------------


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return _head.pack(kind, channel, len(payload)) + payload + _END


HEARTBEAT = frame(HEARTBEAT_FRAME, 0, b"")


def method(channel: int, number: int, arguments: bytes = b"") -> bytes:
    return frame(METHOD, channel, _u32(number) + arguments)


def short(text: str) -> bytes:
    data = text.encode()
    return bytes((len(data),)) + data


def _long(data: bytes) -> bytes:
    return _u32(len(data)) + data


def table(values: dict[str, str | bool | dict[str, bool]]) -> bytes:
    items = b""
    for name, value in values.items():
        items += short(name)
        if isinstance(value, bool):
            items += b"t\x01" if value else b"t\x00"
        elif isinstance(value, str):
            items += b"S" + _long(value.encode())
        else:
            items += b"F" + table(dict(value))
    return _long(items)


def start_ok(user: str, password: str, properties: dict[str, str | bool | dict[str, bool]]) -> bytes:
    answer = b"\x00" + user.encode() + b"\x00" + password.encode()
    return method(0, START_OK, table(properties) + short("PLAIN") + _long(answer) + short("en_US"))


def tune_ok(tune: Tune) -> bytes:
    return method(0, TUNE_OK, _tune.pack(*tune))


def publish_to(channel: int, queue: str) -> bytes:
    """The first frame of each message to this queue, which has nothing of the message itself."""
    return method(channel, PUBLISH, b"\x00\x00" + short("") + short(queue) + bytes((_MANDATORY,)))


def content(channel: int, tag: int, kind: str | None, body: bytes, most: int) -> list[bytes]:
    """The other frames of a persistent message, each of at most ``most`` bytes. Its id is its delivery tag."""
    properties = short(str(tag))
    flags = _MODE | _MESSAGE_ID
    if kind is not None:
        properties += short(kind)
        flags |= _TYPE
    frames = [frame(HEADER, channel, _content(_BASIC, len(body), flags, _PERSISTENT) + properties)]
    room = most - AROUND
    if len(body) <= room:
        if body:
            frames.append(frame(BODY, channel, body))
    else:
        frames += (frame(BODY, channel, body[at : at + room]) for at in range(0, len(body), room))
    return frames


# From bytes ------------------------------------------------------------------------------------------------------


class Frames:
    """Cuts what arrives into frames of at most ``most`` bytes. It holds less than one frame."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Raises Malformed."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= _head.size:
            kind, channel, size = _head.unpack_from(data, at)
            if size + AROUND > self.most:
                raise Malformed(f"a frame of {size + AROUND} bytes")
            after = at + size + AROUND
            if after > end:
                break
            if data[after - 1] != _END[0]:
                raise Malformed("a frame without an end")
            yield Frame(kind, channel, data[at + _head.size : after - 1])
            at = after
        self._rest = data[at:]


def method_of(payload: bytes) -> int:
    return int(_method(payload)[0])


def confirm_of(payload: bytes) -> tuple[int, bool]:
    """Of an ack or a nack: the delivery tag, and whether it stands for all up to it."""
    tag, bits = _confirm(payload, 4)
    return tag, bool(bits & 1)


def tune_of(payload: bytes) -> Tune:
    return Tune(*_tune.unpack_from(payload, 4))


def mechanisms_of(payload: bytes) -> list[bytes]:
    """How the broker lets clients log in."""
    at = 4 + 2  # the version
    at += 4 + _length(payload, at)  # its properties
    return payload[at + 4 : at + 4 + _length(payload, at)].split()


def reason_of(payload: bytes, at: int = 4) -> str:
    """Why the connection is blocked."""
    return payload[at + 1 : at + 1 + payload[at]].decode(errors="replace")


def closed_of(payload: bytes) -> str:
    """Why the connection or the channel was closed."""
    code, _ = _closed(payload, 4)
    return f"{code} {reason_of(payload, 6)}"


def tag_of(header: bytes) -> int:
    """The delivery tag of a returned message, which is its id. Raises Malformed."""
    flags, at = int.from_bytes(header[12:14]), 14
    for bit in (
        _CONTENT_TYPE,
        _ENCODING,
        _HEADERS,
        _MODE,
        _PRIORITY,
        _CORRELATION,
        _REPLY_TO,
        _EXPIRATION,
    ):
        if flags & bit:
            if bit == _HEADERS:
                at += 4 + _length(header, at)
            elif bit in (_MODE, _PRIORITY):
                at += 1
            else:
                at += 1 + header[at]
    text = header[at + 1 : at + 1 + header[at]] if flags & _MESSAGE_ID else b""
    if not text.isdigit():
        raise Malformed("a returned message without our id")
    return int(text)


def _length(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4])
