"""What an event is, and from the bytes of a request to it (rules I1, I4, I5, I8). No clock of its own, no network, no store."""

import json
from dataclasses import dataclass
from datetime import datetime
from json.decoder import WHITESPACE
from uuid import UUID

from problem import Problem

PAYLOAD_BYTES_MAX = 256 * 1024
# What a body may hold beside the payload: two names of which each character may be sent as twelve bytes, keys, white space.
BODY_BYTES_MAX = PAYLOAD_BYTES_MAX + 16 * 1024
NAME_CHARACTERS_MAX = 255
FIELDS = ("type", "payload", "dedup_id")


@dataclass(slots=True)
class Event:
    id: UUID
    organization_id: UUID
    type: str
    dedup_id: str | None
    payload: str
    """JSON text as it was sent: a value that is parsed and written again loses big numbers and duplicate keys."""
    created_at: datetime
    state: str = "pending"
    persisted_at: datetime | None = None

    def json(self) -> str:
        head = f'{{"id":"{self.id}","type":{json.dumps(self.type)},"dedup_id":{json.dumps(self.dedup_id)},"payload":'
        tail = f',"state":"{self.state}","created_at":{_time(self.created_at)},"persisted_at":{_time(self.persisted_at)}}}'
        return head + self.payload + tail


def _time(at: datetime | None) -> str:
    return f'"{at:%Y-%m-%dT%H:%M:%S.%fZ}"' if at else "null"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# Numbers stay text: only where a value ends is of interest, and int() refuses what has thousands of digits.
_decoder = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant)


def parse(body: bytes) -> tuple[str, str | None, str]:
    """The `type`, the `dedup_id` and the payload's text of the event in a request's body."""
    try:
        members = _members(body.decode())
    except UnicodeDecodeError:
        raise Problem(400, "malformed-body", "the body is not UTF-8; send JSON in UTF-8") from None
    except RecursionError:
        raise Problem(400, "malformed-body", "the body is nested too deeply; send it flatter") from None
    except ValueError as error:
        raise Problem(400, "malformed-body", f"the body is not a JSON object: {error}") from None
    event_type = _name("type", members)
    if event_type is None:
        raise Problem.field("type", "'type' is missing; send a string of 1 to 255 characters")
    if "payload" not in members:
        raise Problem.field("payload", "'payload' is missing; send any JSON value")
    payload = members["payload"][1]
    if len(payload.encode()) > PAYLOAD_BYTES_MAX:
        raise Problem.payload_too_large(PAYLOAD_BYTES_MAX)
    return event_type, _name("dedup_id", members), payload


def _members(text: str) -> dict[str, tuple[object, str]]:
    """Each of the three fields that is there: its value and its text."""
    skip = lambda at: WHITESPACE.match(text, at).end()
    members: dict[str, tuple[object, str]] = {}
    at = skip(0)
    if text[at : at + 1] != "{":
        raise ValueError("an event is an object with 'type' and 'payload'")
    at = skip(at + 1)
    more = text[at : at + 1] != "}"
    while more:
        if text[at : at + 1] != '"':
            raise ValueError(f"a field's name is wanted at character {at}")
        name, at = _decoder.raw_decode(text, at)
        at = skip(at)
        if text[at : at + 1] != ":":
            raise ValueError(f"':' is wanted at character {at}")
        begin = skip(at + 1)
        value, end = _decoder.raw_decode(text, begin)
        if name in members:
            raise Problem.field(name, f"'{name}' is there twice; send it once")
        if name in FIELDS:
            members[name] = (value, text[begin:end])
        at = skip(end)
        more = text[at : at + 1] == ","
        at = skip(at + 1) if more else at
    if text[at : at + 1] != "}" or skip(at + 1) != len(text):
        raise ValueError(f"',' or the end of the object is wanted at character {at}")
    return members


def _name(field: str, members: dict[str, tuple[object, str]]) -> str | None:
    if field not in members:
        return None
    value, text = members[field]
    # A number stays text in this decoder, so the text tells what it is.
    if not text.startswith('"') or not 1 <= len(value) <= NAME_CHARACTERS_MAX:
        raise Problem.field(field, f"'{field}' is not a string of 1 to 255 characters; send one")
    if not is_storable(value):
        raise Problem.field(field, f"'{field}' holds a NUL character or half of a surrogate pair; send Unicode text without them")
    return value


def is_storable(text: str) -> bool:
    """PostgreSQL keeps no NUL, and half of a surrogate pair is no character."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
