//! Ed25519 keys and signatures, and the one hash of the node protocol.
//!
//! Invariants
//! - A secret key never shows in debug output, and its memory is wiped when it is dropped.
//! - Verification is strict: a signature that only lenient verifiers accept (small-order keys, non-canonical
//!   points) is refused, so all replicas agree on what is signed.
//!
//! Not here: where keys come from and where they are stored (`logos_engine`); sealing of payloads.

use std::fmt;

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest as _};
use ed25519_dalek::Signer as _;

use crate::ids::PublicKey;

/// An Ed25519 signature.
pub type Signature = [u8; 64];

/// An Ed25519 secret key. Wiped from memory when dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key of a 32-byte seed (RFC 8032).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Sign a message; the same key and message always give the same signature.
    pub fn sign(&self, message: &[u8]) -> Signature {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public_key())
    }
}

/// Whether `signature` is `signer`'s over `message`. A public key that is not a point of the curve signs nothing.
pub fn verify(signer: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    ed25519_dalek::VerifyingKey::from_bytes(signer.as_bytes())
        .and_then(|key| key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)))
        .is_ok()
}

/// Unkeyed Blake2b with a 32-byte digest over the parts one after another.
pub fn blake2b256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Blake2b::<U32>::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_names_the_public_key_and_hides_the_secret() {
        let seed = [0x5a; 32];
        let text = format!("{:?}", SigningKey::from_seed(&seed));
        assert!(!text.contains("5a5a"), "{text}");
        assert!(!text.contains("90, 90"), "{text}");
        assert!(text.contains(&SigningKey::from_seed(&seed).public_key().to_string()));
    }

    #[test]
    fn a_signature_holds_for_its_own_key_and_message_only() {
        let (key, other) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
        let signature = key.sign(b"message");
        assert!(verify(&key.public_key(), b"message", &signature));
        assert!(!verify(&key.public_key(), b"massage", &signature));
        assert!(!verify(&other.public_key(), b"message", &signature));
    }

    #[test]
    fn small_order_keys_and_bytes_that_are_no_key_verify_nothing() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut forged = [0; 64];
        forged[0] = 1; // R = identity, S = 0: a lenient verifier accepts this for every message
        assert!(!verify(&PublicKey(identity), b"any message", &forged));
        let no_point = (0..=u8::MAX)
            .map(|b| PublicKey([b; 32]))
            .find(|key| ed25519_dalek::VerifyingKey::from_bytes(key.as_bytes()).is_err())
            .unwrap();
        assert!(!verify(&no_point, b"any message", &forged));
    }

    #[test]
    fn hashing_parts_is_hashing_their_concatenation() {
        assert_eq!(blake2b256(&[b"ab", b"", b"c"]), blake2b256(&[b"abc"]));
        let empty = "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8";
        assert_eq!(hex::encode(blake2b256(&[])), empty);
    }
}
