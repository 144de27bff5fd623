"""API keys: `mr_live_`, 160 random bits, and a CRC-32 of all before it, by which a typing error is refused without a look-up."""

import hashlib
import secrets
import zlib
from uuid import UUID

from starlette.requests import Request

from problem import Problem
from store import Store

PREFIX = "mr_live_"
CACHE_ENTRIES_MAX = 10_000


def generate() -> str:
    body = PREFIX + secrets.token_hex(20)
    return body + _checksum(body)


def hashed(key: str) -> bytes:
    # No slow hash: nobody guesses 160 random bits.
    return hashlib.sha256(key.encode()).digest()


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"


class Keys:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.known: dict[bytes, UUID] = {}

    async def organization_of(self, request: Request) -> UUID:
        """By the key in the headers; kept in memory, since a key never changes its owner and none can be revoked."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "").strip()
        if key.startswith(PREFIX) and _checksum(key[:-8]) == key[-8:]:
            key_hash = hashed(key)
            organization_id = self.known.get(key_hash) or await self.store.organization_of(key_hash)
            if organization_id:
                if len(self.known) >= CACHE_ENTRIES_MAX:
                    self.known.clear()
                self.known[key_hash] = organization_id
                return organization_id
        detail = "send a valid API key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'; POST /api/keys/generate makes one"
        raise Problem(401, "invalid-api-key", detail, {"www-authenticate": "Bearer"})
