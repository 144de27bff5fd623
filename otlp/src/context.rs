//! What travels with a request: the `traceparent` header of [W3C Trace Context](https://www.w3.org/TR/trace-context/).

/// Length of a `traceparent` of version 00, which is the one that is written.
pub const TRACEPARENT_BYTES: usize = 55;

/// Name of the header.
pub const TRACEPARENT: &str = "traceparent";

/// Which trace a request is a part of, and which span it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// Of the whole trace; never 0.
    pub trace_id: u128,
    /// Of the span that sent the request; never 0.
    pub span_id: u64,
    /// Whether the sender keeps what it sees of this trace, so that it is worth the while to do so here.
    pub is_sampled: bool,
}

impl TraceContext {
    /// Reads a header's value. `None` for what the recommendation tells to ignore: a wrong length, capitals, an id of zeros, version `ff`.
    /// Of a version to come the part that version 00 has is read, as it asks for.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (head, rest) = value.split_at_checked(TRACEPARENT_BYTES)?;
        let version = hex(&head[..2])?;
        let is_as_long_as_it_says = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|&byte| byte == b'-'),
        };
        let has_dashes = [2, 35, 52].iter().all(|&at| head[at] == b'-');
        if !is_as_long_as_it_says || !has_dashes {
            return None;
        }
        let (trace_id, span_id) = (hex(&head[3..35])?, hex(&head[36..52])? as u64);
        let is_sampled = hex(&head[53..])? & 1 == 1;
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, is_sampled })
    }

    /// The header's value. Always as long, so that it can be written over the one before.
    pub fn traceparent(&self) -> [u8; TRACEPARENT_BYTES] {
        let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(self.trace_id, &mut value[3..35]);
        write_hex(u128::from(self.span_id), &mut value[36..52]);
        value[54] += u8::from(self.is_sampled);
        value
    }
}

/// Lower case alone, as the recommendation has it.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, &digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

fn write_hex(number: u128, to: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut left = number;
    for digit in to.iter_mut().rev() {
        *digit = DIGITS[(left & 0xf) as usize];
        left >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

    #[test]
    fn a_traceparent_is_read_as_the_recommendation_says() {
        let context = |is_sampled| Some(TraceContext { trace_id: TRACE, span_id: SPAN, is_sampled });
        for (value, expected) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", context(true)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", context(false)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", context(true)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fe", context(false)),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", context(true)),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-will-be-like", context(true)),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ", None),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g", None),
            ("0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01", None),
            ("00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", None),
            ("", None),
        ] {
            assert_eq!(TraceContext::parse(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn whatever_byte_is_changed_the_header_is_ignored_or_means_what_it_says() {
        let header = *b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for at in 0..TRACEPARENT_BYTES {
            for byte in 0..=u8::MAX {
                let mut changed = header;
                changed[at] = byte;
                let Some(context) = TraceContext::parse(&changed) else { continue };
                // All of it but the version and the flags that nobody knows yet.
                assert_eq!(context.traceparent()[2..53], changed[2..53], "{byte} at {at}");
            }
            assert_eq!(TraceContext::parse(&header[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn what_is_written_is_as_long_each_time_and_is_read_again() {
        for (trace_id, span_id, is_sampled) in [(TRACE, SPAN, true), (1, 1, false), (u128::MAX, u64::MAX, true)] {
            let context = TraceContext { trace_id, span_id, is_sampled };
            assert_eq!(TraceContext::parse(&context.traceparent()), Some(context));
        }
        let written = TraceContext { trace_id: TRACE, span_id: SPAN, is_sampled: true }.traceparent();
        assert_eq!(&written, b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    }
}
