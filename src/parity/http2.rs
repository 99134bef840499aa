//! As much HTTP/2 as METADATA frames need of a client and an upstream of a real Envoy. The peer is that
//! Envoy, and what it passes on is a module's: every size is bounded.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Read, Write},
};

use loona_hpack::{Decoder, Encoder};

use crate::exercise::{Exchange, Metadata, Party};

use super::http1::{Message, Pairs, find};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// The frame that is Envoy's own, and the setting that allows it.
const METADATA: u8 = 0x4d;
const ALLOW_METADATA: u16 = 0x4d44;
const INITIAL_WINDOW_SIZE: u16 = 4;

const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The largest frame without leave for a larger one.
const MAX_FRAME: usize = 16_384;
/// As much as a side may send at once.
const WINDOW: u32 = 64 << 20;
/// Most bytes of a header block, and of a body.
const MAX_BLOCK: usize = 1 << 20;
const MAX_BODY: usize = 64 << 20;
/// Most streams of a connection that are not over.
const MAX_STREAMS: usize = 100;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// A frame on the wire. What does not fit into one frame is cut off by the caller.
fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn settings(out: &mut Vec<u8>) {
    let mut payload = Vec::new();
    for (setting, value) in [(ALLOW_METADATA, 1), (INITIAL_WINDOW_SIZE, WINDOW)] {
        payload.extend_from_slice(&setting.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(out, SETTINGS, 0, 0, &payload);
    frame(out, WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
}

fn headers(out: &mut Vec<u8>, stream: u32, end: bool, pairs: &[(String, String)]) {
    let end = if end { END_STREAM } else { 0 };
    frame(out, HEADERS, END_HEADERS | end, stream, &block(pairs));
}

fn data(out: &mut Vec<u8>, stream: u32, end: bool, bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        let (piece, behind) = rest.split_at(rest.len().min(MAX_FRAME));
        let end = if end && behind.is_empty() { END_STREAM } else { 0 };
        frame(out, DATA, end, stream, piece);
        rest = behind;
        if rest.is_empty() {
            return;
        }
    }
}

fn metadata(out: &mut Vec<u8>, stream: u32, entries: &BTreeMap<String, String>) {
    let pairs: Pairs = entries.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    frame(out, METADATA, END_HEADERS, stream, &block(&pairs));
}

/// A header block that needs nothing of the ones before it.
fn block(pairs: &[(String, String)]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.set_max_table_size(0);
    let lower: Vec<_> = pairs.iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
    encoder.encode(lower.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

/// A request on the wire, in the pieces that are to arrive one by one.
pub(super) fn request(exchange: &Exchange) -> Vec<Vec<u8>> {
    let request = &exchange.request;
    let mut pairs: Pairs = Vec::new();
    for (name, value) in [
        (":authority", request.host.as_str()),
        (":path", &request.path),
        (":method", &request.method),
        (":scheme", "http"),
    ] {
        pairs.push((name.to_owned(), value.to_owned()));
    }
    pairs.extend(request.headers.iter().cloned());
    let mut head = PREFACE.to_vec();
    settings(&mut head);
    let frames = &request.frames;
    headers(&mut head, 1, frames.is_empty() && request.trailers.is_empty(), &pairs);
    let mut pieces = vec![head];
    for (at, bytes) in frames.iter().enumerate() {
        pieces.extend(pieces_of_metadata(exchange, Party::Client, 1, at, frames.len()));
        let end = at + 1 == frames.len() && request.trailers.is_empty();
        let mut piece = Vec::new();
        data(&mut piece, 1, end, bytes.as_bytes());
        pieces.push(piece);
    }
    if !request.trailers.is_empty() {
        pieces.extend(pieces_of_metadata(exchange, Party::Client, 1, frames.len(), frames.len()));
        let mut piece = Vec::new();
        headers(&mut piece, 1, true, &request.trailers);
        pieces.push(piece);
    }
    pieces
}

fn pieces_of_metadata(
    exchange: &Exchange,
    party: Party,
    stream: u32,
    frame: usize,
    frames: usize,
) -> impl Iterator<Item = Vec<u8>> {
    exchange.metadata_before(party, frame, frames).map(move |frame| {
        let mut piece = Vec::new();
        metadata(&mut piece, stream, &frame.entries);
        piece
    })
}

/// An answer with a body on the wire, with the METADATA frames that an exchange has for it.
pub(super) fn answer(stream: u32, message: &Message, of: &Exchange, without_body: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let status = message.status().unwrap_or(0).to_string();
    let mut pairs = vec![(":status".to_owned(), status)];
    pairs.extend(message.headers.iter().cloned());
    headers(&mut out, stream, without_body, &pairs);
    if without_body {
        return out;
    }
    let has_trailers = !message.trailers.is_empty();
    // Without trailers an empty frame ends it.
    let frames = if has_trailers { 1 } else { 2 };
    for at in 0..=frames {
        for Metadata { entries, .. } in of.metadata_before(Party::Upstream, at, frames) {
            if at < frames || has_trailers {
                metadata(&mut out, stream, entries);
            }
        }
        match at {
            0 => data(&mut out, stream, false, &message.body),
            1 if !has_trailers => data(&mut out, stream, true, &[]),
            _ if has_trailers => headers(&mut out, stream, true, &message.trailers),
            _ => {}
        }
    }
    out
}

/// Messages that are on their way on a connection.
pub(super) struct Connection<S> {
    stream: S,
    decoder: Decoder<'static>,
    messages: HashMap<u32, Partial>,
}

#[derive(Default)]
struct Partial {
    pairs: Pairs,
    body: Vec<u8>,
    trailers: Pairs,
    has_headers: bool,
}

/// What came of a stream.
pub(super) enum Arrived {
    /// A whole message, in HTTP/1.1's terms.
    Message { stream: u32, message: Message },
    /// It was reset.
    Reset,
    /// The peer is done with the connection.
    Closed,
}

impl<S: Read + Write> Connection<S> {
    /// Of a client, which has sent what it has to say.
    pub fn client(stream: S) -> Self {
        Self { stream, decoder: Decoder::new(), messages: HashMap::new() }
    }

    /// Of a server: reads the client's preface.
    pub fn server(mut stream: S) -> io::Result<Self> {
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface)?;
        if preface != *PREFACE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut out = Vec::new();
        settings(&mut out);
        stream.write_all(&out)?;
        Ok(Self::client(stream))
    }

    /// Sends frames.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Waits for the end of the next message, or of a stream.
    pub fn arrival(&mut self) -> io::Result<Arrived> {
        loop {
            let Some(frame) = self.read()? else { return Ok(Arrived::Closed) };
            let Frame { kind, flags, stream, payload } = frame;
            match kind {
                SETTINGS if flags & ACK == 0 => self.acknowledge(SETTINGS, &[])?,
                PING if flags & ACK == 0 => self.acknowledge(PING, &payload)?,
                RST_STREAM => {
                    self.messages.remove(&stream);
                    return Ok(Arrived::Reset);
                }
                GOAWAY => return Ok(Arrived::Closed),
                HEADERS | DATA => {
                    if self.messages.len() >= MAX_STREAMS {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    self.part(kind, flags, stream, payload)?;
                    if flags & END_STREAM != 0
                        && let Some(partial) = self.messages.remove(&stream)
                    {
                        return Ok(Arrived::Message { stream, message: partial.into_message() });
                    }
                }
                _ => {}
            }
        }
    }

    fn part(&mut self, kind: u8, flags: u8, stream: u32, payload: Vec<u8>) -> io::Result<()> {
        let payload = unpadded(kind, flags, payload)?;
        if kind == DATA {
            let partial = self.messages.entry(stream).or_default();
            if partial.body.len() + payload.len() > MAX_BODY {
                return Err(io::ErrorKind::InvalidData.into());
            }
            partial.body.extend(payload);
            return Ok(());
        }
        let mut block = payload;
        let mut ended = flags & END_HEADERS != 0;
        while !ended {
            let next = self.read()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if next.kind != CONTINUATION || block.len() + next.payload.len() > MAX_BLOCK {
                return Err(io::ErrorKind::InvalidData.into());
            }
            block.extend(next.payload);
            ended = next.flags & END_HEADERS != 0;
        }
        let decoded = self.decoder.decode(&block);
        let decoded = decoded.map_err(|error| io::Error::other(format!("{error:?}")))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let pairs = decoded.iter().map(|(name, value)| (text(name), text(value))).collect();
        let partial = self.messages.entry(stream).or_default();
        match std::mem::replace(&mut partial.has_headers, true) {
            false => partial.pairs = pairs,
            true => partial.trailers = pairs,
        }
        Ok(())
    }

    fn acknowledge(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let mut out = Vec::new();
        frame(&mut out, kind, ACK, 0, payload);
        self.send(&out)
    }

    /// The next frame; `None` where the peer closed instead.
    fn read(&mut self) -> io::Result<Option<Frame>> {
        let mut head = [0; 9];
        match self.stream.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if length > MAX_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Ok(Some(Frame { kind: head[3], flags: head[4], stream, payload }))
    }
}

/// What is left of a payload without padding and priority.
fn unpadded(kind: u8, flags: u8, mut payload: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut front = 0;
    let mut back = 0;
    if flags & PADDED != 0 {
        front = 1;
        back = payload.first().copied().map_or(0, usize::from);
    }
    if kind == HEADERS && flags & PRIORITY != 0 {
        front += 5;
    }
    if front + back > payload.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    payload.truncate(payload.len() - back);
    payload.drain(..front);
    Ok(payload)
}

impl Partial {
    /// The message as HTTP/1.1 would have it.
    fn into_message(self) -> Message {
        let pseudo = |name| find(&self.pairs, name).unwrap_or_default();
        let start = match find(&self.pairs, ":status") {
            Some(status) => format!("HTTP/2 {status}"),
            None => format!("{} {} HTTP/2", pseudo(":method"), pseudo(":path")),
        };
        let headers = self.pairs.into_iter().filter_map(|(name, value)| {
            let name = if name == ":authority" { "host".to_owned() } else { name };
            (!name.starts_with(':')).then_some((name, value))
        });
        let headers = headers.collect();
        Message { start, headers, body: self.body, trailers: self.trailers }
    }
}
