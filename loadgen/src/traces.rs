//! Which requests are followed, and under which ids: settled by a request's number alone, so that nothing has to be kept while the load runs,
//! and whoever has the result can say the trace of any event.

use otlp::TraceContext;
use otlp::context::{TRACEPARENT, TRACEPARENT_BYTES};
use sha2::{Digest, Sha256};

/// The 56 bits of a trace id by which OpenTelemetry samples, so that whoever samples further on goes by the same number.
const RANDOM_BITS: u32 = 56;

/// Of one load.
#[derive(Clone, Copy, Debug)]
pub struct Traces {
    key: [u64; 2],
    /// Requests whose random number is below this are not followed.
    rejected_below: u64,
}

/// One request, and the two spans that it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What the request carries. The span in it is that from its first byte written to the end of its answer.
    pub context: TraceContext,
    /// The span around that, from when the request was due.
    pub whole_span_id: u64,
}

impl Traces {
    /// Of the load with this name, which no other one has; `share` (0..=1) of its requests are followed.
    pub fn new(load_name: &str, share: f64) -> Self {
        let digest = Sha256::digest(load_name.as_bytes());
        let part = |at: usize| digest[at..at + 8].iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        let all = 1u64 << RANDOM_BITS;
        Self { key: [part(0), part(8)], rejected_below: ((1.0 - share) * all as f64) as u64 }
    }

    /// Of a request. Neither allocates nor waits: it stands before every send.
    #[inline]
    pub fn of(&self, request: u64) -> Trace {
        let [high, low] = self.key.map(|key| mixed(key, request));
        let random = low & ((1 << RANDOM_BITS) - 1);
        let context = TraceContext {
            trace_id: (u128::from(high) << 64 | u128::from(low)).max(1),
            span_id: mixed(high, low).max(1),
            is_sampled: random >= self.rejected_below,
        };
        Trace { context, whole_span_id: mixed(low, high).max(1) }
    }

    /// Of the load as a whole, which is no request.
    pub fn of_load(&self) -> Trace {
        self.of(u64::MAX)
    }
}

/// SplitMix64 (Steele, Lea, Flood, 2014): the number `n` of the sequence that begins at `key`.
#[inline]
fn mixed(key: u64, n: u64) -> u64 {
    let mut z = key.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Adds a line for a `traceparent` to header lines, as their last one.
pub fn add_line(headers: &mut Vec<u8>) {
    headers.extend_from_slice(TRACEPARENT.as_bytes());
    headers.extend_from_slice(b": ");
    headers.extend_from_slice(&[b'0'; TRACEPARENT_BYTES]);
    headers.extend_from_slice(b"\r\n");
}

/// Writes a request's into that line.
#[inline]
pub fn fill_line(headers: &mut [u8], context: &TraceContext) {
    if let Some(begin) = headers.len().checked_sub(TRACEPARENT_BYTES + 2) {
        headers[begin..begin + TRACEPARENT_BYTES].copy_from_slice(&context.traceparent());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_follow_from_load_and_number_and_no_two_requests_share_one() {
        let (one, other) = (Traces::new("run-1.1", 0.5), Traces::new("run-1.2", 0.5));
        let numbers = || (0..50_000u64).chain([u64::MAX]);
        let traces: HashSet<u128> =
            numbers().flat_map(|n| [one.of(n).context.trace_id, other.of(n).context.trace_id]).collect();
        assert_eq!(traces.len(), 100_002);
        let spans: HashSet<u64> =
            numbers().flat_map(|n| [one.of(n).context.span_id, one.of(n).whole_span_id]).collect();
        assert_eq!(spans.len(), 100_002);
        assert_eq!(Traces::new("run-1.1", 0.5).of(7), one.of(7));
    }

    #[test]
    fn as_many_are_followed_as_are_asked_for_and_a_larger_share_has_those_of_a_smaller_one() {
        let followed = |share: f64| -> HashSet<u64> {
            let traces = Traces::new("run-1.1", share);
            (0..100_000).filter(|&n| traces.of(n).context.is_sampled).collect()
        };
        for (share, about) in [(0.0, 0), (0.01, 1_000), (0.5, 50_000), (1.0, 100_000)] {
            let count = followed(share).len();
            let exact = share == 0.0 || share == 1.0;
            assert!(count.abs_diff(about) <= if exact { 0 } else { 600 }, "{share}: {count}");
        }
        assert!(followed(0.01).is_subset(&followed(0.5)));
    }

    #[test]
    fn the_line_is_as_long_for_every_request_and_has_its_ids() {
        let mut headers = b"host: h\r\n".to_vec();
        add_line(&mut headers);
        let length = headers.len();
        let traces = Traces::new("run-1.1", 1.0);
        for n in [0, 1, 1_000_000] {
            let context = traces.of(n).context;
            fill_line(&mut headers, &context);
            let value = std::str::from_utf8(&headers).expect("text").strip_prefix("host: h\r\ntraceparent: ");
            let value = value.and_then(|value| value.strip_suffix("\r\n")).expect("a line").as_bytes();
            assert_eq!((headers.len(), TraceContext::parse(value)), (length, Some(context)));
        }
    }
}
