//! How bytes are compressed, decided by content: media types and file names are often wrong.

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead, Read};

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Gzip,
    Zstd,
    None,
}

impl Compression {
    /// That of bytes that begin so; four are enough.
    pub(crate) fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The bytes behind the compression.
    pub(crate) fn decoder<'r>(self, bytes: impl BufRead + 'r) -> Box<dyn Read + 'r> {
        match self {
            // There may be several gzip members in a row, of which `GzDecoder` would read only one.
            Self::Gzip => Box::new(MultiGzDecoder::new(bytes)),
            Self::Zstd => Box::new(ZstdFrames::new(bytes)),
            Self::None => Box::new(bytes),
        }
    }
}

/// Whether a block of 512 bytes is the first of a tar archive: they all have had a magic since POSIX
/// took the format over.
pub(crate) fn is_tar(head: &[u8]) -> bool {
    head.get(257..262).is_some_and(|magic| magic == b"ustar")
}

/// Several zstd frames in a row, some of which may be there to be skipped. ruzstd decodes one.
struct ZstdFrames<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> ZstdFrames<R> {
    fn new(source: R) -> Self {
        Self { source, decoder: FrameDecoder::new(), in_frame: false }
    }

    /// Begins the next frame. `false`: there is none.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame && !self.next_frame()? {
                return Ok(0);
            }
            self.in_frame = true;
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(io::Error::other)?;
            }
            match self.decoder.read(buffer)? {
                0 => self.in_frame = false,
                read => return Ok(read),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `hello `, raw in a frame of its own, by RFC 8878.
    const HELLO: &[u8] = b"\x28\xb5\x2f\xfd\x20\x06\x31\0\0hello ";
    const WORLD: &[u8] = b"\x28\xb5\x2f\xfd\x20\x05\x29\0\0world";
    const SKIPPED: &[u8] = b"\x5a\x2a\x4d\x18\x03\0\0\0xyz";

    fn decoded(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Compression::of(bytes).decoder(bytes).read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn frames_follow_one_another() {
        let all = [SKIPPED, HELLO, SKIPPED, SKIPPED, WORLD, SKIPPED].concat();
        assert_eq!(decoded(&all).unwrap(), b"hello world");
        assert_eq!(decoded(SKIPPED).unwrap(), b"");
    }

    #[test]
    fn what_is_cut_is_an_error() {
        for end in 4..HELLO.len() {
            assert!(decoded(&HELLO[..end]).is_err(), "{end}");
        }
        let garbage = [HELLO, &b"garbage"[..]].concat();
        assert!(decoded(&garbage).is_err());
    }
}
