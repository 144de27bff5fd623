"""See scripts/otlp-cost.

    otlp-cost.py LOADGEN FOLDER
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

VARIANTS = {"off": None, "off again": None, "0.01": "0.01", "1": "1"}
METRICS = {"p50": ("µs", 1e-3), "p99": ("µs", 1e-3), "generator": ("µs", 1e6), "server": ("µs", 1e6)}


class Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    received = {"requests": 0, "bytes": 0}

    def do_POST(self):
        self.received["bytes"] += len(self.rfile.read(int(self.headers["content-length"])))
        self.received["requests"] += 1
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def measure(loadgen, rate, share, url):
    with tempfile.TemporaryDirectory() as out:
        command = [loadgen, "run", "--quiet", "--mode", "cache-first", "--rate", str(rate), "--warmup", "1s", "--duration", "4s",
                   "--idle", "0s", "--no-calibration"]
        if share:
            command += ["--otlp", url, "--otlp-share", share]
        command += ["--out", out]
        code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
        run = json.loads((Path(out) / "run.json").read_text())
    result = run["results"][0]
    load, resources = result["load"], result["resources"]
    told = [f"{caveat['kind']}: {caveat['detail']}" for caveat in run["caveats"] if caveat["kind"] == "telemetry_incomplete" or caveat["invalidates"]]
    return {
        "exit_code": code,
        "p50": load["response_time"]["p50_ns"],
        "p99": load["response_time"]["p99_ns"],
        # Processor time of the steady phase, for each of its events, s.
        "generator": resources["generator_cpu_s"] / load["planned"],
        "server": resources["server_cpu_s"] / load["planned"],
        "achieved_per_s": load["achieved_per_s"],
        "lost": result["ledger"]["lost"],
        "caveats": told,
        "command": command[1:-2],
        "revision": run["tool"]["revision"],
        "machine": run["environment"],
    }


def spread(values, digits=3):
    return f"{median(values):.{digits}g} ({min(values):.{digits}g}–{max(values):.{digits}g})"


def table(rows, rate):
    names = list(VARIANTS)
    print(f"\n{rate} events/s, {len(rows)} rounds\n\n| | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for metric, (unit, factor) in METRICS.items():
        title = f"response time {metric}, {unit}" if metric.startswith("p") else f"CPU of the {metric} per event, {unit}"
        print(f"| {title} | {' | '.join(spread([row[name][metric] * factor for row in rows]) for name in names)} |")
        ratios = [spread([row[name][metric] / row["off"][metric] for row in rows]) for name in names[1:]]
        print(f"| … to *off* of the same round | 1 | {' | '.join(ratios)} |")


def main(loadgen, folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    kept = {}
    for rate in os.environ["RATES"].split():
        rows = []
        for turn in range(int(os.environ["REPEAT"])):
            names = list(VARIANTS)
            at = turn % len(names)
            rows.append({name: measure(loadgen, rate, VARIANTS[name], url) for name in names[at:] + names[:at]})
        kept[rate] = rows
        table(rows, rate)
        for row in rows:
            for name, measured in row.items():
                if measured["exit_code"] or measured["lost"] or measured["caveats"]:
                    print(f"{name}: exit code {measured['exit_code']}, lost {measured['lost']}, {measured['caveats']}")
    print(f"\nthe receiver got {Sink.received['requests']} requests, {Sink.received['bytes'] / 1e6:.1f} MB")
    every = [(rate, turn, name, row[name]) for rate, rows in kept.items() for turn, row in enumerate(rows, 1) for name in row]
    same = {key: every[0][3][key] for key in ("revision", "machine")}
    runs = [{"rate_per_s": int(rate), "round": turn, "variant": name, **{key: value for key, value in measured.items() if key not in same}}
            for rate, turn, name, measured in every]
    (folder / "cost.json").write_text(json.dumps({**same, "command": "scripts/otlp-cost", "runs": runs}, indent=1) + "\n")


main(*sys.argv[1:])
