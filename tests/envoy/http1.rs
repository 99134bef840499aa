//! As much HTTP/1.1 as a client and an upstream of these tests need.

use std::io::{self, BufRead, Read as _};

use filtergate::exercise::Request;

pub type Pairs = Vec<(String, String)>;

/// A whole request or response.
#[derive(Debug, Clone)]
pub struct Message {
    /// The request line or the status line.
    pub start: String,
    pub headers: Pairs,
    pub body: Vec<u8>,
    pub trailers: Pairs,
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The status of a response.
    pub fn status(&self) -> Option<u32> {
        self.start.split(' ').nth(1)?.parse().ok()
    }
}

pub fn find<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a str> {
    pairs.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Reads one message; `None` where the peer closed instead.
pub fn read(reader: &mut impl BufRead) -> io::Result<Option<Message>> {
    let Some(start) = read_line(reader)? else { return Ok(None) };
    let headers = read_pairs(reader)?;
    let mut message = Message { start, headers, body: Vec::new(), trailers: Vec::new() };
    if message.header("transfer-encoding").is_some() {
        loop {
            let line = read_line(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let size = u64::from_str_radix(&line, 16).map_err(io::Error::other)?;
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
    Ok(Some(message))
}

fn read_bytes(reader: &mut impl BufRead, count: u64, to: &mut Vec<u8>) -> io::Result<()> {
    let read = reader.take(count).read_to_end(to)?;
    if read as u64 == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
}

fn read_pairs(reader: &mut impl BufRead) -> io::Result<Pairs> {
    let mut pairs = Vec::new();
    loop {
        let line = read_line(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if line.is_empty() {
            return Ok(pairs);
        }
        let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
        pairs.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// A request on the wire. Without a content-length a body is chunked, one chunk for each frame.
pub fn request(request: &Request) -> Vec<u8> {
    let mut out =
        format!("{} {} HTTP/1.1\r\nhost: {}\r\n", request.method, request.path, request.host);
    let has_body = !request.frames.is_empty() || !request.trailers.is_empty();
    let chunked = has_body && find(&request.headers, "content-length").is_none();
    push_pairs(&mut out, &request.headers);
    if chunked {
        out.push_str("transfer-encoding: chunked\r\n");
    }
    out.push_str("\r\n");
    for frame in request.frames.iter().filter(|frame| !frame.is_empty()) {
        if chunked {
            push_chunk(&mut out, frame);
        } else {
            out.push_str(frame);
        }
    }
    if chunked {
        out.push_str("0\r\n");
        push_pairs(&mut out, &request.trailers);
        out.push_str("\r\n");
    }
    out.into_bytes()
}

pub fn push_pairs(out: &mut String, pairs: &[(String, String)]) {
    for (name, value) in pairs {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
}

pub fn push_chunk(out: &mut String, data: &str) {
    out.push_str(&format!("{:x}\r\n{data}\r\n", data.len()));
}
