"""All SQL. One process writes to a database (see README.md), so `seq` grows in the order of the commits."""

from datetime import datetime
from uuid import UUID

import asyncpg

from events import Event

# What these mean to a client: the database cannot be asked. Anything else is a mistake of ours.
UNAVAILABLE = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError)

SCHEMA = """
CREATE TABLE IF NOT EXISTS api_keys (
    key_hash BYTEA PRIMARY KEY,
    organization_id UUID NOT NULL,
    organization_name TEXT NOT NULL,
    tier TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
-- state: received (left to be taken in), persisted, delivered. The payload is text: JSONB would lose what was sent.
CREATE TABLE IF NOT EXISTS events (
    id UUID PRIMARY KEY,
    seq BIGSERIAL NOT NULL,
    organization_id UUID NOT NULL,
    type TEXT NOT NULL,
    dedup_id TEXT,
    payload TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    persisted_at TIMESTAMPTZ
);
CREATE INDEX IF NOT EXISTS events_inbox ON events (organization_id, seq);
CREATE INDEX IF NOT EXISTS events_dedup ON events (organization_id, dedup_id, created_at) WHERE dedup_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_received ON events (created_at) WHERE state = 'received';
"""

WRITE = """
INSERT INTO events (id, organization_id, type, dedup_id, payload, created_at, state, persisted_at)
SELECT *, 'persisted', clock_timestamp() FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
ON CONFLICT (id) DO NOTHING
"""

# A new seq, so that nothing appears behind a reader's cursor.
CLAIM = """
UPDATE events SET state = 'persisted', persisted_at = clock_timestamp(), seq = DEFAULT WHERE id IN
    (SELECT id FROM events WHERE state = 'received' ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED)
"""

EVENT = "id, organization_id, type, dedup_id, payload, created_at, state, persisted_at"


class Store:
    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool

    @classmethod
    async def open(cls, url: str) -> "Store":
        async def keep_as_is(_connection: asyncpg.Connection) -> None:
            """By default a connection is reset, four statements, each time it returns to the pool; nothing here changes its state."""

        pool = await asyncpg.create_pool(url, min_size=2, max_size=8, command_timeout=10, reset=keep_as_is)
        await pool.execute(SCHEMA)
        return cls(pool)

    async def close(self) -> None:
        await self.pool.close()

    async def add_key(self, key_hash: bytes, organization_id: UUID, name: str, tier: str) -> None:
        sql = "INSERT INTO api_keys (key_hash, organization_id, organization_name, tier) VALUES ($1, $2, $3, $4)"
        await self.pool.execute(sql, key_hash, organization_id, name, tier)

    async def organization_of(self, key_hash: bytes) -> UUID | None:
        return await self.pool.fetchval("SELECT organization_id FROM api_keys WHERE key_hash = $1", key_hash)

    async def write(self, events: list[Event]) -> None:
        rows = ((e.id, e.organization_id, e.type, e.dedup_id, e.payload, e.created_at) for e in events)
        await self.pool.execute(WRITE, *zip(*rows))

    async def claim(self, events_max: int) -> int:
        """Takes in rows that are left in the table as `received`; how many."""
        return int((await self.pool.execute(CLAIM, events_max)).removeprefix("UPDATE "))

    async def holder(self, organization_id: UUID, dedup_id: str, since: datetime) -> UUID | None:
        sql = "SELECT id FROM events WHERE organization_id = $1 AND dedup_id = $2 AND created_at > $3 ORDER BY created_at DESC LIMIT 1"
        return await self.pool.fetchval(sql, organization_id, dedup_id, since)

    async def dedup_ids(self, since: datetime, rows_max: int) -> list[asyncpg.Record]:
        """The newest ones, newest first."""
        sql = """SELECT organization_id, dedup_id, id, created_at FROM events WHERE dedup_id IS NOT NULL AND created_at > $1
                 ORDER BY created_at DESC LIMIT $2"""
        return await self.pool.fetch(sql, since, rows_max)

    async def event(self, organization_id: UUID, id: UUID) -> Event | None:
        sql = f"SELECT {EVENT} FROM events WHERE organization_id = $1 AND id = $2 AND state <> 'received'"
        row = await self.pool.fetchrow(sql, organization_id, id)
        return Event(**row) if row else None

    async def inbox(self, organization_id: UUID, state: str | None, limit: int, after: int) -> tuple[list[Event], int | None]:
        """One page, and where the next begins if there may be one."""
        sql = f"""SELECT seq, {EVENT} FROM events WHERE organization_id = $1 AND seq > $2 AND state <> 'received'
                  AND ($3::text IS NULL OR state = $3) ORDER BY seq LIMIT $4"""
        rows = await self.pool.fetch(sql, organization_id, after, state, limit)
        return [Event(*list(row)[1:]) for row in rows], rows[-1]["seq"] if len(rows) == limit else None

    async def acknowledge(self, organization_id: UUID, id: UUID) -> bool:
        sql = "UPDATE events SET state = 'delivered' WHERE organization_id = $1 AND id = $2 AND state <> 'received'"
        return await self.pool.execute(sql, organization_id, id) == "UPDATE 1"
