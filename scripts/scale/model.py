#!/usr/bin/env python3
"""A simulation of generator, servers, Redis and PostgreSQL on machines with so many cores. It is fitted on some of the rates that were measured on
one machine (scripts/scale/measure), has to foretell the others, and only then says what more of everything would need (docs/scale.md).

    scripts/scale/model.py [FILE.json]            fit, reproduce, extrapolate, as Markdown
    scripts/scale/model.py check [FILE.json]      its own tests and the reproduction, in short; exit code 1 when either is worse than its bound
    scripts/scale/model.py fit [FILE.json]        the constants, and what they are fitted on

FILE is what scripts/scale/measure writes [default: the newest results/*-scale/measured.json with its constants]. The constants are read from
constants.json beside it, and are the newest committed ones when there is none.

What it knows: a thread that is idle is woken by work, which costs it something more than the work; what comes while it works costs the work
alone. Threads share the cores in turns of a quantum; background threads give way. The generator spins before each time that is due. Events wait for
the processor, which writes them in batches. What it does not know: caches, hyperthreads, the host's other guests, the network, disks.
"""
import heapq, json, math, random, statistics, sys
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# What is fitted, and what has to be foretold from that.
FITTED_RATES = (1000, 5000, None)
HELD_OUT_RATES = (2500, 10000, 20000)

# From the server's source: see processor.rs, polling.rs, queue/drain.rs, runtime.rs.
BATCH_EVENTS_MAX = 1000
POLL_S = 0.1
READ_ENTRIES_MAX = 128
READ_PAUSE_S = 0.025
TAKEN_EVENTS_MAX = 4000
PENDING_EVENTS_MAX = 100_000


# A read of Redis costs the background as much as this share of a batch: they are not told apart by what is measured.
BACKGROUND_READ = 0.2

# --- machines -------------------------------------------------------------------------------------------------------------------------------


# What is nearer than this is now: sums of times are not exact, and what is left of work must not be less than the clock can tell.
NANOSECOND = 1e-9


class Clock:
    """Events in the order of time."""

    def __init__(self):
        self.now, self.heap, self.count = 0.0, [], 0

    def at(self, time, call, argument=None):
        self.count += 1
        heapq.heappush(self.heap, (time, self.count, call, argument))

    def run(self, until):
        heap, pop = self.heap, heapq.heappop
        while heap and heap[0][0] <= until:
            self.now, _, call, argument = pop(heap)
            call(argument)
        self.now = until


class Thread:
    """Work in the order it came. `wake_s` is what being woken costs: a part before the work, the rest when nothing is left; what comes in that time
    finds the thread awake."""

    __slots__ = ("machine", "wake_s", "sleep_s", "closing", "closes", "background", "items", "state", "core", "since", "slice_end", "cpu_s", "wakes", "on_empty", "spins", "spin_s", "waiting_s", "ready_since")
    IDLE, READY, RUNNING = 0, 1, 2

    def __init__(self, machine, wake_s=0.0, background=False, on_empty=None):
        self.machine, self.background, self.on_empty = machine, background, on_empty
        self.wake_s, self.sleep_s, self.closing = wake_s * machine.wake_before, wake_s * (1 - machine.wake_before), False
        self.items, self.state, self.core = deque(), self.IDLE, None
        self.since = self.slice_end = self.cpu_s = self.spin_s = self.waiting_s = self.ready_since = 0.0
        self.wakes, self.closes, self.spins = 0, 0, False

    def wakings(self):
        """How often `wake_s` was paid for."""
        share = self.machine.wake_before
        return self.wakes * share + (self.closes if self.sleep_s else self.wakes) * (1 - share)

    def give(self, seconds, done=None, argument=None):
        """Work: `done(argument)` is called when it is done."""
        if self.spins:
            self.machine.end_spin(self)
        if self.state == self.IDLE:
            self.wakes += 1
            seconds += self.wake_s
        self.items.append([seconds, done, argument])
        if self.state == self.IDLE:
            self.machine.ready(self)

    def spin(self, seconds, done):
        """Looks again and again until then, or until work comes. Only from `on_empty`."""
        self.spins = True
        self.items.append([seconds, done, None])


class Core:
    __slots__ = ("thread", "epoch", "waiting")

    def __init__(self):
        self.thread, self.epoch, self.waiting = None, 0, deque()


class Machine:
    """Cores and the threads that share them. A thread that wakes takes a core that idles, its last one first; if none does it waits at its last
    one until whoever works there waits for something or has had its quantum. A core that falls idle takes over who waits at another one, unless that
    has run a moment ago (its cache is there). Those in the background are behind the others of their core."""

    def __init__(self, clock, cores, quantum_s=0.003, wake_before=1.0, hot_s=0.0005):
        self.clock, self.quantum_s, self.wake_before, self.hot_s = clock, quantum_s, wake_before, hot_s
        self.cores = [Core() for _ in range(cores)]
        self.placed = 0

    def ready(self, thread):
        thread.state, thread.ready_since = Thread.READY, self.clock.now
        if thread.core is None:
            thread.core = self.cores[self.placed % len(self.cores)]
            self.placed += 1
        for core in (thread.core, *self.cores):
            if core.thread is None:
                return self.begin(core, thread)
        self.queue(thread.core, thread)

    def queue(self, core, thread):
        if thread.background:
            core.waiting.append(thread)
        else:
            behind = next((at for at, other in enumerate(core.waiting) if other.background), len(core.waiting))
            core.waiting.insert(behind, thread)

    def charge(self, thread):
        used = max(0.0, self.clock.now - thread.since)
        thread.cpu_s += used
        if thread.spins:
            thread.spin_s += used
        thread.items[0][0] -= used
        thread.since = max(thread.since, self.clock.now)

    def begin(self, core, thread):
        core.thread, thread.core, thread.state = thread, core, Thread.RUNNING
        thread.waiting_s += self.clock.now - thread.ready_since
        thread.since = self.clock.now
        thread.slice_end = thread.since + self.quantum_s
        self.step(core)

    def step(self, core):
        thread = core.thread
        core.epoch += 1
        self.clock.at(min(thread.since + max(0.0, thread.items[0][0]), thread.slice_end), self.stop, (core, core.epoch))

    def end_spin(self, thread):
        thread.spins = False
        if thread.state == Thread.RUNNING:
            used = max(0.0, self.clock.now - thread.since)
            thread.cpu_s += used
            thread.spin_s += used
            thread.since = max(thread.since, self.clock.now)
            thread.items.popleft()
            # The work that ended the spin is put in by the caller; the step is taken after that.
            core = thread.core
            core.epoch += 1
            self.clock.at(self.clock.now, self.stop, (core, core.epoch))
        else:
            thread.items.popleft()

    def stop(self, argument):
        core, epoch = argument
        if core.epoch != epoch:
            return
        thread = core.thread
        done = False
        if thread.items:
            self.charge(thread)
            item = thread.items[0]
            done = item[0] <= NANOSECOND
            if done:
                thread.items.popleft()
                thread.spins = False
                if item[1] is not None:
                    item[1](item[2])
        was_closing = thread.closing and not thread.items
        if thread.closing and (was_closing or done):
            thread.closing = False
        if not thread.items and thread.on_empty is not None:
            thread.on_empty()
        if not thread.items and not was_closing and thread.sleep_s:
            thread.closing = True
            thread.closes += 1
            thread.items.append([thread.sleep_s, None, None])
        if not thread.items:
            thread.state, core.thread, thread.since = Thread.IDLE, None, self.clock.now
            core.epoch += 1
            return self.next(core)
        if self.clock.now >= thread.slice_end - NANOSECOND:
            if core.waiting and not (core.waiting[0].background and not thread.background):
                thread.state, thread.ready_since, core.thread = Thread.READY, self.clock.now, None
                self.queue(core, thread)
                return self.next(core)
            thread.slice_end = self.clock.now + self.quantum_s
        self.step(core)

    def next(self, core):
        if core.waiting:
            return self.begin(core, core.waiting.popleft())
        for other in self.cores:
            for thread in other.waiting:
                if self.clock.now - thread.since >= self.hot_s:
                    other.waiting.remove(thread)
                    return self.begin(core, thread)


# --- the parts ------------------------------------------------------------------------------------------------------------------------------


class Store:
    """PostgreSQL: a backend for each server that writes."""

    def __init__(self, machine, costs):
        self.machine, self.costs, self.batches, self.rows, self.threads = machine, costs, 0, 0, []

    def backend(self):
        self.threads.append(Thread(self.machine))
        return self.threads[-1]

    def insert(self, backend, rows, done):
        self.batches += 1
        self.rows += rows
        costs, clock = self.costs, self.machine.clock

        def synced(_):
            clock.at(clock.now + costs["store_sync_s"], done)

        backend.give(costs["store_batch_s"] + rows * costs["store_event_s"], synced)


class Redis:
    """One thread for everything; half of what an event costs it is the putting in, a quarter each the reading and the taking out."""

    def __init__(self, machine, costs):
        self.costs, self.thread = costs, Thread(machine, costs["redis_wake_s"])
        # Entries that no server has been given, and servers that wait for one.
        self.stream, self.waiting, self.puts, self.length = 0, deque(), 0, 0

    def put(self, done, argument):
        def put(_):
            self.puts += 1
            self.stream += 1
            self.length += 1
            if self.waiting:
                self.serve(self.waiting.popleft())
            done(argument)

        self.thread.give(self.costs["redis_event_s"] * 0.5, put)

    def serve(self, answer):
        count = min(READ_ENTRIES_MAX, self.stream)
        self.stream -= count
        self.thread.give(self.costs["redis_event_s"] * 0.25 * count, answer, count)

    def read(self, answer):
        if self.stream:
            self.serve(answer)
        else:
            self.waiting.append(answer)

    def settle(self, count):
        """In steps, as each is a time in which nobody else is answered."""
        while count > 0:
            step = min(READ_ENTRIES_MAX, count)
            count -= step
            self.thread.give(self.costs["redis_event_s"] * 0.25 * step, self.settled, step)

    def settled(self, step):
        self.length -= step


class Server:
    """Threads that answer, and one that persists what is pending."""

    def __init__(self, machine, costs, store, redis=None, answering=1, null=False):
        self.clock, self.costs, self.store, self.redis, self.null = machine.clock, costs, store, redis, null
        self.answering = [Thread(machine, costs["answer_wake_s"]) for _ in range(answering)]
        self.background = Thread(machine, 0.0, background=True)
        self.backend = store.backend()
        self.pending, self.taken, self.persisted, self.turn, self.requests, self.refused, self.reads = 0, 0, 0, 0, 0, 0, 0
        self.reader_is_waiting = False
        if not null:
            self.clock.at(self.clock.now + POLL_S * random.Random(1).random(), self.poll)
            if redis:
                self.read()

    def request(self, answered, argument):
        self.requests += 1
        self.turn = (self.turn + 1) % len(self.answering)
        thread = self.answering[self.turn]
        if self.null:
            thread.give(self.costs["answer_null_s"], answered, argument)
        elif self.redis is None:
            thread.give(self.costs["answer_event_s"], self.put, (answered, argument))
        else:
            def back(_):
                thread.give(self.costs["answer_queue_s"] * 0.5, answered, argument)

            thread.give(self.costs["answer_event_s"] + self.costs["answer_queue_s"] * 0.5, lambda _: self.redis.put(back, None))

    def put(self, request):
        answered, argument = request
        if self.pending >= PENDING_EVENTS_MAX:
            self.refused += 1
        else:
            self.pending += 1
        answered(argument)

    def read(self, _=None):
        if self.taken >= TAKEN_EVENTS_MAX:
            self.reader_is_waiting = True
            return
        self.redis.read(self.was_read)

    def was_read(self, count):
        self.reads += 1

        def taken(_):
            self.pending += count
            self.taken += count
            self.clock.at(self.clock.now + (0.0 if count >= READ_ENTRIES_MAX else READ_PAUSE_S), self.read)

        self.background.give(self.costs["background_read_s"] + count * self.costs["background_queue_s"], taken)

    def poll(self, _=None):
        count = min(self.pending, BATCH_EVENTS_MAX)
        if not count:
            self.clock.at(self.clock.now + POLL_S, self.poll)
            return
        self.pending -= count

        def inserted(_):
            self.background.give(count * self.costs["background_event_s"] * 0.2, settled)

        def settled(_):
            self.persisted += count
            if self.redis:
                self.redis.settle(count)
                self.taken -= count
                if self.reader_is_waiting:
                    self.reader_is_waiting = False
                    self.read()
            self.clock.at(self.clock.now + (0.0 if count >= BATCH_EVENTS_MAX else POLL_S), self.poll)

        encoding_s = self.costs["background_batch_s"] + count * self.costs["background_event_s"] * 0.8
        self.background.give(encoding_s, lambda _: self.store.insert(self.backend, count, inserted))


class Generator:
    """Sends on time, or when a connection is free (`rate` None: closed loop). `route()` is the server that gets the next request."""

    def __init__(self, machine, costs, rate, connections, route, seed, begin_s=0.0):
        self.clock, self.costs, self.rate, self.free, self.route = machine.clock, costs, rate, connections, route
        self.random = random.Random(seed)
        self.thread = Thread(machine, costs["generator_wake_s"], on_empty=self.look)
        self.due = self.clock.now if rate is None else self.clock.now + self.random.expovariate(rate)
        self.begin_s, self.responses, self.sent, self.accepted, self.timer = begin_s, [], 0, 0, None
        self.wake_for_due()

    def wake_for_due(self):
        if self.timer is None or self.timer <= self.clock.now or self.timer > self.due:
            self.timer = max(self.clock.now, self.due - self.costs["generator_spin_s"])
            self.clock.at(self.timer, self.ring)

    def ring(self, _):
        if self.thread.state == Thread.IDLE and self.free and self.due - self.costs["generator_spin_s"] <= self.clock.now + 1e-9:
            self.thread.give(0.0)

    def look(self):
        """Nothing to do is left: what is due next?"""
        if not self.free:
            return
        left = self.due - self.clock.now
        if left <= 1e-9:
            due = self.due if self.rate else self.clock.now
            if self.rate:
                self.due += self.random.expovariate(self.rate)
            self.free -= 1
            self.thread.items.append([self.costs["generator_event_s"] * 0.5, self.send, due])
        elif left <= self.costs["generator_spin_s"] + 1e-9:
            self.thread.spin(left, None)
        else:
            self.wake_for_due()

    def send(self, due):
        self.sent += 1
        self.route().request(self.answered, due)

    def answered(self, due):
        self.thread.give(self.costs["generator_event_s"] * 0.5, self.read, due)

    def read(self, due):
        self.free += 1
        if self.clock.now >= self.begin_s:
            self.accepted += 1
            self.responses.append(self.clock.now - due)


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else math.nan


def cores_of(costs, result):
    """All processes together, as what is measured."""
    parts = sum(result[f"{part}_cpu"] for part in ("answering", "background", "postgres", "redis", "generator"))
    return parts + costs["generator_fixed_cores"] + result["events"] * costs["generator_record_s"]


def one_machine(costs, queue, rate, cores=2, seconds=1.0, warmup_s=0.3, connections=64, seed=1):
    """Everything on one machine, as it was measured. `queue`: null, memory or redis; `rate` None is a closed loop."""
    clock = Clock()
    machine = Machine(clock, cores, costs["quantum_s"], costs["wake_before"], costs["hot_s"])
    store = Store(machine, costs)
    redis = Redis(machine, costs) if queue == "redis" else None
    server = Server(machine, costs, store, redis, answering=max(1, cores // 2), null=queue == "null")
    generator = Generator(machine, costs, rate, connections, lambda: server, seed, warmup_s)
    clock.run(warmup_s)
    before = tally(generator, server, store, redis)
    clock.run(warmup_s + seconds)
    after = tally(generator, server, store, redis)
    result = {name: (after[name] - before[name]) / seconds for name in after}
    result["p50_s"], result["p99_s"] = quantile(generator.responses, 0.5), quantile(generator.responses, 0.99)
    result["backlog"] = server.pending + (redis.length if redis else 0)
    return result


def tally(generator, server, store, redis):
    return {
        "events": generator.accepted, "sent": generator.sent,
        "generator_cpu": generator.thread.cpu_s, "generator_spin": generator.thread.spin_s, "generator_wakes": generator.thread.wakes,
        "generator_wakings": generator.thread.wakings(), "answering_wakings": sum(thread.wakings() for thread in server.answering),
        "redis_wakings": redis.thread.wakings() if redis else 0,
        "answering_cpu": sum(thread.cpu_s for thread in server.answering), "answering_wakes": sum(thread.wakes for thread in server.answering),
        "background_cpu": server.background.cpu_s, "batches": store.batches, "rows": store.rows, "reads": server.reads,
        "postgres_cpu": sum(thread.cpu_s for thread in store.threads),
        "redis_cpu": redis.thread.cpu_s if redis else 0.0, "redis_wakes": redis.thread.wakes if redis else 0,
        "persisted": server.persisted, "refused": server.refused,
    }


# --- what was measured ----------------------------------------------------------------------------------------------------------------------


class Measured:
    """What scripts/scale/measure wrote."""

    def __init__(self, path):
        self.path, self.document = Path(path), json.loads(Path(path).read_text())
        self.rows = {row["name"]: row["values"] for row in self.document["rows"]}

    def median(self, row, name):
        return self.rows[row][name]["median"]

    def spread(self, row, name):
        value = self.rows[row][name]
        return value["min"], value["max"]


def row_of(queue, rate):
    return f"{queue}-{rate or 'closed'}"


def newest():
    found = [path for path in sorted(ROOT.glob("results/*-scale/measured.json")) if (path.parent / "constants.json").exists()]
    if not found:
        sys.exit("no results/*-scale with measured.json and constants.json: write them with scripts/scale/measure and model.py fit")
    return found[-1]


# --- the fit --------------------------------------------------------------------------------------------------------------------------------


def solve(matrix, values):
    """Least squares by the normal equations; None when they have no one solution."""
    count = len(matrix[0])
    equations = [[sum(row[i] * row[j] for row in matrix) for j in range(count)] + [sum(row[i] * v for row, v in zip(matrix, values))] for i in range(count)]
    for i in range(count):
        pivot = max(range(i, count), key=lambda k: abs(equations[k][i]))
        if abs(equations[pivot][i]) < 1e-15:
            return None
        equations[i], equations[pivot] = equations[pivot], equations[i]
        for k in range(count):
            if k != i:
                factor = equations[k][i] / equations[i][i]
                equations[k] = [a - factor * b for a, b in zip(equations[k], equations[i])]
    return [equations[i][count] / equations[i][i] for i in range(count)]


def not_negative(matrix, values):
    """Least squares of relative errors, with no solution below zero: the best of all subsets of the unknowns (they are few)."""
    scale = [max(abs(value), 1e-9) for value in values]
    matrix = [[cell / s for cell in row] for row, s in zip(matrix, scale)]
    values = [value / s for value, s in zip(values, scale)]
    # Of like size, so that no equation drowns.
    sizes = [max(abs(row[i]) for row in matrix) or 1.0 for i in range(len(matrix[0]))]
    matrix = [[cell / size for cell, size in zip(row, sizes)] for row in matrix]
    best, best_error = None, math.inf
    for chosen in range(1, 1 << len(sizes)):
        columns = [i for i in range(len(sizes)) if chosen >> i & 1]
        found = solve([[row[i] for i in columns] for row in matrix], values)
        if found is None or min(found) < 0:
            continue
        full = [0.0] * len(sizes)
        for i, value in zip(columns, found):
            full[i] = value
        error = sum((sum(a * b for a, b in zip(row, full)) - v) ** 2 for row, v in zip(matrix, values))
        if error < best_error - 1e-12:
            best, best_error = full, error
    return [value / size for value, size in zip(best, sizes)], math.sqrt(best_error / len(values))


# Where the fit begins. The first four are not fitted: they were chosen by trying a few values against an earlier measurement (see docs/scale.md).
START = {
    "wake_before": 0.8, "quantum_s": 3e-3, "hot_s": 2e-3, "generator_spin_s": 2e-5, "store_sync_s": 5e-4,
    "generator_wake_s": 2e-5, "generator_event_s": 5e-6, "generator_fixed_cores": 0.009, "generator_record_s": 5e-7, "answer_wake_s": 1.2e-5,
    "answer_null_s": 8e-6, "answer_event_s": 1.2e-5, "answer_queue_s": 1e-5, "background_batch_s": 3e-4, "background_event_s": 1e-6,
    "background_read_s": 6e-5, "background_queue_s": 2e-6, "store_batch_s": 1e-3, "store_event_s": 7e-6, "redis_wake_s": 3e-5, "redis_event_s": 1.8e-5,
}


def fit_step(costs, measured, seconds, seed=1):
    """Costs for which the simulated counts (wakes, batches, events) give the measured processor time of each thread."""
    runs = [("null", 5000)] + [(queue, rate) for queue in ("memory", "redis") for rate in FITTED_RATES]
    counted = {}
    for run in runs:
        result = one_machine(costs, *run, seconds=seconds, seed=seed)
        # Per event, as what is measured: the rates need not be the same.
        counted[run] = {name: value / result["events"] for name, value in result.items()} | {"events": 1.0, "rows": 1.0, "seconds": 1 / result["events"]}
    cores = lambda run, thread: measured.median(row_of(*run), f"{thread}_cores") / measured.median(row_of(*run), "achieved_per_s")
    has = lambda run, *queues: 1.0 if run[0] in queues else 0.0
    new, errors = dict(costs), {}

    def fit(name, chosen, unknowns, row, value):
        found, errors[name] = not_negative([row(run, counted[run]) for run in chosen], [value(run) for run in chosen])
        new.update(zip(unknowns, found))

    kept = runs[1:]
    fit("answering", runs, ["answer_wake_s", "answer_null_s", "answer_event_s", "answer_queue_s"],
        lambda run, c: [c["answering_wakings"], c["events"] * has(run, "null"), c["events"] * has(run, "memory", "redis"), c["events"] * has(run, "redis")],
        lambda run: cores(run, "thread_answering"))
    fit("background", kept, ["background_batch_s", "background_event_s", "background_queue_s"],
        lambda run, c: [c["batches"] + c["reads"] * BACKGROUND_READ, c["rows"], c["rows"] * has(run, "redis")],
        lambda run: cores(run, "thread_background"))
    new["background_read_s"] = new["background_batch_s"] * BACKGROUND_READ
    fit("postgres", kept, ["store_batch_s", "store_event_s"], lambda run, c: [c["batches"], c["rows"]], lambda run: cores(run, "postgres"))
    fit("redis", [run for run in kept if run[0] == "redis"], ["redis_wake_s", "redis_event_s"], lambda run, c: [c["redis_wakings"], c["events"]],
        lambda run: cores(run, "redis"))
    fit("sender", runs, ["generator_wake_s", "generator_event_s"], lambda run, c: [c["generator_wakings"], c["events"]],
        lambda run: max(1e-6, cores(run, "sender") - counted[run]["generator_spin"]))
    fit("recorder", runs, ["generator_fixed_cores", "generator_record_s"], lambda run, c: [c["seconds"], c["events"]],
        lambda run: cores(run, "generator") - cores(run, "sender"))
    return new, errors, counted


def fit(measured, steps=8, seconds=0.8):
    costs = dict(START)
    errors = {}
    for step in range(steps):
        new, errors, _ = fit_step(costs, measured, seconds, seed=step)
        # Half way, as the counts follow the costs and would swing.
        costs = {name: (new[name] + costs[name]) / 2 if step else new[name] for name in new}
    return costs, errors


# --- the reproduction -----------------------------------------------------------------------------------------------------------------------

# What may be foretold wrongly by so much: cores at a held-out rate, the highest rate of a closed loop, p50 (as a factor) where the machine is not full.
CORES_BOUND, HIGHEST_BOUND, P50_BOUND = 0.15, 0.35, 1.6
# Constants that come out of the data otherwise than those that are committed would be another machine's.
FIT_BOUND = 0.25


def reproduction(costs, measured, rates=FITTED_RATES + HELD_OUT_RATES, seconds=1.0):
    """Rows: what, measured, foretold, error, bound (None: told only), whether it was fitted."""
    rows = []
    for queue in ("memory", "redis"):
        for rate in sorted((rate for rate in rates if rate)) + ([None] if None in rates else []):
            name = row_of(queue, rate)
            result = one_machine(costs, queue, rate, seconds=max(seconds, 5000 / rate) if rate else seconds, seed=7)
            held_out = rate in HELD_OUT_RATES
            told = lambda what, key, value, bound, relative=True: rows.append(
                {"row": name, "what": what, "measured": measured.median(name, key), "foretold": value, "bound": bound, "held_out": held_out,
                 "error": value / measured.median(name, key) - 1})
            told("cores", "cores", cores_of(costs, result), CORES_BOUND if held_out else None)
            if rate is None:
                # The costs of an event are fitted here, the rate is not.
                told("events/s", "achieved_per_s", result["events"], HIGHEST_BOUND)
            else:
                told("events/s", "achieved_per_s", result["events"], 0.05)
            told("p50, us", "response_time_p50_us", result["p50_s"] * 1e6, P50_BOUND if held_out and rate <= 10000 else None)
            told("p99, us", "response_time_p99_us", result["p99_s"] * 1e6, None)
    return rows


def is_wrong(row):
    if row["bound"] is None:
        return False
    if row["what"].startswith("p50"):
        return not 1 / row["bound"] <= row["foretold"] / row["measured"] <= row["bound"]
    return abs(row["error"]) > row["bound"]


def constants_of(measured):
    beside = measured.path.parent / "constants.json"
    return json.loads((beside if beside.exists() else newest().parent / "constants.json").read_text())


# --- its own tests --------------------------------------------------------------------------------------------------------------------------


def mean_wait(rate, draw, service_mean, wake_s=0.0, count=60000, seed=3):
    """Mean time in the queue before the work begins, of one thread on one core."""
    clock, rng = Clock(), random.Random(seed)
    thread = Thread(Machine(clock, 1, quantum_s=1e9), wake_s)
    stays = []

    def arrive(left):
        thread.give(draw(rng), lambda since: stays.append(clock.now - since), clock.now)
        if left:
            clock.at(clock.now + rng.expovariate(rate), arrive, left - 1)

    clock.at(0.0, arrive, count)
    clock.run(math.inf)
    return statistics.fmean(stays) - service_mean


def own_tests():
    """Pairs of what and (found, expected, tolerance)."""
    wait = lambda rate, square, mean: rate * square / (2 * (1 - rate * mean))
    yield "M/M/1, mean wait at 70 %", mean_wait(0.7, lambda rng: rng.expovariate(1), 1), wait(0.7, 2, 1), 0.06
    yield "M/D/1, mean wait at 70 %", mean_wait(0.7, lambda rng: 1.0, 1), wait(0.7, 1, 1), 0.05
    two = lambda rng: 5.5 if rng.random() < 0.1 else 0.5
    yield "M/G/1, two-point, mean wait at 70 %", mean_wait(0.7, two, 1), wait(0.7, 0.1 * 5.5**2 + 0.9 * 0.25, 1), 0.08
    wake = 0.5
    setup = (2 * wake + 0.5 * wake**2) / (2 * (1 + 0.5 * wake))
    yield "M/D/1 that has to be woken, at 50 %", mean_wait(0.5, lambda rng: 1.0, 1, wake), wait(0.5, 1, 1) + setup, 0.05
    clock = Clock()
    machine = Machine(clock, 1, quantum_s=0.003)
    threads = [Thread(machine) for _ in range(3)]
    for thread in threads:
        thread.give(10.0)
    clock.run(9.0)
    for thread in threads:
        yield "three busy threads share a core", thread.cpu_s, 3.0, 0.01
    used = [0] * 40
    for number in range(200000):
        used[cell_of(f"organisation-{number}", 40)] += 1
    yield "organisations spread over 40 cells, the fullest", max(used) / (sum(used) / 40), 1.0, 0.05
    yield "organisations spread over 40 cells, the emptiest", min(used) / (sum(used) / 40), 1.0, 0.05
    # Every server has its share, and what they all put into the queue comes out of it: one server that took all would be seen.
    result = cell(START, 6000, servers=3)
    for share in result["requests_by_server"]:
        yield "three servers, requests of each", share, 2000, 0.1
    yield "three servers, events persisted by all", result["persisted"], 6000, 0.1


# --- more of everything ---------------------------------------------------------------------------------------------------------------------

SLOTS = 16384
# How much of a core, a thread or a disk may be in use, so that one part may fail and a peak may come.
FULL_SHARE = 0.6


def cell_of(organization, cells):
    """Organisation to slot to cell: slots are shared out evenly, and moved one by one."""
    hashed = 14695981039346656037
    for byte in organization.encode():
        hashed = (hashed ^ byte) * 1099511628211 % 2**64
    hashed ^= hashed >> 32
    return (hashed % SLOTS) * cells // SLOTS


def cell(costs, rate, servers=2, server_cores=4, store_cores=4, seconds=0.5, warmup_s=0.3):
    """Servers, one Redis and one PostgreSQL, each on a machine of its own; requests come from outside, to one server after the other."""
    clock, rng = Clock(), random.Random(5)
    machine = lambda cores: Machine(clock, cores, costs["quantum_s"], costs["wake_before"], costs["hot_s"])
    store, redis = Store(machine(store_cores), costs), Redis(machine(2), costs)
    group = [Server(machine(server_cores), costs, store, redis, answering=max(1, server_cores // 2)) for _ in range(servers)]

    def arrive(number):
        group[number % servers].request(lambda _: None, None)
        clock.at(clock.now + rng.expovariate(rate), arrive, number + 1)

    used = lambda: [sum(t.cpu_s for s in group for t in (*s.answering, s.background)), redis.thread.cpu_s, sum(t.cpu_s for t in store.threads),
                    sum(s.persisted for s in group), *(s.requests for s in group)]
    clock.at(0.0, arrive, 0)
    clock.run(warmup_s)
    before = used()
    clock.run(warmup_s + seconds)
    server, redis_core, store_used, persisted, *by_server = [(b - a) / seconds for a, b in zip(before, used())]
    # Counted by each server itself: one that is given all would be seen.
    return {"server_cores": server, "redis_cores": redis_core, "store_cores": store_used, "persisted": persisted, "requests_by_server": by_server}


def cell_size(costs):
    """Events/s at which the one thread of Redis is as full as it may be, and what the cell needs then."""
    low, high = 500, 200_000
    while high - low > 500:
        middle = (low + high) // 2
        found = cell(costs, middle, servers=3, seconds=0.25)
        low, high = (middle, high) if found["redis_cores"] <= FULL_SHARE and found["persisted"] > 0.5 * middle else (low, middle)
    found = cell(costs, low, servers=3)
    return low, found


def skew(cells, organizations=100_000, exponent=0.8):
    """The fullest cell against the mean, when organisations are as unlike as by Zipf's law; and the share of the largest one."""
    weights = [(number + 1) ** -exponent for number in range(organizations)]
    total, loads = sum(weights), [0.0] * cells
    for number, weight in enumerate(weights):
        loads[cell_of(f"organisation-{number}", cells)] += weight / total
    return max(loads) * cells, weights[0] / total


def need(costs, size, found, rate, measured):
    per_event = lambda key: found[key] / size
    cells = math.ceil(rate / size)
    server_cores = rate * per_event("server_cores")
    store_cores = rate * per_event("store_cores")
    wal = measured.median("insert-2", "wal_bytes_per_row")
    disk = measured.median("insert-2", "table_bytes_per_row") + measured.median("insert-2", "index_bytes_per_row")
    return {
        "rate": rate, "cells": cells, "servers": max(2 * cells, math.ceil(server_cores / FULL_SHARE / 4)), "server_cores": server_cores,
        "store_cores": store_cores, "stores": max(1, math.ceil(store_cores / FULL_SHARE / 4)), "wal_mb_per_s": rate * wal / 1e6,
        "disk_tb_per_day": rate * disk * 86400 / 1e12,
        "dedup_gb_per_hour": rate * measured.median("redis-10000", "redis_memory_bytes_per_event") * 3600 / 1e9,
    }


def extrapolate(costs, measured):
    size, found = cell_size(costs)
    print(f"\n## More of everything (computed)\n\nA cell takes {size:,}/s with its Redis {FULL_SHARE:.0%} full: servers then use {found['server_cores']:.2f} cores, "
          f"Redis {found['redis_cores']:.2f}, PostgreSQL {found['store_cores']:.2f}.\n")
    print("| events/s | cells (a Redis each) | servers of 4 cores | PostgreSQL machines of 4 cores | server cores in use | PostgreSQL cores in use | WAL MB/s | tables and indexes TB/day | Redis GB for each hour of dedup window |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for rate in (10_000, 100_000, 1_000_000):
        n = need(costs, size, found, rate, measured)
        print(f"| {rate:,} | {n['cells']} | {n['servers']} | {n['stores']} | {n['server_cores']:.1f} | {n['store_cores']:.1f} | {n['wal_mb_per_s']:,.0f} | {n['disk_tb_per_day']:.2f} | {n['dedup_gb_per_hour']:,.1f} |")
    cells = need(costs, size, found, 1_000_000, measured)["cells"]
    fullest, largest = skew(cells)
    print(f"\n100,000 organisations by Zipf's law (exponent 0.8) over {cells} cells: the fullest has {fullest:.2f} times the mean, the largest organisation {largest:.2%} of everything.\n")
    print("What one constant means, a million events/s, if it were twice what it is:\n\n| doubled | cells | servers | PostgreSQL machines |\n|---|--:|--:|--:|")
    for name in ("redis_event_s", "redis_wake_s", "answer_event_s", "answer_queue_s", "answer_wake_s", "background_queue_s", "store_event_s", "store_batch_s"):
        changed = costs | {name: costs[name] * 2}
        size_then, found_then = cell_size(changed)
        n = need(changed, size_then, found_then, 1_000_000, measured)
        print(f"| `{name}` ({costs[name] * 1e6:.3g} us) | {n['cells']} | {n['servers']} | {n['stores']} |")


# --- the commands ---------------------------------------------------------------------------------------------------------------------------


def tell(rows):
    print("| row | | measured | simulated | error | bound |\n|---|---|--:|--:|--:|---|")
    for row in rows:
        bound = "–" if row["bound"] is None else f"x {row['bound']:g}" if row["what"].startswith("p50") else f"{row['bound']:.0%}"
        number = lambda value: f"{value:.3f}" if value < 10 else f"{value:,.0f}"
        print(f"| {row['row']}{' (held out)' if row['held_out'] else ''} | {row['what']} | {number(row['measured'])} | {number(row['foretold'])} | {row['error']:+.0%} | {bound} |")


def check(costs, measured, rows):
    """How many things are wrong."""
    wrong = 0
    for what, found, expected, tolerance in own_tests():
        good = abs(found / expected - 1) <= tolerance
        wrong += not good
        print(f"{'ok   ' if good else 'WRONG'} {what}: {found:.4g}, expected {expected:.4g} (within {tolerance:.0%})")
    again, _, _ = fit_step(costs, measured, 0.5, seed=1)
    for name in ("answer_event_s", "answer_wake_s", "redis_event_s", "redis_wake_s", "store_event_s", "store_batch_s"):
        good = abs(again[name] / costs[name] - 1) <= FIT_BOUND
        wrong += not good
        print(f"{'ok   ' if good else 'WRONG'} {name} is {again[name] * 1e6:.3g} us by the data, and {costs[name] * 1e6:.3g} us among the constants (within {FIT_BOUND:.0%})")
    for row in rows:
        if row["bound"] is not None:
            bad = is_wrong(row)
            wrong += bad
            print(f"{'WRONG' if bad else 'ok   '} {row['row']} {row['what']}: {row['foretold']:.4g}, measured {row['measured']:.4g} ({row['error']:+.0%})")
    return wrong


def main():
    words = sys.argv[1:]
    if words and words[0] in ("-h", "--help"):
        sys.exit(print(__doc__))
    command = words.pop(0) if words and words[0] in ("check", "fit") else "all"
    measured = Measured(words[0] if words else newest())
    if command == "fit":
        costs, errors = fit(measured)
        json.dump(costs, sys.stdout, indent=1)
        print()
        print("root mean square of the relative errors:", {name: round(error, 3) for name, error in errors.items()}, file=sys.stderr)
        return
    costs = constants_of(measured)
    rows = reproduction(costs, measured, seconds=1.0 if command == "check" else 2.0)
    if command == "check":
        wrong = check(costs, measured, rows)
        print(f"{wrong} wrong")
        sys.exit(1 if wrong else 0)
    print(f"## The machine that was measured ({measured.document['revision']}, {measured.document['started_at'][:10]})\n")
    tell(rows)
    bad = [row for row in rows if is_wrong(row)]
    if bad:
        sys.exit(f"not reproduced ({len(bad)} figures): nothing is extrapolated")
    extrapolate(costs, measured)


if __name__ == "__main__":
    main()
