"""How many logins and registrations are allowed, what a client with more is told, and how long ended sessions are
known. The same for every adapter.
"""

from __future__ import annotations

from typing import NamedTuple

from hubbub.chat.errors import UsedUp

# After it would have expired by itself, an ended session is known for so long still: a clock that is set ahead for a
# while drops none whose token counts again when the clock is right.
ENDED_SESSION_KEPT_MS = 90 * 24 * 3600 * 1000


class Limit(NamedTuple):
    """So many at once (``most``), and then one more every ``each_ms``: a generic cell rate. What succeeds does not
    count where only ``failures`` do.
    """

    name: str
    most: int
    each_ms: int
    failures: bool
    sentence: str

    def refusal(self, key: str, wait_ms: float) -> UsedUp:
        """Of what has used this up, for ``wait_ms`` from now on."""
        return UsedUp(self.sentence, what=f"{self.name}:{key}", limit=self.most, retry_after=max(wait_ms / 1000, 1))


# Ten in five minutes: a user who has forgotten the password tries less often, and a guesser gets nowhere.
FAILURES_HERE = Limit(
    "here",
    10,
    30_000,
    failures=True,
    sentence="Too many failed logins to this account from your address. Wait before you try again.",
)
# 3,000 an hour: an office behind one address, or a network that one customer of a provider has (IPv6).
FAILURES_OF_ADDRESS = Limit(
    "address",
    3000,
    1200,
    failures=True,
    sentence="Too many failed logins from your address. Wait before you try again.",
)
# Slowed and not locked: a guesser must not keep the owner out.
FAILURES_OF_ACCOUNT = Limit(
    "account",
    100,
    10_000,
    failures=True,
    sentence="Too many failed logins to this account, from all addresses together. Try again in some seconds; "
    "a client that is already logged in does not have to wait.",
)
# Counted apart, so that strangers can't block a user who is logged in. People seldom mistype; a thief of a session must
# not find out the password. An owner who is blocked by one logs in without a session, and ends all sessions.
FAILURES_OF_SESSIONS = Limit(
    "sessions",
    30,
    60_000,
    failures=True,
    sentence="Too many wrong passwords were sent with sessions of this account. Wait before you try again.",
)
# Each costs some ten milliseconds of a core for a password's hash, also one that succeeds. A company or a load test may
# come at once; who goes on takes a part of a core.
REQUESTS_OF_ADDRESS = Limit(
    "came",
    6000,
    100,
    failures=False,
    sentence="Too many registrations, logins and new passwords come from your address. Wait before you try again.",
)
# A program that fills the database continues for longer than people do.
REGISTRATIONS_OF_ADDRESS = Limit(
    "registered",
    6000,
    1000,
    failures=False,
    sentence="Too many accounts are created from your address. Wait before you try again.",
)
# As for failed logins. Codes have 128 random bits: a guesser gets nowhere anyway.
WRONG_CODES_OF_ADDRESS = Limit(
    "codes",
    3000,
    1200,
    failures=True,
    sentence="Too many wrong codes come from your address. Wait before you try again.",
)
# Each may be a mail that nobody wants.
RESETS_OF_ADDRESS = Limit(
    "resets",
    30,
    60_000,
    failures=False,
    sentence="Too many password resets are requested from your address. Wait before you try again.",
)
RESETS_OF_ACCOUNT = Limit(
    "mailed",
    3,
    600_000,
    failures=False,
    sentence="Too many password resets are requested for this email. Look for a mail, or wait.",
)
# Each has every process read again who the user is, and what it remembers of messages. People do it once a year.
RENAMES_OF_USER = Limit(
    "renamed",
    20,
    180_000,
    failures=False,
    sentence="You have changed your name too often. Wait before you change it again.",
)
# In one process: half of the passwords that may wait there (http.passwords), so that the others have room.
AT_ONCE_OF_ADDRESS = 250
