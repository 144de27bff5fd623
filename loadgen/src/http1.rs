//! HTTP/1.1 as a client of one request at a time: what a request looks like on the wire, and where an answer ends. Pure: no socket, no
//! clock.
//!
//! An own reader, because a request through hyper's client costs more than writing and reading it; the syntax of heads is
//! `httparse`'s, as it is in hyper.

use std::ops::Range;

use crate::exchange::{ANSWER_BYTES_MAX, ExchangeError, Request};

/// Head of an answer, bytes and fields; more is not HTTP as anyone serves it.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const HEAD_FIELDS_MAX: usize = 100;
/// A whole answer on the wire, bytes: room for interim answers, and for a body of the largest size in chunks of one byte each.
const WIRE_BYTES_MAX: usize = 8 * ANSWER_BYTES_MAX;

/// Appends the request, head and body, to `out`.
pub fn write(request: &Request<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(request.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    out.extend_from_slice(request.headers);
    if let Some(body) = request.body {
        out.extend_from_slice(b"content-type: application/json\r\ncontent-length: ");
        write_decimal(body.len(), out);
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(body);
    } else {
        out.extend_from_slice(b"\r\n");
    }
}

fn write_decimal(number: usize, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    let mut left = number;
    loop {
        first -= 1;
        digits[first] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

/// A whole answer within the bytes that were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// HTTP status.
    pub status: u16,
    /// Where the body is, in the bytes given to [`Reader::read`]; of a chunked body in [`Reader::chunks`].
    pub body: Body,
    /// Whether the connection may carry another request: kept alive, and nothing came after the answer.
    pub reusable: bool,
}

/// Where a body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// In the bytes given to [`Reader::read`].
    Here(Range<usize>),
    /// In [`Reader::chunks`].
    Chunks,
}

/// Reads one answer after the other. Given all bytes since the last answer each time; remembers how far it came.
#[derive(Debug, Default)]
pub struct Reader {
    state: State,
    chunks: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// Begins at this byte: behind the interim answers.
    Head {
        at: usize,
    },
    Body {
        status: u16,
        keep_alive: bool,
        framing: Framing,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::Head { at: 0 }
    }
}

#[derive(Debug)]
enum Framing {
    Length { begin: usize, length: usize },
    Chunked { at: usize, part: Part },
    UntilClosed { begin: usize },
}

/// What a chunked body goes on with.
#[derive(Clone, Copy, Debug)]
enum Part {
    Size,
    Data { left: usize },
    Trailer,
}

impl Reader {
    /// The answer at the begin of `bytes`, when it is whole; `None`: more is needed. `closed`: nothing more will come.
    pub fn read(&mut self, bytes: &[u8], closed: bool) -> Result<Option<Read>, ExchangeError> {
        if bytes.len() > WIRE_BYTES_MAX {
            return Err(ExchangeError::BodyTooLong);
        }
        loop {
            match &mut self.state {
                State::Head { at } => match head(&bytes[*at..])? {
                    // Interim answers (100, 103) precede the answer proper; more of them than a head may be long are no such.
                    Some((length, head)) if (100..200).contains(&head.status) => {
                        *at += length;
                        if *at > HEAD_BYTES_MAX {
                            return Err(ExchangeError::NotHttp);
                        }
                    }
                    Some((length, head)) => {
                        self.chunks.clear();
                        let framing = head.framing(*at + length);
                        self.state = State::Body { status: head.status, keep_alive: head.keep_alive, framing };
                    }
                    None if closed => return Err(ExchangeError::Closed),
                    None => return Ok(None),
                },
                State::Body { status, keep_alive, framing } => {
                    let (status, keep_alive) = (*status, *keep_alive);
                    let Some((body, end)) = framing.read(bytes, closed, &mut self.chunks)? else {
                        return if closed { Err(ExchangeError::Closed) } else { Ok(None) };
                    };
                    self.state = State::default();
                    return Ok(Some(Read { status, body, reusable: keep_alive && !closed && end == bytes.len() }));
                }
            }
        }
    }

    /// The body of the last answer, when that was chunked.
    pub fn chunks(&self) -> &[u8] {
        &self.chunks
    }
}

struct Head {
    status: u16,
    keep_alive: bool,
    length: Option<usize>,
    chunked: bool,
}

impl Head {
    /// RFC 9112, 6.3, for answers to GET and POST.
    fn framing(&self, begin: usize) -> Framing {
        match self.length {
            _ if self.status == 204 || self.status == 304 => Framing::Length { begin, length: 0 },
            _ if self.chunked => Framing::Chunked { at: begin, part: Part::Size },
            Some(length) => Framing::Length { begin, length },
            None => Framing::UntilClosed { begin },
        }
    }
}

/// The head at the begin of `bytes`, and its length.
fn head(bytes: &[u8]) -> Result<Option<(usize, Head)>, ExchangeError> {
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut fields);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        _ => return Err(ExchangeError::NotHttp),
    };
    let mut head = Head {
        status: parsed.code.unwrap_or_default(),
        keep_alive: parsed.version == Some(1),
        length: None,
        chunked: false,
    };
    for field in parsed.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let text = str::from_utf8(field.value).map_err(|_| ExchangeError::NotHttp)?;
            let digits = Some(text.trim()).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length: usize = digits.and_then(|text| text.parse().ok()).ok_or(ExchangeError::NotHttp)?;
            if head.length.is_some_and(|other| other != length) {
                return Err(ExchangeError::NotHttp);
            }
            if length > ANSWER_BYTES_MAX {
                return Err(ExchangeError::BodyTooLong);
            }
            head.length = Some(length);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            head.chunked = field.value.trim_ascii().eq_ignore_ascii_case(b"chunked");
        } else if field.name.eq_ignore_ascii_case("connection") {
            for option in field.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                if option.eq_ignore_ascii_case(b"close") {
                    head.keep_alive = false;
                } else if option.eq_ignore_ascii_case(b"keep-alive") {
                    head.keep_alive = true;
                }
            }
        }
    }
    Ok(Some((length, head)))
}

impl Framing {
    /// The body and where the answer ends, when it does.
    fn read(
        &mut self,
        bytes: &[u8],
        closed: bool,
        chunks: &mut Vec<u8>,
    ) -> Result<Option<(Body, usize)>, ExchangeError> {
        match self {
            Self::Length { begin, length } => {
                let end = *begin + *length;
                Ok((bytes.len() >= end).then_some((Body::Here(*begin..end), end)))
            }
            Self::UntilClosed { begin } => {
                if bytes.len() - *begin > ANSWER_BYTES_MAX {
                    return Err(ExchangeError::BodyTooLong);
                }
                Ok(closed.then_some((Body::Here(*begin..bytes.len()), bytes.len())))
            }
            Self::Chunked { at, part } => Ok(read_chunks(bytes, at, part, chunks)?.then_some((Body::Chunks, *at))),
        }
    }
}

/// Moves what has come into `chunks`; true at the end of the body.
fn read_chunks(bytes: &[u8], at: &mut usize, part: &mut Part, chunks: &mut Vec<u8>) -> Result<bool, ExchangeError> {
    loop {
        let rest = &bytes[*at..];
        match part {
            Part::Size => match httparse::parse_chunk_size(rest).map_err(|_| ExchangeError::NotHttp)? {
                httparse::Status::Complete((used, size)) => {
                    let size = usize::try_from(size).unwrap_or(usize::MAX);
                    if size > ANSWER_BYTES_MAX - chunks.len() {
                        return Err(ExchangeError::BodyTooLong);
                    }
                    *at += used;
                    *part = if size == 0 { Part::Trailer } else { Part::Data { left: size } };
                }
                // An extension of the chunk that does not end.
                httparse::Status::Partial if rest.len() > HEAD_BYTES_MAX => return Err(ExchangeError::NotHttp),
                httparse::Status::Partial => return Ok(false),
            },
            Part::Data { left: 0 } => match rest {
                [b'\r', b'\n', ..] => {
                    *at += 2;
                    *part = Part::Size;
                }
                [] | [b'\r'] => return Ok(false),
                _ => return Err(ExchangeError::NotHttp),
            },
            Part::Data { left } => {
                let taken = rest.len().min(*left);
                if taken == 0 {
                    return Ok(false);
                }
                chunks.extend_from_slice(&rest[..taken]);
                *at += taken;
                *left -= taken;
            }
            Part::Trailer => {
                let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
                    return if rest.len() > HEAD_BYTES_MAX { Err(ExchangeError::NotHttp) } else { Ok(false) };
                };
                *at += end + 2;
                if end == 0 {
                    return Ok(true);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Status, body and reusability of the answer in `bytes`, which come in pieces of `piece` bytes.
    fn read_in_pieces(
        bytes: &[u8],
        piece: usize,
        then_closed: bool,
    ) -> Result<Option<(u16, Vec<u8>, bool)>, ExchangeError> {
        let mut reader = Reader::default();
        let ends = (piece..bytes.len()).step_by(piece).chain([bytes.len()]);
        for end in ends {
            if let Some(read) = reader.read(&bytes[..end], false)? {
                return Ok(Some(shown(&reader, &bytes[..end], read)));
            }
        }
        if !then_closed {
            return Ok(None);
        }
        Ok(reader.read(bytes, true)?.map(|read| shown(&reader, bytes, read)))
    }

    fn shown(reader: &Reader, bytes: &[u8], read: Read) -> (u16, Vec<u8>, bool) {
        let body = match read.body {
            Body::Here(range) => bytes[range].to_vec(),
            Body::Chunks => reader.chunks().to_vec(),
        };
        (read.status, body, read.reusable)
    }

    #[test]
    fn an_answer_ends_where_its_head_says_however_it_is_cut() {
        let cases: [(&str, bool, u16, &str, bool); 12] = [
            ("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}", false, 202, "{}", true),
            ("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", false, 202, "", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", false, 204, "", true),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", false, 200, "x", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", false, 200, "x", false),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx", false, 200, "x", true),
            ("HTTP/1.1 200 OK\r\n\r\nuntil the end", true, 200, "until the end", false),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
                false,
                200,
                "abcde",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n",
                false,
                200,
                "abc",
                true,
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}",
                false,
                202,
                "{}",
                true,
            ),
            (
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
                false,
                200,
                "a",
                true,
            ),
            ("HTTP/1.1 500 X\r\nContent-Length: 4\r\n\r\nfour", false, 500, "four", true),
        ];
        for (text, closed, status, body, reusable) in cases {
            for piece in [1, 2, 3, 7, text.len()] {
                let read =
                    read_in_pieces(text.as_bytes(), piece, closed).unwrap_or_else(|error| panic!("{text}: {error}"));
                assert_eq!(read, Some((status, body.as_bytes().to_vec(), reusable)), "{text} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error_with_its_reason() {
        let long = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", ANSWER_BYTES_MAX + 1);
        let endless_head = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_BYTES_MAX));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let endless_interim = "HTTP/1.1 100 C\r\n\r\n".repeat(200_000);
        let endless_extension = format!("{chunked}1;x={}", "x".repeat(2 * HEAD_BYTES_MAX));
        let endless_trailers = format!("{chunked}0\r\n{}", "X: y\r\n".repeat(WIRE_BYTES_MAX / 6));
        for (text, error) in [
            ("SSH-2.0-OpenSSH_9.2\r\n\r\n", ExchangeError::NotHttp),
            ("HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n", ExchangeError::NotHttp),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", ExchangeError::NotHttp),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ExchangeError::NotHttp),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", ExchangeError::NotHttp),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n", ExchangeError::BodyTooLong),
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", ExchangeError::Closed),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab", ExchangeError::Closed),
            ("HTTP/1.1 200 OK\r\nContent-Le", ExchangeError::Closed),
            ("", ExchangeError::Closed),
            (long.as_str(), ExchangeError::BodyTooLong),
            (endless_head.as_str(), ExchangeError::NotHttp),
            (endless_interim.as_str(), ExchangeError::NotHttp),
            (endless_extension.as_str(), ExchangeError::NotHttp),
            (endless_trailers.as_str(), ExchangeError::BodyTooLong),
            ("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx", ExchangeError::NotHttp),
            ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", ExchangeError::NotHttp),
        ] {
            assert_eq!(read_in_pieces(text.as_bytes(), text.len().max(1), true), Err(error), "{text:.60}");
        }
    }

    #[test]
    fn more_than_one_answer_to_one_request_ends_the_connection() {
        let twice = "HTTP/1.1 202 A\r\nContent-Length: 0\r\n\r\n".repeat(2);
        let read = read_in_pieces(twice.as_bytes(), twice.len(), false).expect("an answer");
        assert_eq!(read, Some((202, Vec::new(), false)));
    }

    #[test]
    fn a_request_is_its_head_and_its_body() {
        let mut out = Vec::new();
        let headers = b"host: h\r\n";
        write(&Request { method: "POST", path: "/api/events", headers, body: Some(b"{}") }, &mut out);
        write(&Request { method: "GET", path: "/api/inbox?limit=1", headers, body: None }, &mut out);
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            text,
            "POST /api/events HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}\
             GET /api/inbox?limit=1 HTTP/1.1\r\nhost: h\r\n\r\n"
        );
    }

    proptest! {
        #[test]
        fn nothing_that_comes_makes_it_panic(bytes: Vec<u8>, piece in 1usize..50) {
            let _ = read_in_pieces(&bytes, piece, true);
            let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            answer.extend(&bytes);
            let _ = read_in_pieces(&answer, piece, true);
        }

        /// Whatever the answer is like and wherever it is cut: as if it had come at once.
        #[test]
        fn where_an_answer_is_cut_makes_no_difference(
            interim in 0usize..3,
            status in prop::sample::select(vec![200u16, 202, 204, 400, 503]),
            framing in 0usize..3,
            keep_alive: bool,
            body in prop::collection::vec(any::<u8>(), 0..300),
            chunk in 1usize..50,
            mut cuts in prop::collection::vec(0usize..800, 0..8),
        ) {
            let mut answer = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(interim);
            answer.extend(format!("HTTP/1.1 {status} S\r\n").as_bytes());
            answer.extend(if keep_alive { &b""[..] } else { b"Connection: Close\r\n" });
            match framing {
                _ if status == 204 => answer.extend(b"\r\n"),
                0 => answer.extend([format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()),
                1 => {
                    answer.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                    for chunk in body.chunks(chunk) {
                        answer.extend([format!("{:X};e=1\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
                    }
                    answer.extend(b"0\r\nTrailer: t\r\n\r\n");
                }
                _ => answer.extend([b"\r\n", &body[..]].concat()),
            }
            let until_closed = framing == 2 && status != 204;
            let expected = if status == 204 { Vec::new() } else { body };
            cuts.retain(|cut| *cut < answer.len());
            cuts.sort_unstable();
            let mut reader = Reader::default();
            for cut in cuts {
                prop_assert_eq!(reader.read(&answer[..cut], false), Ok(None), "whole after {} of {}", cut, answer.len());
            }
            let read = reader.read(&answer, until_closed).expect("valid").expect("whole");
            prop_assert_eq!(shown(&reader, &answer, read), (status, expected, keep_alive && !until_closed));
        }

        #[test]
        fn a_chunked_body_comes_back_whole(body: Vec<u8>, chunk in 1usize..100, piece in 1usize..100) {
            let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for chunk in body.chunks(chunk) {
                answer.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                answer.extend(chunk);
                answer.extend(b"\r\n");
            }
            answer.extend(b"0\r\n\r\n");
            prop_assert_eq!(read_in_pieces(&answer, piece, false), Ok(Some((200, body, true))));
        }
    }
}
