//! Names of things: fixed-width identifiers, each a type of its own so that none can stand for another.
//!
//! Text form is lower-case hex of fixed width, so that it sorts and greps; parsing accepts only that form.

use std::fmt;
use std::str::FromStr;

use crate::error::LogError;

macro_rules! id32 {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// Thirty-two zero bytes.
            pub const ZERO: Self = Self([0; 32]);

            /// The bytes, borrowed.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// From exactly 32 bytes; anything else is an error that names the thing.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, LogError> {
                bytes.try_into().map(Self).map_err(|_| LogError::BadId { what: $what, found: hex::encode(bytes) })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = LogError;

            fn from_str(text: &str) -> Result<Self, LogError> {
                let bad = || LogError::BadId { what: $what, found: text.chars().take(80).collect() };
                if text.len() != 64 || text.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(bad());
                }
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| bad())?;
                Ok(Self(bytes))
            }
        }
    };
}

id32!(
    /// A channel: by our convention the Ed25519 public key of its publisher.
    ChannelId,
    "channel id"
);
id32!(
    /// Identifier of one entry: unkeyed Blake2b-256 of the encoded inscription (PROTOCOL: MsgId).
    MsgId,
    "message id"
);
id32!(
    /// An Ed25519 public key.
    PublicKey,
    "public key"
);
id32!(
    /// Hash of a transaction: what is signed.
    TxHash,
    "transaction hash"
);
id32!(
    /// Blake3 digest of one whole payload; payloads are chained by it.
    Digest,
    "digest"
);

impl MsgId {
    /// Parent of the first entry of a channel.
    pub const ROOT: Self = Self::ZERO;
}

/// How far a database has come on its channel: the sequence number of a message and the digest of its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Sequence number of the message; the first is 1, and 0 is "before the first".
    pub seq: u64,
    /// Digest of that message's payload; zero before the first.
    pub digest: Digest,
}

impl Position {
    /// Before the first message.
    pub const START: Self = Self { seq: 0, digest: Digest::ZERO };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{}", self.seq, self.digest)
    }
}

impl FromStr for Position {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        let bad = || LogError::BadId { what: "position", found: text.chars().take(100).collect() };
        let (seq, digest) = text.split_once('/').ok_or_else(bad)?;
        if seq.len() != 16 || seq.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad());
        }
        Ok(Self { seq: u64::from_str_radix(seq, 16).map_err(|_| bad())?, digest: digest.parse()? })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn position_text_is_fixed_width_and_reads_back() {
        let position = Position { seq: 42, digest: Digest([0x9f; 32]) };
        let text = position.to_string();
        assert!(text.starts_with("000000000000002a/9f9f"));
        assert_eq!(text.len(), 16 + 1 + 64);
        assert_eq!(text.parse::<Position>().unwrap(), position);
    }

    #[test]
    fn other_spellings_of_an_id_are_refused() {
        let id = ChannelId([0xab; 32]).to_string();
        let refused = id.to_uppercase().parse::<ChannelId>();
        assert!(matches!(refused, Err(LogError::BadId { what: "channel id", .. })), "{refused:?}");
        assert!(format!("0x{id}").parse::<ChannelId>().is_err());
        assert!(id[1..].parse::<ChannelId>().is_err());
        assert!("2a/00".parse::<Position>().is_err());
        assert!(format!("+00000000000002a/{}", Digest::ZERO).parse::<Position>().is_err());
    }
}
