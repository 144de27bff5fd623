//! Reads requests as a receiver gets them.

use std::io::BufRead;

/// A request: its head in small letters, and its body.
pub struct Request {
    pub head: String,
    pub body: Vec<u8>,
}

/// The next one; `None` when there is none any more.
pub fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { head, body })
}
