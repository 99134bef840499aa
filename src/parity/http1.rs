//! As much HTTP/1.1 as the client and the upstream of a real Envoy need. The peer is that Envoy, and
//! what it passes on is a module's: every size is bounded.

use std::io::{self, BufRead, Read as _};

use crate::exercise::Request;

/// Headers or trailers in order.
pub type Pairs = Vec<(String, String)>;

/// A whole request or response.
#[derive(Debug, Clone)]
pub struct Message {
    /// The request line or the status line.
    pub start: String,
    /// Headers in order.
    pub headers: Pairs,
    /// The body.
    pub body: Vec<u8>,
    /// Trailers in order.
    pub trailers: Pairs,
}

/// Most bytes of a line.
const MAX_LINE: u64 = 64 << 10;
/// Most headers or trailers.
const MAX_PAIRS: usize = 1000;
/// Most bytes of a body.
const MAX_BODY: u64 = 64 << 20;

impl Message {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The status of a response.
    pub fn status(&self) -> Option<u32> {
        self.start.split(' ').nth(1)?.parse().ok()
    }
}

/// The first value of a name in any case.
pub fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Reads one message; `None` where the peer closed instead.
pub(super) fn read(reader: &mut impl BufRead) -> io::Result<Option<Message>> {
    let Some(mut message) = read_head(reader)? else { return Ok(None) };
    read_body(reader, &mut message)?;
    Ok(Some(message))
}

/// Reads a message without a body: an answer to a HEAD request.
pub(super) fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Message>> {
    let Some(start) = read_line(reader)? else { return Ok(None) };
    let headers = read_pairs(reader)?;
    Ok(Some(Message { start, headers, body: Vec::new(), trailers: Vec::new() }))
}

fn read_body(reader: &mut impl BufRead, message: &mut Message) -> io::Result<()> {
    if message.header("transfer-encoding").is_some() {
        loop {
            let line = read_line(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).map_err(io::Error::other)?;
            if size == 0 {
                break;
            }
            read_bytes(reader, size, &mut message.body)?;
            read_line(reader)?;
        }
        message.trailers = read_pairs(reader)?;
    } else if let Some(length) = message.header("content-length") {
        let length = length.parse().map_err(io::Error::other)?;
        read_bytes(reader, length, &mut message.body)?;
    }
    Ok(())
}

fn read_bytes(reader: &mut impl BufRead, count: u64, to: &mut Vec<u8>) -> io::Result<()> {
    if to.len() as u64 + count > MAX_BODY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let read = reader.take(count).read_to_end(to)?;
    if read as u64 == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if reader.take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()))
}

fn read_pairs(reader: &mut impl BufRead) -> io::Result<Pairs> {
    let mut pairs = Vec::new();
    loop {
        let line = read_line(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if line.is_empty() {
            return Ok(pairs);
        }
        if pairs.len() >= MAX_PAIRS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
        pairs.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// A request on the wire, in the pieces that are to arrive one by one: the head with the first frame,
/// and a piece for each other one. Without a content-length a body is chunked. An empty frame is none
/// of the wire's: the codec makes it at the end of a body.
pub(super) fn request(request: &Request) -> Vec<Vec<u8>> {
    let mut head =
        format!("{} {} HTTP/1.1\r\nhost: {}\r\n", request.method, request.path, request.host);
    let has_body = !request.frames.is_empty() || !request.trailers.is_empty() || request.abandoned;
    let chunked = has_body && find(&request.headers, "content-length").is_none();
    push_pairs(&mut head, &request.headers);
    if chunked {
        head.push_str("transfer-encoding: chunked\r\n");
    }
    head.push_str("\r\n");
    let mut pieces = vec![head];
    for (at, frame) in request.frames.iter().filter(|frame| !frame.is_empty()).enumerate() {
        let mut piece = String::new();
        if chunked {
            push_chunk(&mut piece, frame);
        } else {
            piece.push_str(frame);
        }
        match pieces.last_mut() {
            Some(head) if at == 0 => head.push_str(&piece),
            _ => pieces.push(piece),
        }
    }
    if let Some(last) = pieces.last_mut().filter(|_| chunked && !request.abandoned) {
        last.push_str("0\r\n");
        push_pairs(last, &request.trailers);
        last.push_str("\r\n");
    }
    pieces.into_iter().map(String::into_bytes).collect()
}

pub(super) fn push_pairs(out: &mut String, pairs: &[(String, String)]) {
    for (name, value) in pairs {
        for part in [name, ": ", value, "\r\n"] {
            out.push_str(part);
        }
    }
}

pub(super) fn push_chunk(out: &mut String, data: &str) {
    out.push_str(&format!("{:x}\r\n{data}\r\n", data.len()));
}
