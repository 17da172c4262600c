//! Parts: how a payload of any size becomes entries of bounded size, and back.
//!
//! Every entry's data is one part: a fixed header and a piece of the payload (FORMAT.md "Part"). The first byte
//! of every entry is the format version, so that nothing else is guessed about a newer one.
//!
//! Not here: what the payload says (`payload`), whether the entry may follow (`chain`).

use std::io::{self, Write};

use crate::error::LogError;
use crate::ids::Digest;
use crate::limits::PART_BYTES_MAX;

/// The format this build writes, and the newest that it reads.
pub const FORMAT_VERSION: u8 = 1;

/// Bytes before the piece: version 1, flags 1, seq 8, index 4.
pub const PART_HEADER_BYTES: usize = 14;

const FLAG_LAST: u8 = 1;
const WHAT: &str = "part";

/// One part of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// Sequence number of the message it belongs to, from 1.
    pub seq: u64,
    /// Its index in the message, from 0.
    pub index: u32,
    /// Whether the message ends with it.
    pub last: bool,
    /// The piece of the payload.
    pub piece: &'a [u8],
}

impl<'a> Part<'a> {
    /// The entry data of this part.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PART_HEADER_BYTES + self.piece.len());
        bytes.push(FORMAT_VERSION);
        bytes.push(if self.last { FLAG_LAST } else { 0 });
        bytes.extend_from_slice(&self.seq.to_le_bytes());
        bytes.extend_from_slice(&self.index.to_le_bytes());
        bytes.extend_from_slice(self.piece);
        bytes
    }

    /// Reads entry data. A newer version is refused before anything else is looked at.
    pub fn decode(data: &'a [u8]) -> Result<Self, LogError> {
        match data.first() {
            None => return Err(LogError::Truncated { what: WHAT, at: 0 }),
            Some(&found) if found > FORMAT_VERSION => {
                return Err(LogError::NewerFormat { found, newest: FORMAT_VERSION })
            }
            Some(0) => return Err(LogError::Malformed { what: WHAT, at: 0, why: "format 0 does not exist".into() }),
            Some(_) => {}
        }
        let Some((header, piece)) = data.split_at_checked(PART_HEADER_BYTES) else {
            return Err(LogError::Truncated { what: WHAT, at: data.len() as u64 });
        };
        if header[1] & !FLAG_LAST != 0 {
            return Err(LogError::Malformed { what: WHAT, at: 1, why: format!("unknown flags {:#04x}", header[1]) });
        }
        let mut seq = [0; 8];
        seq.copy_from_slice(&header[2..10]);
        let mut index = [0; 4];
        index.copy_from_slice(&header[10..14]);
        let part = Self {
            seq: u64::from_le_bytes(seq),
            index: u32::from_le_bytes(index),
            last: header[1] & FLAG_LAST != 0,
            piece,
        };
        if part.piece.is_empty() {
            return Err(LogError::Malformed { what: WHAT, at: PART_HEADER_BYTES as u64, why: "it is empty".into() });
        }
        Ok(part)
    }
}

/// Cuts a payload into parts as it is written, and digests it. Memory: one part.
///
/// `emit` gets the encoded entry data of each part, in order.
pub struct PartWriter<F: FnMut(u32, Vec<u8>) -> io::Result<()>> {
    seq: u64,
    index: u32,
    piece: Vec<u8>,
    hasher: blake3::Hasher,
    bytes: u64,
    emit: F,
}

/// Largest piece in one part.
const PIECE_BYTES_MAX: usize = PART_BYTES_MAX - PART_HEADER_BYTES;

impl<F: FnMut(u32, Vec<u8>) -> io::Result<()>> PartWriter<F> {
    /// Starts the payload of message `seq`.
    pub fn new(seq: u64, emit: F) -> Self {
        Self { seq, index: 0, piece: Vec::new(), hasher: blake3::Hasher::new(), bytes: 0, emit }
    }

    fn emit(&mut self, last: bool) -> io::Result<()> {
        let data = Part { seq: self.seq, index: self.index, last, piece: &self.piece }.encode();
        self.piece.clear();
        (self.emit)(self.index, data)?;
        self.index = self
            .index
            .checked_add(1)
            .ok_or_else(|| io::Error::other("a message cannot have more than 2^32 parts (2 PiB)"))?;
        Ok(())
    }

    /// Ends the payload: emits the last part; returns the payload's digest, its bytes and its number of parts.
    pub fn finish(mut self) -> io::Result<(Digest, u64, u32)> {
        self.emit(true)?;
        Ok((Digest(*self.hasher.finalize().as_bytes()), self.bytes, self.index))
    }
}

impl<F: FnMut(u32, Vec<u8>) -> io::Result<()>> Write for PartWriter<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full piece is emitted only when more follows, because only then it is known not to be the last.
        if self.piece.len() == PIECE_BYTES_MAX {
            self.emit(false)?;
        }
        let taken = bytes.len().min(PIECE_BYTES_MAX - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        self.hasher.update(&bytes[..taken]);
        self.bytes += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_of_any_size_is_cut_and_joined_again() {
        for size in [1, PIECE_BYTES_MAX - 1, PIECE_BYTES_MAX, PIECE_BYTES_MAX + 1, 3 * PIECE_BYTES_MAX + 7] {
            let payload: Vec<u8> = (0..size).map(|i| (i * 31 + i / 256) as u8).collect();
            let mut parts = Vec::new();
            let mut writer = PartWriter::new(7, |_, data| {
                parts.push(data);
                Ok(())
            });
            writer.write_all(&payload).unwrap();
            let (digest, bytes, count) = writer.finish().unwrap();
            assert_eq!((bytes as usize, count as usize), (size, parts.len()));
            assert_eq!(digest.0, *blake3::hash(&payload).as_bytes());
            let mut joined = Vec::new();
            for (index, data) in parts.iter().enumerate() {
                assert!(data.len() <= PART_BYTES_MAX);
                let part = Part::decode(data).unwrap();
                assert_eq!((part.seq, part.index as usize, part.last), (7, index, index + 1 == parts.len()));
                joined.extend_from_slice(part.piece);
            }
            assert_eq!(joined, payload);
        }
    }

    #[test]
    fn a_newer_format_is_named_and_nothing_else_of_it_is_read() {
        assert_eq!(Part::decode(&[9]).unwrap_err(), LogError::NewerFormat { found: 9, newest: FORMAT_VERSION });
    }

    #[test]
    fn short_empty_and_unknown_parts_are_refused() {
        let good = Part { seq: 1, index: 0, last: true, piece: b"x" }.encode();
        for cut in 0..good.len() {
            assert!(Part::decode(&good[..cut]).is_err(), "{cut}");
        }
        let mut unknown = good.clone();
        unknown[1] = 0x80;
        assert!(matches!(Part::decode(&unknown), Err(LogError::Malformed { at: 1, .. })));
        assert!(matches!(Part::decode(&[0]), Err(LogError::Malformed { at: 0, .. })));
    }
}
