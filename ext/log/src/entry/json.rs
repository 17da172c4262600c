//! Transactions in the JSON of the node protocol.
//!
//! Invariants
//! - We write one spelling: lower-case hex without prefix, the field and proof names of August 2026.
//! - We read what nodes of June 2026 write as well, hex of either case with or without `0x`, and ignore fields
//!   that we do not know, as the node does. Numbers are whole u64, never floats.
//! - Every error names the place in the document.

use serde_json::{json, Value};

use super::{ChannelConfig, Inscription, Op, Proof, SignedTx, Transfer, OP_CONFIG, OP_INSCRIBE, OP_TRANSFER};
use crate::error::LogError;
use crate::ids::{ChannelId, MsgId, PublicKey};
use crate::limits::{INSCRIPTION_BYTES_MAX, OPS_MAX};

impl SignedTx {
    /// As it is posted to a node: `{"mantle_tx": {"ops": […]}, "ops_proofs": […]}`.
    pub fn to_json(&self) -> Value {
        json!({
            "mantle_tx": {"ops": self.ops.iter().map(Op::to_json).collect::<Vec<_>>()},
            "ops_proofs": self.proofs.iter().map(Proof::to_json).collect::<Vec<_>>(),
        })
    }

    /// The inverse of [`Self::to_json`]. A `hash` that a node puts beside the ops is not believed: ask
    /// [`Self::hash`]. Whether the proofs fit is for [`Self::verify`] to say.
    pub fn from_json(value: &Value) -> Result<Self, LogError> {
        let tx = At::root(value, "transaction");
        let ops = tx.field("mantle_tx")?.field("ops")?.list(OPS_MAX, Op::read_json)?;
        let proofs = tx.field("ops_proofs")?.list(OPS_MAX, Proof::read_json)?;
        Ok(Self { ops, proofs })
    }
}

impl Op {
    /// As the node writes it: `{"opcode": n, "payload": {…}}`.
    pub fn to_json(&self) -> Value {
        let payload = match self {
            Self::Inscribe(inscription) => inscription.to_json(),
            Self::Config(config) => config.to_json(),
            Self::Transfer(transfer) => transfer.to_json(),
        };
        json!({"opcode": self.opcode(), "payload": payload})
    }

    /// The inverse of [`Self::to_json`].
    pub fn from_json(value: &Value) -> Result<Self, LogError> {
        Self::read_json(At::root(value, "operation"))
    }

    fn read_json(op: At<'_>) -> Result<Self, LogError> {
        let opcode: u64 = op.field("opcode")?.number()?;
        let payload = op.field("payload");
        match u8::try_from(opcode) {
            Ok(OP_INSCRIBE) => Inscription::read_json(payload?).map(Self::Inscribe),
            Ok(OP_CONFIG) => ChannelConfig::read_json(payload?).map(Self::Config),
            Ok(OP_TRANSFER) => Transfer::read_json(payload?).map(Self::Transfer),
            _ => Err(LogError::UnknownOp { opcode }),
        }
    }
}

impl Inscription {
    fn to_json(&self) -> Value {
        json!({
            "channel_id": self.channel.to_string(),
            "inscription": hex::encode(&self.data),
            "parent": self.parent.to_string(),
            "signer": self.signer.to_string(),
        })
    }

    fn read_json(payload: At<'_>) -> Result<Self, LogError> {
        Ok(Self {
            channel: ChannelId(payload.field("channel_id")?.array()?),
            data: payload.field("inscription")?.bytes(INSCRIPTION_BYTES_MAX)?,
            parent: MsgId(payload.field("parent")?.array()?),
            signer: PublicKey(payload.field("signer")?.array()?),
        })
    }
}

impl ChannelConfig {
    fn to_json(&self) -> Value {
        json!({
            "channel": self.channel.to_string(),
            "keys": self.keys.iter().map(PublicKey::to_string).collect::<Vec<_>>(),
            "posting_timeframe": self.posting_timeframe,
            "posting_timeout": self.posting_timeout,
            "configuration_threshold": self.configuration_threshold,
            "transfer_threshold": self.transfer_threshold,
        })
    }

    fn read_json(payload: At<'_>) -> Result<Self, LogError> {
        // June 2026 called the last one withdraw_threshold.
        let june = payload.field("withdraw_threshold");
        let transfer_threshold = payload.field("transfer_threshold").or_else(|missing| june.map_err(|_| missing))?;
        Ok(Self {
            channel: ChannelId(payload.field("channel")?.array()?),
            keys: payload.field("keys")?.list(u16::MAX.into(), |key| key.array().map(PublicKey))?,
            posting_timeframe: payload.field("posting_timeframe")?.number()?,
            posting_timeout: payload.field("posting_timeout")?.number()?,
            configuration_threshold: payload.field("configuration_threshold")?.number()?,
            transfer_threshold: transfer_threshold.number()?,
        })
    }
}

impl Transfer {
    fn to_json(&self) -> Value {
        let output = |(value, owner): &(u64, [u8; 32])| json!({"value": value, "pk": hex::encode(owner)});
        json!({
            "inputs": self.inputs.iter().map(hex::encode).collect::<Vec<_>>(),
            "outputs": self.outputs.iter().map(output).collect::<Vec<_>>(),
        })
    }

    fn read_json(payload: At<'_>) -> Result<Self, LogError> {
        let output = |output: At<'_>| Ok((output.field("value")?.number()?, output.field("pk")?.array()?));
        Ok(Self {
            inputs: payload.field("inputs")?.list(OPS_MAX, |input| input.array())?,
            outputs: payload.field("outputs")?.list(OPS_MAX, output)?,
        })
    }
}

impl Proof {
    /// As the node writes it: an object whose one key names the kind.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Ed25519(signature) => json!({"Ed25519Sig": hex::encode(signature)}),
            Self::MultiSig(signatures) => {
                let signatures = signatures
                    .iter()
                    .map(|(signature, key)| json!({"signature": hex::encode(signature), "channel_key_index": key}));
                json!({"ChannelMultiSigProof": {"signatures": signatures.collect::<Vec<_>>()}})
            }
            Self::Zk(proof) => json!({"ZkSig": {
                "pi_a": hex::encode(&proof[..32]),
                "pi_b": hex::encode(&proof[32..96]),
                "pi_c": hex::encode(&proof[96..]),
            }}),
        }
    }

    /// The inverse of [`Self::to_json`].
    pub fn from_json(value: &Value) -> Result<Self, LogError> {
        Self::read_json(At::root(value, "proof"))
    }

    fn read_json(proof: At<'_>) -> Result<Self, LogError> {
        let (kind, content) = proof.only_field()?;
        match kind {
            "Ed25519Sig" => content.array().map(Self::Ed25519),
            // June 2026 called it ZkAndEd25519Sigs.
            "ChannelMultiSigProof" | "ZkAndEd25519Sigs" => {
                let signature = |signature: At<'_>| {
                    Ok((signature.field("signature")?.array()?, signature.field("channel_key_index")?.number()?))
                };
                content.field("signatures")?.list(u16::MAX.into(), signature).map(Self::MultiSig)
            }
            "ZkSig" => {
                let mut bytes = [0; 128];
                bytes[..32].copy_from_slice(&content.field("pi_a")?.array::<32>()?);
                bytes[32..96].copy_from_slice(&content.field("pi_b")?.array::<64>()?);
                bytes[96..].copy_from_slice(&content.field("pi_c")?.array::<32>()?);
                Ok(Self::Zk(bytes))
            }
            _ => Err(content.wrong("an unknown kind of proof")),
        }
    }
}

/// A value and its place in the document.
struct At<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> At<'a> {
    fn root(value: &'a Value, name: &str) -> Self {
        Self { value, path: name.into() }
    }

    fn wrong(&self, why: &str) -> LogError {
        LogError::Json { path: self.path.clone(), why: why.into() }
    }

    fn field(&self, name: &str) -> Result<Self, LogError> {
        let object = self.value.as_object().ok_or_else(|| self.wrong("not an object"))?;
        let path = format!("{}.{name}", self.path);
        match object.get(name) {
            Some(value) => Ok(Self { value, path }),
            None => Err(LogError::Json { path, why: "missing".into() }),
        }
    }

    fn only_field(&self) -> Result<(&'a str, Self), LogError> {
        let mut fields = self.value.as_object().into_iter().flatten();
        match (fields.next(), fields.next()) {
            (Some((name, value)), None) => Ok((name, Self { value, path: format!("{}.{name}", self.path) })),
            _ => Err(self.wrong("not an object with one field")),
        }
    }

    fn list<T>(&self, limit: usize, read: impl Fn(Self) -> Result<T, LogError>) -> Result<Vec<T>, LogError> {
        let items = self.value.as_array().ok_or_else(|| self.wrong("not an array"))?;
        if items.len() > limit {
            return Err(self.wrong(&format!("{} elements, at most {limit}", items.len())));
        }
        let element = |(index, value)| read(Self { value, path: format!("{}[{index}]", self.path) });
        items.iter().enumerate().map(element).collect()
    }

    fn number<T: TryFrom<u64>>(&self) -> Result<T, LogError> {
        let number = self.value.as_u64().ok_or_else(|| self.wrong("not a whole number"))?;
        T::try_from(number).map_err(|_| self.wrong(&format!("{number} is too large")))
    }

    fn digits(&self) -> Result<&'a str, LogError> {
        let text = self.value.as_str().ok_or_else(|| self.wrong("not a string"))?;
        Ok(text.strip_prefix("0x").unwrap_or(text))
    }

    fn array<const N: usize>(&self) -> Result<[u8; N], LogError> {
        let mut array = [0; N];
        hex::decode_to_slice(self.digits()?, &mut array)
            .map_err(|error| self.wrong(&format!("not {N} bytes in hex: {error}")))?;
        Ok(array)
    }

    fn bytes(&self, limit: usize) -> Result<Vec<u8>, LogError> {
        let digits = self.digits()?;
        if digits.len() / 2 > limit {
            return Err(self.wrong(&format!("{} bytes, at most {limit}", digits.len() / 2)));
        }
        hex::decode(digits).map_err(|error| self.wrong(&format!("not hex: {error}")))
    }
}
