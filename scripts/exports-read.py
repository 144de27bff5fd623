"""Reads every export of every result given (run.json, gate.json), with readers that are not ours, and compares what they find with the
result itself.

    exports-read.py LOADGEN FOLDER RESULT.json…
"""

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from junitparser import Error, Failure, JUnitXml, Skipped
from markdown_it import MarkdownIt
from prometheus_client.openmetrics.parser import text_string_to_metric_families


def check(holds, what):
    if not holds:
        raise AssertionError(what)


def read_openmetrics(text, run, _):
    families = {family.name: family for family in text_string_to_metric_families(text)}
    check(families["millrace_run"].samples[0].labels["run_id"] == run["run_id"], "the run's id")
    ledger = [sample for sample in families["millrace_ledger_events"].samples] if "millrace_ledger_events" in families else []
    for state, member in [("lost", "lost"), ("duplicated", "duplicated"), ("altered", "corrupted")]:
        expected = sum(result["ledger"][member] for result in run["results"] if result.get("ledger"))
        found = sum(sample.value for sample in ledger if sample.labels["state"] == state)
        check(found == expected, f"{state}: {found}, not {expected}")
    if any(result["load"]["response_time"]["count"] for result in run["results"]):
        family = families["millrace_response_time_seconds"]
        check((family.type, family.unit) == ("summary", "seconds"), f"{family.type} {family.unit}")


def read_hlog(text, run, path):
    lines = sum(line.startswith("Tag=") for line in text.splitlines())
    reader = HistogramLogReader(str(path), HdrHistogram(1, 3_600_000_000_000, 3))
    read = []
    while (histogram := reader.get_next_interval_histogram()) is not None:
        read.append((histogram.get_tag(), histogram.get_total_count()))
    reader.close()
    check(len(read) == lines, f"{len(read)} of {lines} intervals were read")
    check(all(tag for tag, _ in read), "an interval without a tag")
    samples = sum(count for _, count in read)
    expected = 0
    for result in run["results"]:
        load = result["load"]
        times = [load["response_time"], load["service_time"], load["send_delay"]]
        times += [interval["response_time"] for interval in load["intervals"]]
        durable = (result.get("ledger") or {}).get("time_to_durable")
        times += [durable["times"]] if durable else []
        expected += sum(entry["count"] for entry in times if entry.get("histogram"))
    check(samples == expected, f"{samples} samples, not {expected}")


def read_junit(_, run, path):
    xml = JUnitXml.fromfile(str(path))
    outcomes = Counter()
    for suite in xml:
        cases = list(suite)
        check(suite.tests == len(cases), f"{suite.name} has {len(cases)} cases and says {suite.tests}")
        for case in cases:
            kinds = [type(result) for result in case.result] or ["passed"]
            outcomes.update(kinds)
    check((xml.failures, xml.errors, xml.skipped) == (outcomes[Failure], outcomes[Error], outcomes[Skipped]), str(outcomes))
    if run.get("conformance"):
        failed = sum(rule["outcome"] == "failed" for found in run["conformance"] for rule in found["rules"])
        check(outcomes[Failure] == failed, f"{outcomes[Failure]} failures, not {failed}")
    elif run["verdict"]["outcome"] == "missed":
        check(outcomes[Failure] > 0, "a missed run without a failure")


def read_csv(_, run, path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    expected = sum(1 + len(result["load"]["intervals"]) for result in run["results"])
    check(len(rows) == expected, f"{len(rows)} rows, not {expected}")
    for row in rows:
        check(None not in row and None not in row.values(), f"a row of another length: {row}")
    results = [row for row in rows if row["kind"] == "result"]
    for row, result in zip(results, run["results"], strict=True):
        check(row["target"] == result["target"], row["target"])
        check(int(row["accepted"]) == result["load"]["outcomes"]["accepted"], row["accepted"])


def read_markdown(text, run, _):
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    check(tokens[0].type in ("heading_open", "html_block"), tokens[0].type)
    tables = sum(token.type == "table_open" for token in tokens)
    wanted = bool(run["results"]) or bool(run.get("conformance"))
    check(tables > 0 or not wanted, "no table")


def read_bmf(text, run, _):
    value = json.loads(text)
    for measures in value.values():
        for name, metric in measures.items():
            check(isinstance(metric["value"], (int, float)), name)


def read_github(text, run, _):
    for entry in json.loads(text):
        check(isinstance(entry["value"], (int, float)) and entry["name"] and entry["unit"], str(entry))


def gate_openmetrics(text, gate, _):
    families = {family.name: family for family in text_string_to_metric_families(text)}
    check(families["millrace_gate"].samples[0].labels["verdict"] == gate["verdict"]["outcome"], "the verdict")
    worse = {tuple(sorted(sample.labels.items())): sample.value for sample in families["millrace_gate_worse_ratio"].samples}
    check(len(worse) >= len(gate["metrics"]), f"{len(worse)} ratios of {len(gate['metrics'])} metrics")


def gate_junit(_, gate, path):
    cases = [case for suite in JUnitXml.fromfile(str(path)) for case in suite]
    outcomes = [metric["outcome"] for metric in gate["metrics"] if metric["outcome"]] + [gate["verdict"]["outcome"]]
    check(len(cases) == len(outcomes), f"{len(cases)} cases, not {len(outcomes)}")
    kinds = {"regressed": Failure, "inconclusive": Skipped, "invalid": Error}
    for case, outcome in zip(cases, outcomes, strict=True):
        found = [type(result) for result in case.result]
        check(found == ([kinds[outcome]] if outcome in kinds else []), f"{case.name}: {found} for {outcome}")


def gate_csv(_, gate, path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    pairs = gate["pairs"] + ((gate["confirmation"] or {}).get("pairs") or [])
    check(len(rows) == 2 * len(pairs), f"{len(rows)} rows of {len(pairs)} pairs")
    for row, pair in zip(rows[::2], pairs, strict=True):
        check(float(row["response_time_p50_ns"]) == pair["baseline"]["response_time_ns_p50"], row["pair"])


def gate_markdown(text, gate, _):
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    check(sum(token.type == "table_open" for token in tokens) == 1, "one table")
    check(gate["verdict"]["outcome"] in text, "the verdict")


READERS = {
    "openmetrics": read_openmetrics,
    "hlog": read_hlog,
    "junit": read_junit,
    "csv": read_csv,
    "markdown": read_markdown,
    "markdown-comment": read_markdown,
    "bmf": read_bmf,
    "github-smaller": read_github,
    "github-bigger": read_github,
}


GATE_READERS = {
    "openmetrics": gate_openmetrics,
    "junit": gate_junit,
    "csv": gate_csv,
    "markdown": gate_markdown,
    "markdown-comment": gate_markdown,
    "bmf": read_bmf,
    "github-smaller": read_github,
    "github-bigger": read_github,
}


def main():
    loadgen, folder, *runs = sys.argv[1:]
    failed = 0
    for name in runs:
        run = json.loads(Path(name).read_text())
        readers = GATE_READERS if run["schema"] == "gate.v1" else READERS
        for kind, reader in readers.items():
            out = Path(folder) / f"{Path(name).stem}.{kind}"
            subprocess.run([loadgen, "export", name, "--format", kind, "--out", str(out)], check=True)
            try:
                reader(out.read_text(), run, out)
            except Exception as error:  # whatever a reader says is what is shown
                failed += 1
                print(f"{name} as {kind}: {type(error).__name__}: {error}", file=sys.stderr)
    print(f"{len(runs)} results in {len(READERS)} formats (a gate in {len(GATE_READERS)}): {failed} not read as they should be")
    sys.exit(1 if failed else 0)


main()
