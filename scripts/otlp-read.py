"""Receives what `loadgen run --otlp` and its server send, with OpenTelemetry's own messages, and follows every event in it.

    otlp-read.py LOADGEN FOLDER
"""

import json
import subprocess
import sys
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

GENERATOR, SERVER = "millrace-loadgen", "millrace-server"
# Two programs read the time of day, the one of them once.
CLOCKS_APART_NS = 20_000_000


def check(holds, what):
    if not holds:
        raise AssertionError(what)


def plain(attributes):
    return {attribute.key: getattr(attribute.value, attribute.value.WhichOneof("value")) for attribute in attributes}


class Receiver(ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.spans, self.metrics, self.lock = [], [], threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        check(self.headers["content-type"] == "application/x-protobuf", self.headers["content-type"])
        with self.server.lock:
            if self.path == "/v1/traces":
                request, answer = ExportTraceServiceRequest.FromString(body), ExportTraceServiceResponse()
                for of_resource in request.resource_spans:
                    resource = plain(of_resource.resource.attributes)
                    self.server.spans += [(resource, span) for scope in of_resource.scope_spans for span in scope.spans]
            else:
                check(self.path == "/v1/metrics", self.path)
                request, answer = ExportMetricsServiceRequest.FromString(body), ExportMetricsServiceResponse()
                for of_resource in request.resource_metrics:
                    resource = plain(of_resource.resource.attributes)
                    self.server.metrics += [(resource, metric) for scope in of_resource.scope_metrics for metric in scope.metrics]
            request.DiscardUnknownFields()
            check(request.ByteSize() == len(body), "fields that OpenTelemetry does not have")
        answer = answer.SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def follow(trace):
    """The four spans of one event, each within the one before."""
    names = {(GENERATOR, "ingest"), (GENERATOR, "request"), (SERVER, "POST /api/events"), (SERVER, "persist")}
    check(set(trace) == names, f"spans of a trace: {sorted(trace)}")
    whole, request = trace[GENERATOR, "ingest"], trace[GENERATOR, "request"]
    answered, persisted = trace[SERVER, "POST /api/events"], trace[SERVER, "persist"]
    check(whole.parent_span_id == b"", "the first span has a parent")
    for child, parent in [(request, whole), (answered, request), (persisted, answered)]:
        check(child.parent_span_id == parent.span_id, f"{child.name} is not within {parent.name}")
    kinds = [whole.kind, request.kind, answered.kind, persisted.kind]
    check(kinds == [Span.SPAN_KIND_INTERNAL, Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER, Span.SPAN_KIND_INTERNAL], str(kinds))
    begins = [span.start_time_unix_nano for span in (whole, request, answered, persisted)]
    for before, after in zip(begins, begins[1:]):
        check(before <= after + CLOCKS_APART_NS, f"out of order: {begins}")
    check(answered.end_time_unix_nano <= request.end_time_unix_nano + CLOCKS_APART_NS, "answered after the answer was read")
    check(persisted.end_time_unix_nano >= persisted.start_time_unix_nano, "persisted before it was taken in")
    for span in trace.values():
        check((len(span.trace_id), len(span.span_id)) == (16, 8), "lengths of ids")
        check(span.status.code == Status.STATUS_CODE_UNSET, f"{span.name}: {span.status}")
    check(plain(answered.attributes)["http.response.status_code"] == 202, str(answered))


def last(receiver, service, name):
    found = [metric for resource, metric in receiver.metrics if resource["service.name"] == service and metric.name == name]
    check(found, f"no {name} of {service}")
    return found[-1]


def main(loadgen, folder):
    for mode in ["cache-first", "journal-first", "db-first"]:
        receiver = Receiver()
        out = Path(folder) / mode
        url = f"http://127.0.0.1:{receiver.server_port}"
        command = [loadgen, "run", "--quiet", "--mode", mode, "--rate", "300", "--warmup", "200ms", "--duration", "1s", "--idle", "0s",
                   "--connections", "8", "--no-calibration", "--request-timeout", "30s", "--otlp", url, "--otlp-share", "1", "--out", str(out)]
        # 5: a machine that is busy with something else makes the generator late, and then it says so.
        done = subprocess.run(command, capture_output=True, text=True)
        check(done.returncode in (0, 5), f"exit code {done.returncode}:\n{done.stdout}{done.stderr}")
        run = json.loads((out / "run.json").read_text())
        result = run["results"][0]
        traces = defaultdict(dict)
        for resource, span in receiver.spans:
            check(resource["millrace.run_id"] == run["run_id"], "the run's id")
            traces[span.trace_id][resource["service.name"], span.name] = span
        events = [trace for trace in traces.values() if (GENERATOR, "ingest") in trace]
        acknowledged = result["ledger"]["acknowledged"]
        check(len(events) == acknowledged > 0, f"{len(events)} traces of {acknowledged} events")
        for trace in events:
            follow(trace)
        persisted = last(receiver, SERVER, "ingest_events_persisted").sum
        check(persisted.is_monotonic and persisted.data_points[0].as_double == acknowledged, str(persisted))
        times = last(receiver, GENERATOR, "millrace.response_time")
        point = times.histogram.data_points[0]
        check(times.unit == "s" and point.count == result["load"]["response_time"]["count"], str(times))
        check(len(point.bucket_counts) == len(point.explicit_bounds) + 1 and sum(point.bucket_counts) == point.count, str(point))
        names = {(resource["service.name"], metric.name) for resource, metric in receiver.metrics}
        print(f"{mode}: {acknowledged} events followed to the database, {len(receiver.spans)} spans, {len(names)} metrics")


main(*sys.argv[1:])
