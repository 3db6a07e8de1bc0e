"""What the processes of the embedded mode send each other: frames, each with its length before it.

Both ends are of the same version, and one has forked the other. So an outcome that is no plain number is sent as a
pickle.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import msgspec

from hubbub.chat.commands import Outcome

_LENGTH_BYTES = 4


class Frames:
    """Finds the frames in the bytes that come on a socket."""

    def __init__(self) -> None:
        self._got = bytearray()

    def take(self, data: bytes) -> list[bytes]:
        """The contents of the frames that are complete with these bytes."""
        got = self._got
        got += data
        at = 0
        contents = []
        while len(got) - at >= _LENGTH_BYTES:
            begin = at + _LENGTH_BYTES
            end = begin + int.from_bytes(got[at:begin], "little")
            if end > len(got):
                break
            contents.append(bytes(got[begin:end]))
            at = end
        del got[:at]
        return contents


def frame(content: bytes) -> bytes:
    return len(content).to_bytes(_LENGTH_BYTES, "little") + content


def array(encoded: Sequence[bytes]) -> bytes:
    """The encoded array of values that are encoded already (MessagePack's array 32)."""
    return b"\xdd" + len(encoded).to_bytes(4, "big") + b"".join(encoded)


class Logged(msgspec.Struct, tag=True, array_like=True):
    """A record of a process's log, which the first process writes. It is pickled, with its text complete."""

    record: bytes


class Unsound(msgspec.Struct, tag=True, array_like=True):
    """A process has found that the database is not usable, see embedded.soundness. ``fault`` says why."""

    fault: str


def packed(outcomes: Sequence[Outcome]) -> list[int | bytes | None]:
    return [each if each is None or type(each) is int else pickle.dumps(each) for each in outcomes]


def unpacked(outcome: int | bytes | None) -> Outcome:
    # The bytes come from a process of our own, over a socket that nobody else has.
    return pickle.loads(outcome) if type(outcome) is bytes else outcome  # noqa: S301
