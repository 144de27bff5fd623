"""Between the 202 and the row: what is pending, which `dedup_id` is taken, and the processor that persists.

All of it runs on one event loop, so whatever has no `await` in it is atomic.
"""

import asyncio
import logging
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import UUID

from events import Event
from problem import Problem
from store import Store

log = logging.getLogger("millrace.python")

BATCH_EVENTS_MAX = 500
PENDING_BYTES_MAX = 64 * 1024 * 1024
# What an event takes beside its payload.
EVENT_OVERHEAD_BYTES = 1024
RETRY_S = 0.5

DEDUP_WINDOW = timedelta(hours=24)
DEDUP_ENTRIES_MAX = 500_000


class Pending:
    """Acknowledged, not yet persisted; oldest first. What does not fit is refused, never dropped."""

    def __init__(self, events_max: int) -> None:
        self.events_max = events_max
        self.events: dict[UUID, Event] = {}
        self.bytes = 0
        self.arrived = asyncio.Event()

    def add(self, event: Event) -> None:
        size = len(event.payload) + EVENT_OVERHEAD_BYTES
        if len(self.events) >= self.events_max or self.bytes + size > PENDING_BYTES_MAX:
            raise Problem.unavailable("full", "the server holds as much unfinished work as it may")
        self.events[event.id] = event
        self.bytes += size
        self.arrived.set()

    def oldest(self) -> list[Event]:
        return list(islice(self.events.values(), BATCH_EVENTS_MAX))

    def remove(self, events: list[Event]) -> None:
        for event in events:
            del self.events[event.id]
            self.bytes -= len(event.payload) + EVENT_OVERHEAD_BYTES


class Dedup:
    """The ids of the last 24 h, the newest in memory. Only when there were too many is the database asked for those that were forgotten."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.known: dict[tuple[UUID, str], tuple[UUID, datetime]] = {}
        self.forgotten: datetime | None = None
        """When the newest event was taken in that is in its window and not in memory."""

    async def warm(self) -> None:
        rows = await self.store.dedup_ids(datetime.now(UTC) - DEDUP_WINDOW, DEDUP_ENTRIES_MAX)
        self.known = {(row["organization_id"], row["dedup_id"]): (row["id"], row["created_at"]) for row in reversed(rows)}
        if len(rows) == DEDUP_ENTRIES_MAX:
            self.forgotten = rows[-1]["created_at"]

    def holder(self, organization_id: UUID, dedup_id: str) -> UUID | None:
        known = self.known.get((organization_id, dedup_id))
        return known[0] if known and known[1] > datetime.now(UTC) - DEDUP_WINDOW else None

    async def forgotten_holder(self, organization_id: UUID, dedup_id: str) -> UUID | None:
        since = datetime.now(UTC) - DEDUP_WINDOW
        if self.forgotten is None or self.forgotten <= since:
            return None
        return await self.store.holder(organization_id, dedup_id, since)

    def keep(self, event: Event) -> None:
        key = (event.organization_id, event.dedup_id)
        self.known.pop(key, None)
        self.known[key] = (event.id, event.created_at)
        # The oldest is first. More entries than events may be pending, so what is forgotten is persisted.
        if len(self.known) > DEDUP_ENTRIES_MAX:
            self.forgotten = self.known.pop(next(iter(self.known)))[1]


class Answers:
    """First answers by `Idempotency-Key`, in memory alone; the oldest go when there are too many."""

    ENTRIES_MAX = 100_000

    def __init__(self) -> None:
        self.kept: dict[tuple[UUID, str], tuple[bytes, UUID, datetime]] = {}

    def get(self, key: tuple[UUID, str], fingerprint: bytes) -> UUID | None:
        kept = self.kept.get(key)
        if kept is None or kept[2] <= datetime.now(UTC) - DEDUP_WINDOW:
            return None
        if kept[0] != fingerprint:
            detail = "this Idempotency-Key was used with another body; use a new key for a new request"
            raise Problem(422, "idempotency-key-reused", detail)
        return kept[1]

    def keep(self, key: tuple[UUID, str], fingerprint: bytes, id: UUID) -> None:
        self.kept.pop(key, None)
        self.kept[key] = (fingerprint, id, datetime.now(UTC))
        if len(self.kept) > self.ENTRIES_MAX:
            del self.kept[next(iter(self.kept))]


class Poller:
    """How long to wait after a poll: 100 ms, doubling to 2 s while nothing is found; from the tenth empty poll in a row on, 30 s."""

    BASE_S, BACKOFF_S_MAX, DEEP_IDLE_S, DEEP_IDLE_AFTER = 0.1, 2.0, 30.0, 10

    def __init__(self) -> None:
        self.empty = 0

    @property
    def is_deep_idle(self) -> bool:
        return self.empty >= self.DEEP_IDLE_AFTER

    @property
    def interval_s(self) -> float:
        if self.is_deep_idle:
            return self.DEEP_IDLE_S
        return min(self.BASE_S * 2 ** max(self.empty - 1, 0), self.BACKOFF_S_MAX)

    def polled(self, found: int) -> None:
        was_deep_idle = self.is_deep_idle
        self.empty = 0 if found else self.empty + 1
        if was_deep_idle != self.is_deep_idle:
            log.info("deep idle %s", "entered" if self.is_deep_idle else "left")


class Processor:
    """Writes what is pending in batches, then looks for rows that were left in the table; waits as the poller says, or until an event arrives."""

    def __init__(self, store: Store, pending: Pending) -> None:
        self.store, self.pending, self.poller = store, pending, Poller()
        self.is_stopping = False
        self.store_answers = True
        self.polls: Counter[str] = Counter()
        self.persisted = 0

    async def run(self) -> None:
        while not (self.is_stopping and not self.pending.events):
            try:
                found = await self.write()
                if found < BATCH_EVENTS_MAX:
                    found = max(found, await self.look())
                self.store_answers = True
            except Exception:
                # Whatever it is: the events stay pending, and the buffer's bound is what protects this process.
                self.store_answers = False
                log.exception("could not persist; %d events are pending", len(self.pending.events))
                await asyncio.sleep(RETRY_S)
                continue
            if found < BATCH_EVENTS_MAX:
                await self.rest(found)

    async def write(self) -> int:
        events = self.pending.oldest()
        if events:
            await self.store.write(events)
            self.pending.remove(events)
            self.persisted += len(events)
        return len(events)

    async def look(self) -> int:
        found = await self.store.claim(BATCH_EVENTS_MAX)
        self.polls["empty" if found == 0 else "partial" if found < BATCH_EVENTS_MAX else "full"] += 1
        return found

    async def rest(self, found: int) -> None:
        self.poller.polled(found)
        wait_s = self.poller.interval_s
        # The shortest wait is not worth cutting: under load that would be a batch for each event.
        if wait_s <= Poller.BASE_S and not self.is_stopping:
            await asyncio.sleep(wait_s)
        elif not self.pending.events and not self.is_stopping:
            self.pending.arrived.clear()
            try:
                await asyncio.wait_for(self.pending.arrived.wait(), wait_s)
            except TimeoutError:
                pass

    def stop(self) -> None:
        """What is pending is still persisted; `run` returns after that."""
        self.is_stopping = True
        self.pending.arrived.set()
