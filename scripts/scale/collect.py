#!/usr/bin/env python3
"""Makes one JSON of what scripts/scale/measure left in its folder: for each row, every number as median, smallest, largest and all values.

    scripts/scale/collect.py FOLDER COMMAND REDIS POSTGRESQL
"""
import csv, json, statistics, sys
from pathlib import Path


def info(path):
    """Redis' INFO, its numbers."""
    values = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        try:
            values[name] = float(value)
        except ValueError:
            pass
    return values


def calls(stem, when):
    """How often a row's command was asked for, the one that redis-benchmark repeats."""
    command = "xadd" if "-xadd-" in Path(stem).name else "evalsha"
    for line in Path(f"{stem}.redis-{when}").read_text().splitlines():
        if line.startswith(f"cmdstat_{command}:calls="):
            return int(line.split("=")[1].split(",")[0])
    return 0


def values_of(path):
    return {name: float(value) for name, value in (line.split("=") for line in path.read_text().split())}


def redis_cpu_s(values):
    return values["used_cpu_user"] + values["used_cpu_sys"]


def redis_row(stem):
    before, after = info(Path(f"{stem}.redis-before")), info(Path(f"{stem}.redis-after"))
    table = list(csv.reader(Path(f"{stem}.csv").read_text().splitlines()))
    result = dict(zip(table[0], table[1]))
    written = after.get("aof_current_size", 0) - before.get("aof_current_size", 0)
    entries = calls(stem, "after") - calls(stem, "before")
    return {
        "per_s": float(result["rps"]),
        "p50_ms": float(result["p50_latency_ms"]),
        "p99_ms": float(result["p99_latency_ms"]),
        "redis_cpu_us_per_entry": (redis_cpu_s(after) - redis_cpu_s(before)) / entries * 1e6,
        "memory_bytes_per_entry": (after["used_memory"] - before["used_memory"]) / entries,
        "file_bytes_per_entry": written / entries,
    }


def insert_row(stem):
    values, text = values_of(Path(f"{stem}.values")), Path(f"{stem}.out").read_text()
    per_s = float(next(line for line in text.splitlines() if line.startswith("tps =")).split()[2]) * 1000
    rows = values["rows"]
    return {
        "rows_per_s": per_s,
        "wal_bytes_per_row": values["wal_bytes"] / rows,
        "postgres_cpu_us_per_row": values["postgres_cpu_s"] / rows * 1e6,
        "table_bytes_per_row": values["table_bytes"] / rows,
        "index_bytes_per_row": values["index_bytes"] / rows,
    }


def threads(stem, seconds):
    """Cores and wakes a second of each kind of thread, in the middle of the load: from 1.5 s after the server was seen first, for a second less than
    the steady phase."""
    samples = {}
    for line in Path(f"{stem}.threads").read_text().splitlines():
        at, process, thread, cpu_s, switches = line.split()
        samples.setdefault((process, thread), []).append((float(at), float(cpu_s), int(switches)))
    seen = [found[0][0] for (process, _), found in samples.items() if process == "server"]
    if not seen:
        return {}
    begin, end = min(seen) + 1.5, min(seen) + 0.5 + seconds
    row = {}
    for (process, thread), found in samples.items():
        inside = [one for one in found if begin <= one[0] <= end]
        if len(inside) < 2:
            continue
        (from_s, cpu_before, switches_before), (to_s, cpu_after, switches_after) = inside[0], inside[-1]
        kind = thread.rsplit(".", 1)[0]
        kind = {"server": "answering" if kind.startswith("answer-") else "background", "redis": "redis", "postgres": "postgres"}[process]
        row[f"thread_{kind}_cores"] = row.get(f"thread_{kind}_cores", 0) + (cpu_after - cpu_before) / (to_s - from_s)
        row[f"thread_{kind}_wakes_per_s"] = row.get(f"thread_{kind}_wakes_per_s", 0) + (switches_after - switches_before) / (to_s - from_s)
    return row


def harness_row(stem):
    before, after = info(Path(f"{stem}.redis-before")), info(Path(f"{stem}.redis-after"))
    values = values_of(Path(f"{stem}.values"))
    run = json.loads((Path(stem) / "run.json").read_text())
    result = run["results"][0]
    load, ledger, resources, machine = result["load"], result["ledger"], result["resources"], result["health"].get("machine") or {}
    seconds, accepted = load["seconds"], load["outcomes"]["accepted"]
    row = {
        "offered_per_s": load["offered_per_s"],
        "achieved_per_s": load["achieved_per_s"],
        "planned": load["planned"],
        "not_accepted": load["planned"] - accepted,
        "response_time_p50_us": load["response_time"]["p50_ns"] / 1e3,
        "response_time_p99_us": load["response_time"]["p99_ns"] / 1e3,
        "service_time_p50_us": load["service_time"]["p50_ns"] / 1e3,
        "service_time_p99_us": load["service_time"]["p99_ns"] / 1e3,
        "send_delay_p99_us": load["send_delay"]["p99_ns"] / 1e3,
        "server_cores": resources["server_cpu_s"] / seconds,
        "generator_cores": resources["generator_cpu_s"] / seconds,
        "postgres_cores": (resources.get("database_cpu_s") or 0) / seconds,
        "server_memory_bytes_peak": resources["server_rss_peak_bytes"],
        "generator_wait_share": resources.get("generator_run_queue_delay_ns", 0) / 1e9 / seconds,
    }
    sender = next(thread for thread in result["health"]["threads"] if thread["name"] == "sender")
    row |= {
        "sender_busy_share": result["health"]["sender_busy_share"],
        "sender_cores": sender["cpu_s"] / sender["seconds"],
        "sender_wakes_per_s": sender["switches_voluntary"] / sender["seconds"],
        "machine_busy_share": machine["busy_share"], "machine_steal_share": machine["steal_share"],
    }
    row |= threads(stem, seconds)
    acknowledged = ledger["acknowledged"] if ledger else 0
    # Without a ledger there are no counts of the warm-up, which is a second of the same load.
    events = acknowledged or accepted * (1 + 1 / seconds)
    row["wal_bytes_per_event"] = values["wal_bytes"] / events
    row["loopback_bytes_per_event"] = values["loopback_bytes"] / events
    redis_cpu = (redis_cpu_s(after) - redis_cpu_s(before)) / events
    is_queued = after["total_commands_processed"] - before["total_commands_processed"] > events
    row["redis_cores"] = redis_cpu * load["achieved_per_s"] if is_queued else 0.0
    if is_queued:
        row |= {
            "redis_memory_bytes_per_event": (after["used_memory"] - before["used_memory"]) / events,
            "redis_file_bytes_per_event": (after["aof_current_size"] - before["aof_current_size"]) / events,
            "redis_in_bytes_per_event": (after["total_net_input_bytes"] - before["total_net_input_bytes"]) / events,
            "redis_out_bytes_per_event": (after["total_net_output_bytes"] - before["total_net_output_bytes"]) / events,
        }
    if ledger and ledger["source"] is not None and acknowledged:
        row |= {"acknowledged": acknowledged, "lost": ledger["lost"], "duplicated": ledger["duplicated"],
                "drained_after_ms": ledger["drained_after_ms"]}
        durable = (ledger.get("time_to_durable") or {}).get("times")
        if durable:
            row["time_to_durable_p99_ms"] = durable["p99_ns"] / 1e6
    row["cores"] = sum(row[part + "_cores"] for part in ("server", "generator", "postgres", "redis"))
    return row, run


def main():
    folder, command, redis, postgres = Path(sys.argv[1]), *sys.argv[2:5]
    rows, some_run = {}, None
    for line in (folder / "rows").read_text().splitlines():
        repetition, kind, name = line.split()
        stem = f"{folder}/{repetition}-{name}"
        if kind == "redis":
            row = redis_row(stem)
        elif kind == "insert":
            row = insert_row(stem)
        else:
            row, some_run = harness_row(stem)
        rows.setdefault((kind, name), []).append(row)
    summary = []
    for (kind, name), repetitions in rows.items():
        numbers = {}
        for key in repetitions[0]:
            all_values = [row[key] for row in repetitions if row.get(key) is not None]
            if all_values:
                numbers[key] = {"median": statistics.median(all_values), "min": min(all_values), "max": max(all_values), "all": all_values}
        summary.append({"kind": kind, "name": name, "values": numbers})
    environment = {key: some_run["environment"].get(key) for key in ("os", "kernel", "cpu_model", "cores", "memory_bytes", "virtualization", "data_filesystem")}
    document = {
        "schema": "scale.v1", "command": command, "started_at": some_run["started_at"], "revision": some_run["tool"]["revision"],
        "build_profile": some_run["tool"]["build_profile"], "environment": environment, "connections": some_run["plan"]["connections"],
        "payload_bytes": some_run["plan"]["payload_bytes"], "redis": redis.split(" sha=")[0], "postgres": postgres.split(" on ")[0], "rows": summary,
    }
    json.dump(document, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
