"""The routes, and the life of the server: `python app.py --port 8080`, with DATABASE_URL in the environment. See README.md."""

import argparse
import asyncio
import hashlib
import json
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID, uuid4

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import keys
from events import BODY_BYTES_MAX, PAYLOAD_BYTES_MAX, Event, is_storable, parse
from intake import Answers, Dedup, Pending, Processor
from problem import Problem
from store import UNAVAILABLE, Store

log = logging.getLogger("millrace.python")

TIERS = ("free", "pro", "business", "enterprise")
STATES = ("persisted", "delivered", "failed", "dead_letter")
DRAIN_S_MAX = 15.0
ACK_WAIT_S_MAX = 5.0


class Server:
    """What the routes share."""

    def __init__(self, store: Store, pending_events_max: int) -> None:
        self.store = store
        self.keys = keys.Keys(store)
        self.pending = Pending(pending_events_max)
        self.dedup = Dedup(store)
        self.answers = Answers()
        self.processor = Processor(store, self.pending)
        self.counts: Counter[str] = Counter()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    store = await Store.open(os.environ["DATABASE_URL"])
    server = app.state.server = Server(store, int(os.environ.get("PENDING_EVENTS_MAX", "50000")))
    await server.dedup.warm()
    processing = asyncio.create_task(server.processor.run())
    yield
    # By now nothing listens any more and all requests are answered.
    server.processor.stop()
    await asyncio.wait([processing], timeout=DRAIN_S_MAX)
    if lost := len(server.pending.events):
        log.error("stopped with %d acknowledged events that could not be persisted", lost)
        os._exit(1)
    await store.close()


async def generate_key(request: Request) -> Response:
    server: Server = request.app.state.server
    require_json(request)
    try:
        wanted = json.loads(await read_body(request))
    except (ValueError, RecursionError):
        raise Problem(400, "malformed-body", "the body is not JSON; send an object with 'organization_name'") from None
    if not isinstance(wanted, dict):
        raise Problem(400, "malformed-body", "the body is not an object; send one with 'organization_name'")
    name, tier = wanted.get("organization_name"), wanted.get("tier", "free")
    if not isinstance(name, str) or not 1 <= len(name) <= 255 or not is_storable(name):
        raise Problem.field("organization_name", "'organization_name' is not a string of 1 to 255 characters; send one")
    if tier not in TIERS:
        raise Problem.field("tier", f"'tier' is none of {', '.join(TIERS)}; send one of them, or leave it out")
    key, organization_id = keys.generate(), uuid4()
    await server.store.add_key(keys.hashed(key), organization_id, name, tier)
    # 0: no limit is enforced, whatever the tier.
    answer = {"organization_id": str(organization_id), "organization_name": name, "api_key": key, "tier": tier, "rate_limit_per_minute": 0}
    return JSONResponse(answer, 201)


async def post_event(request: Request) -> Response:
    server: Server = request.app.state.server
    organization_id = await server.keys.organization_of(request)
    require_json(request)
    repeat_key = request.headers.get("idempotency-key")
    if repeat_key is not None and not 1 <= len(repeat_key) <= 255:
        raise Problem.field("Idempotency-Key", "'Idempotency-Key' is not 1 to 255 characters long; send a shorter one")
    body = await read_body(request)
    event = Event(uuid4(), organization_id, *parse(body), datetime.now(UTC))
    if repeat_key is None:
        return accepted(await accept(server, event, None, b""))
    return accepted(await accept(server, event, (organization_id, repeat_key), hashlib.sha256(body).digest()))


async def accept(server: Server, event: Event, repeat_key: tuple[UUID, str] | None, fingerprint: bytes) -> UUID:
    """Takes in an event; the id that it returns may be acknowledged."""
    forgotten = None
    if event.dedup_id is not None:
        forgotten = await server.dedup.forgotten_holder(event.organization_id, event.dedup_id)
    # From here on nothing is awaited: of two requests at once, one is first, and is in the buffer before the other is told of it.
    if repeat_key and (first := server.answers.get(repeat_key, fingerprint)):
        return first
    if event.dedup_id is not None and (holder := server.dedup.holder(event.organization_id, event.dedup_id) or forgotten):
        server.counts["duplicate"] += 1
        detail = f"an event with this dedup_id was already accepted: its id is {holder}; don't send it again"
        raise Problem(409, "duplicate", detail, id=str(holder))
    server.pending.add(event)
    if event.dedup_id is not None:
        server.dedup.keep(event)
    if repeat_key:
        server.answers.keep(repeat_key, fingerprint, event.id)
    server.counts["acknowledged"] += 1
    return event.id


def accepted(id: UUID) -> Response:
    body = f'{{"id":"{id}","status":"accepted","durability":"memory"}}'
    return Response(body, 202, {"location": f"/api/events/{id}"}, "application/json")


async def get_event(request: Request) -> Response:
    server: Server = request.app.state.server
    organization_id = await server.keys.organization_of(request)
    id = event_id(request)
    # In this order: an event leaves the buffer only when it has a row.
    event = server.pending.events.get(id)
    if event is None or event.organization_id != organization_id:
        event = await server.store.event(organization_id, id)
    if event is None:
        raise no_event()
    return Response(event.json(), media_type="application/json")


async def inbox(request: Request) -> Response:
    server: Server = request.app.state.server
    organization_id = await server.keys.organization_of(request)
    asked = request.query_params
    state, limit, cursor = asked.get("status") or None, asked.get("limit", "100"), asked.get("cursor") or "0"
    if state is not None and state not in STATES:
        raise Problem.field("status", f"'status' is none of {', '.join(STATES)}; send one of them, or leave it out")
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:5]) <= 1000):
        raise Problem.field("limit", "'limit' is not a number from 1 to 1000")
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise Problem.field("cursor", "'cursor' is not the 'next_cursor' of a page")
    events, next_cursor = await server.store.inbox(organization_id, state, int(limit), int(cursor))
    cursor_json = json.dumps(None if next_cursor is None else str(next_cursor))
    body = f'{{"events":[{",".join(event.json() for event in events)}],"next_cursor":{cursor_json}}}'
    return Response(body, media_type="application/json")


async def acknowledge(request: Request) -> Response:
    server: Server = request.app.state.server
    organization_id = await server.keys.organization_of(request)
    id = event_id(request)
    # Its sender may read, and so acknowledge, an event that has no row yet.
    try:
        async with asyncio.timeout(ACK_WAIT_S_MAX):
            while id in server.pending.events:
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise Problem.unavailable("database-unavailable", "the event could not be persisted yet") from None
    if not await server.store.acknowledge(organization_id, id):
        raise no_event()
    return JSONResponse({"id": str(id), "state": "delivered"})


async def health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> Response:
    server: Server = request.app.state.server
    if not server.processor.store_answers:
        raise Problem.unavailable("database-unavailable", "the database does not answer")
    return JSONResponse({"status": "ready"})


async def metrics(request: Request) -> Response:
    server: Server = request.app.state.server
    processor = server.processor
    lines = [
        'ingest_build_info{version="python",mode="cache-first",polling="wake",database="PostgreSQL"} 1',
        f"ingest_pending_events {len(server.pending.events)}",
        f"ingest_pending_bytes {server.pending.bytes}",
        f"ingest_events_acknowledged_total {server.counts['acknowledged']}",
        f"ingest_events_persisted_total {processor.persisted}",
        f"ingest_events_duplicate_total {server.counts['duplicate']}",
        f"ingest_poll_interval_seconds {processor.poller.interval_s}",
        f"ingest_deep_idle {int(processor.poller.is_deep_idle)}",
    ]
    lines += [f'ingest_polls_total{{source="store",state="{state}"}} {count}' for state, count in processor.polls.items()]
    return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


def require_json(request: Request) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Problem(415, "content-type", "send the body as application/json")


async def read_body(request: Request) -> bytes:
    """The body; refused before it is read when it says that it is too long, and while it is read when it does not say so.

    What comes of it after the answer uvicorn throws away as it arrives.
    """
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and (len(length) > 12 or int(length) > BODY_BYTES_MAX):
        raise Problem.payload_too_large(PAYLOAD_BYTES_MAX)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise Problem.payload_too_large(PAYLOAD_BYTES_MAX)
    return bytes(body)


def event_id(request: Request) -> UUID:
    try:
        return UUID(request.path_params["id"])
    except ValueError:
        raise no_event() from None


def no_event() -> Problem:
    return Problem(404, "no-such-event", "this organisation has no event with this id")


async def on_problem(request: Request, problem: Problem) -> Response:
    return problem.response()


async def on_http(request: Request, error: HTTPException) -> Response:
    detail = "there is no such route" if error.status_code == 404 else "this route does not take this method"
    return Problem(error.status_code, "no-such-route", detail, dict(error.headers or {})).response()


async def on_unavailable(request: Request, error: Exception) -> Response:
    log.error("the database does not answer: %r", error)
    return Problem.unavailable("database-unavailable", "the database does not answer").response()


async def on_mistake(request: Request, error: Exception) -> Response:
    return Problem(500, "internal", "the server made a mistake; nothing was acknowledged").response()


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/api/keys/generate", generate_key, methods=["POST"]),
        Route("/api/events", post_event, methods=["POST"]),
        Route("/api/events/{id}", get_event),
        Route("/api/inbox", inbox),
        Route("/api/ack/{id}", acknowledge, methods=["POST"]),
        Route("/healthz", health),
        Route("/health", health),
        Route("/readyz", ready),
        Route("/metrics", metrics),
    ],
    exception_handlers={
        Problem: on_problem,
        HTTPException: on_http,
        **dict.fromkeys(UNAVAILABLE, on_unavailable),
        Exception: on_mistake,
    },
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    if "DATABASE_URL" not in os.environ:
        sys.exit("set DATABASE_URL, for example to postgres://user@127.0.0.1:5432/events")
    # uvicorn raises the signal again after a clean stop, which would end the process as if it had been killed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(app, host=arguments.host, port=arguments.port, access_log=False, log_level="warning", timeout_graceful_shutdown=10)


if __name__ == "__main__":
    main()
