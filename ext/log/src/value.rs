//! Values of rows as SQLite stores them: five types, exact bytes.
//!
//! Text is bytes in the encoding that the message header names; it is never checked or converted here, because
//! SQLite itself stores any bytes as text and a replica must hold the same ones.

use std::io::{Read, Write};

use crate::codec::{corrupt, Input, Output};
use crate::error::LogError;
use crate::limits::VALUE_BYTES_MAX;

/// One value, owned.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A floating-point number; its bits are kept, so -0.0 and infinities survive. (SQLite stores NaN as NULL.)
    Real(f64),
    /// Text, as bytes of the database's encoding.
    Text(Vec<u8>),
    /// A blob.
    Blob(Vec<u8>),
}

/// One value, borrowed from wherever the row is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueRef<'a> {
    /// NULL.
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A floating-point number.
    Real(f64),
    /// Text, as bytes of the database's encoding.
    Text(&'a [u8]),
    /// A blob.
    Blob(&'a [u8]),
}

impl Value {
    /// The same value, borrowed.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Integer(i) => ValueRef::Integer(*i),
            Self::Real(r) => ValueRef::Real(*r),
            Self::Text(t) => ValueRef::Text(t),
            Self::Blob(b) => ValueRef::Blob(b),
        }
    }
}

impl ValueRef<'_> {
    /// The same value, owned.
    pub fn to_owned(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Integer(i) => Value::Integer(i),
            Self::Real(r) => Value::Real(r),
            Self::Text(t) => Value::Text(t.to_vec()),
            Self::Blob(b) => Value::Blob(b.to_vec()),
        }
    }

    /// Equal in type and in every bit: what "the same key" means in a payload, and stricter than SQL's `IS`.
    pub fn same(self, other: ValueRef<'_>) -> bool {
        match (self, other) {
            (Self::Real(a), ValueRef::Real(b)) => a.to_bits() == b.to_bits(),
            (a, b) => a == b,
        }
    }
}

// FORMAT.md "Values".
const NULL: u8 = 0;
const INTEGER: u8 = 1;
const REAL: u8 = 2;
const TEXT: u8 = 3;
const BLOB: u8 = 4;

pub(crate) fn write<W: Write>(out: &mut Output<W>, value: ValueRef<'_>) -> Result<(), LogError> {
    match value {
        ValueRef::Null => out.byte(NULL),
        ValueRef::Integer(i) => {
            out.byte(INTEGER)?;
            out.signed(i)
        }
        ValueRef::Real(r) => {
            out.byte(REAL)?;
            out.bytes(&r.to_bits().to_le_bytes())
        }
        ValueRef::Text(t) => {
            out.byte(TEXT)?;
            out.sized(t, VALUE_BYTES_MAX)
        }
        ValueRef::Blob(b) => {
            out.byte(BLOB)?;
            out.sized(b, VALUE_BYTES_MAX)
        }
    }
}

/// Writes a value in the encoding of a payload, where nothing but its bytes matters.
pub fn encode<W: Write>(out: W, value: ValueRef<'_>) -> Result<(), LogError> {
    write(&mut Output { inner: out }, value)
}

/// Values as bytes, in the encoding of a payload: for rows that must wait in a table.
pub fn to_bytes<'v>(values: impl IntoIterator<Item = &'v Value>) -> Result<Vec<u8>, LogError> {
    let mut out = Output { inner: Vec::new() };
    values.into_iter().try_for_each(|value| write(&mut out, value.as_ref()))?;
    Ok(out.inner)
}

/// What `to_bytes` made.
pub fn from_bytes(bytes: &[u8]) -> Result<Vec<Value>, LogError> {
    let mut input = Input::new(bytes);
    let mut values = Vec::new();
    while input.at() < bytes.len() as u64 {
        values.push(read(&mut input)?);
    }
    Ok(values)
}

pub(crate) fn read<R: Read>(input: &mut Input<R>) -> Result<Value, LogError> {
    let at = input.at();
    Ok(match input.byte()? {
        NULL => Value::Null,
        INTEGER => Value::Integer(input.signed()?),
        REAL => {
            let mut bits = [0; 8];
            input.fill(&mut bits)?;
            Value::Real(f64::from_bits(u64::from_le_bytes(bits)))
        }
        TEXT => Value::Text(input.sized("text value", VALUE_BYTES_MAX)?),
        BLOB => Value::Blob(input.sized("blob value", VALUE_BYTES_MAX)?),
        tag => return Err(corrupt(at, format!("value type {tag} does not exist"))),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_from_their_bytes() {
        let row =
            [Value::Null, Value::Integer(-7), Value::Real(-0.0), Value::Text(b"a\xff".to_vec()), Value::Blob(vec![])];
        let bytes = to_bytes(&row).unwrap();
        assert_eq!(from_bytes(&bytes).unwrap(), row);
        assert!(from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert_eq!(from_bytes(&[]).unwrap(), []);
    }
}
