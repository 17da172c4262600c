//! Bounded reading and writing of the payload's small alphabet: bytes, varints, sized byte strings.
//!
//! Invariants
//! - One encoding per number: a varint with a superfluous byte is refused.
//! - A length is checked against its limit before anything is allocated, and memory grows only as bytes arrive,
//!   so a forged length costs nothing.

use std::io::{ErrorKind, Read, Write};

use crate::error::LogError;

const WHAT: &str = "payload";

pub(crate) fn corrupt(at: u64, why: impl Into<String>) -> LogError {
    LogError::Malformed { what: WHAT, at, why: why.into() }
}

/// Writes the alphabet to a stream.
pub(crate) struct Output<W: Write> {
    pub(crate) inner: W,
}

impl<W: Write> Output<W> {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        self.inner.write_all(bytes).map_err(|e| LogError::Stream { what: WHAT, why: e.to_string() })
    }

    pub(crate) fn byte(&mut self, byte: u8) -> Result<(), LogError> {
        self.bytes(&[byte])
    }

    /// LEB128, least significant group first.
    pub(crate) fn unsigned(&mut self, mut n: u64) -> Result<(), LogError> {
        let mut buffer = [0; 10];
        let mut len = 0;
        loop {
            let low = (n & 0x7f) as u8;
            n >>= 7;
            buffer[len] = if n == 0 { low } else { low | 0x80 };
            len += 1;
            if n == 0 {
                return self.bytes(&buffer[..len]);
            }
        }
    }

    /// Zigzag, then as unsigned.
    pub(crate) fn signed(&mut self, n: i64) -> Result<(), LogError> {
        self.unsigned(((n << 1) ^ (n >> 63)) as u64)
    }

    pub(crate) fn sized(&mut self, bytes: &[u8], limit: u64) -> Result<(), LogError> {
        if bytes.len() as u64 > limit {
            return Err(LogError::TooLarge { what: WHAT, found: bytes.len() as u64, limit });
        }
        self.unsigned(bytes.len() as u64)?;
        self.bytes(bytes)
    }
}

/// Reads the alphabet from a stream and knows how far it has come.
pub(crate) struct Input<R: Read> {
    pub(crate) inner: R,
    at: u64,
}

impl<R: Read> Input<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, at: 0 }
    }

    /// Offset of the next byte in the uncompressed payload.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> Result<(), LogError> {
        self.inner.read_exact(buffer).map_err(|e| self.stream_error(&e))?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    fn stream_error(&self, e: &std::io::Error) -> LogError {
        match e.kind() {
            ErrorKind::UnexpectedEof => LogError::Truncated { what: WHAT, at: self.at },
            _ => corrupt(self.at, e.to_string()),
        }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, LogError> {
        let mut byte = [0];
        self.fill(&mut byte)?;
        Ok(byte[0])
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64, LogError> {
        let start = self.at;
        let mut n = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let group = u64::from(byte & 0x7f);
            if shift == 63 && group > 1 {
                return Err(corrupt(start, "number does not fit in 64 bits"));
            }
            n |= group << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift != 0 {
                    return Err(corrupt(start, "number is written longer than it need be"));
                }
                return Ok(n);
            }
        }
        Err(corrupt(start, "number is longer than ten bytes"))
    }

    pub(crate) fn signed(&mut self) -> Result<i64, LogError> {
        let n = self.unsigned()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// A count or length of at most `limit`.
    pub(crate) fn bounded(&mut self, what: &'static str, limit: u64) -> Result<u64, LogError> {
        let found = self.unsigned()?;
        if found > limit {
            return Err(LogError::TooLarge { what, found, limit });
        }
        Ok(found)
    }

    pub(crate) fn sized(&mut self, what: &'static str, limit: u64) -> Result<Vec<u8>, LogError> {
        let len = self.bounded(what, limit)?;
        let mut bytes = Vec::with_capacity(len.min(64 * 1024) as usize);
        (&mut self.inner).take(len).read_to_end(&mut bytes).map_err(|e| self.stream_error(&e))?;
        self.at += bytes.len() as u64;
        if (bytes.len() as u64) < len {
            return Err(LogError::Truncated { what, at: self.at });
        }
        Ok(bytes)
    }

    pub(crate) fn text(&mut self, what: &'static str, limit: u64) -> Result<String, LogError> {
        let start = self.at;
        String::from_utf8(self.sized(what, limit)?).map_err(|_| corrupt(start, format!("{what} is not UTF-8")))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_reads_back(n: u64, i: i64) {
            let mut out = Output { inner: Vec::new() };
            out.unsigned(n).unwrap();
            out.signed(i).unwrap();
            let mut input = Input::new(out.inner.as_slice());
            prop_assert_eq!(input.unsigned().unwrap(), n);
            prop_assert_eq!(input.signed().unwrap(), i);
        }
    }

    #[test]
    fn a_number_written_longer_than_need_be_is_refused() {
        for bytes in [&[0x80, 0x00][..], &[0xff, 0x80, 0x00], &[0xff; 10], &[0x80; 11]] {
            assert!(Input::new(bytes).unsigned().is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn a_forged_length_is_refused_without_allocating_it() {
        let mut out = Output { inner: Vec::new() };
        out.unsigned(1 << 30).unwrap();
        out.bytes(b"short").unwrap();
        let error = Input::new(out.inner.as_slice()).sized("value", 1 << 31).unwrap_err();
        assert!(matches!(error, LogError::Truncated { what: "value", .. }), "{error}");
        let error = Input::new(out.inner.as_slice()).sized("value", 1 << 20).unwrap_err();
        assert!(matches!(error, LogError::TooLarge { found, .. } if found == 1 << 30), "{error}");
    }
}
