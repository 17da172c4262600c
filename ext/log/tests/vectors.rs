//! Goal: our bytes, hashes, signatures and JSON are those of the Logos node.
//! Method: every field about them in `data/vectors.json`, which the node's own code wrote, is compared byte for
//! byte with what we make from the same inputs. Values longer than 1024 bytes stand there as length and hash.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use logos_log::crypto::{blake2b256, verify, SigningKey};
use logos_log::entry::{sign_entry, sign_ops, ChannelConfig, Inscription, Op, Proof, SignedTx, Transfer};
use logos_log::ids::{ChannelId, MsgId, PublicKey};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("data/vectors.json")).unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} is not a string"))
}

fn bytes<const N: usize>(value: &Value, field: &str) -> [u8; N] {
    hex::decode(text(value, field)).unwrap().try_into().unwrap()
}

fn key(value: &Value, field: &str) -> SigningKey {
    SigningKey::from_seed(&bytes(value, field))
}

/// Compare with `{"hex", "blake2b256"}` or, for long values, `{"len", "blake2b256"}`.
fn assert_bytes(expected: &Value, actual: &[u8], what: &str) {
    match expected["hex"].as_str() {
        Some(hex) => assert_eq!(hex, hex::encode(actual), "{what}"),
        None => assert!(expected["len"].is_number(), "{what} has neither bytes nor length"),
    }
    if expected["len"].is_number() {
        assert_eq!(expected["len"], actual.len(), "{what}");
    }
    assert_eq!(text(expected, "blake2b256"), hex::encode(blake2b256(&[actual])), "{what}");
}

/// The data of an inscription: made by the generator that the vector states, then compared with its hash.
fn payload(vector: &Value) -> Vec<u8> {
    let generator = &vector["payload"]["generator"];
    let (a, b) = (generator["a"].as_u64().unwrap(), generator["b"].as_u64().unwrap());
    let data: Vec<u8> = (0..vector["payload_len"].as_u64().unwrap()).map(|i| (i * a + b) as u8).collect();
    if generator["len"].is_number() {
        assert_eq!(generator["len"], data.len());
    }
    assert_eq!(text(&vector["payload"], "blake2b256"), hex::encode(blake2b256(&[&data])));
    data
}

/// A JSON document is given as text, or as length and hash of its text if that is long. Key order is not part
/// of the protocol, but the vectors happen to have our order, so the hash can be compared as well.
fn assert_json(expected: &Value, tx: &SignedTx, what: &str) {
    let ours = tx.to_json();
    if let Some(json) = expected.as_str() {
        let theirs: Value = serde_json::from_str(json).unwrap();
        assert_eq!(theirs, ours, "{what}");
        assert_eq!(SignedTx::from_json(&theirs).unwrap(), *tx, "{what}");
    } else {
        assert_bytes(expected, ours.to_string().as_bytes(), what);
    }
    assert_eq!(SignedTx::from_json(&ours).unwrap(), *tx, "{what}");
}

/// Compare everything that a vector says about one transaction.
fn assert_tx(vector: &Value, tx: &SignedTx, signer: &SigningKey, what: &str) {
    assert_eq!(text(vector, "tx_hash"), tx.hash().to_string(), "{what}");
    let encoded = tx.encode();
    assert_bytes(&vector["signed_tx_encoded"], &encoded, what);
    if vector["tx_encoded"].is_object() {
        let proofs: usize = tx.proofs.iter().map(|proof| if matches!(proof, Proof::Zk(_)) { 128 } else { 64 }).sum();
        assert_bytes(&vector["tx_encoded"], &encoded[..encoded.len() - proofs], what);
    }
    let signature = bytes(vector, "signature");
    assert_eq!(signature, signer.sign(tx.hash().as_bytes()), "{what}");
    assert!(verify(&signer.public_key(), tx.hash().as_bytes(), &signature), "{what}");
    assert_eq!(tx.verify(), Ok(()), "{what}");
    assert_eq!(SignedTx::decode(&encoded).as_ref(), Ok(tx), "{what}");
    assert_json(&vector["signed_tx_json"], tx, what);
}

/// Compare everything that a vector says about one inscription, alone or the first of its transaction.
fn assert_inscription(vector: &Value, inscription: &Inscription, what: &str) {
    let encoded = inscription.encode();
    assert_eq!(vector["payload_len"], inscription.data.len(), "{what}");
    assert_bytes(&vector["op_payload_encoded"], &encoded, what);
    assert_bytes(&vector["op_encoded"], &Op::Inscribe(inscription.clone()).encode(), what);
    assert_eq!(text(vector, "msg_id"), inscription.id().to_string(), "{what}");
    assert_eq!(Inscription::decode(&encoded).as_ref(), Ok(inscription), "{what}");
}

fn assert_gas(vector: &Value, tx: &SignedTx, what: &str) {
    assert_eq!(vector["signed_tx_encoded_len"], tx.encode().len(), "{what}");
    assert_eq!(vector["execution_gas"], tx.execution_gas(), "{what}");
    assert_eq!(vector["storage_gas"], tx.storage_gas(), "{what}");
    assert_eq!(vector["fee_at_prices_1_1"], tx.execution_gas() + tx.storage_gas(), "{what}");
}

#[test]
fn every_inscription_has_the_nodes_bytes_ids_signature_json_and_gas() {
    let vectors = vectors();
    let inscriptions = vectors["inscriptions"].as_array().unwrap();
    assert_eq!(inscriptions.len(), 36, "4 keys by 9 sizes");
    for vector in inscriptions {
        let what = text(vector, "name");
        let key = key(vector, "secret_key");
        assert_eq!(text(vector, "public_key"), key.public_key().to_string(), "{what}");
        let data = payload(vector);
        let tx = sign_entry(&key, ChannelId(bytes(vector, "channel_id")), MsgId(bytes(vector, "parent")), data);
        assert_eq!(vector["preverify"], "ok", "{what}");
        assert_inscription(vector, tx.inscriptions().next().unwrap(), what);
        assert_tx(vector, &tx, &key, what);
        assert_gas(vector, &tx, what);
    }
}

#[test]
fn an_inscription_with_its_fee_transfer_has_the_nodes_bytes() {
    let vectors = vectors();
    let vector = &vectors["inscribe_plus_transfer"];
    let key = key(vector, "secret_key");
    assert_eq!(text(vector, "public_key"), key.public_key().to_string());
    let inscription = Inscription {
        channel: ChannelId(bytes(vector, "channel_id")),
        data: b"hello".to_vec(),
        parent: MsgId(bytes(vector, "parent")),
        signer: key.public_key(),
    };
    assert_bytes(&vector["payload"], &inscription.data, "payload");
    assert_inscription(vector, &inscription, "inscription");

    let given = &vector["transfer"];
    let (payload, zk) = (&given["op_json"]["payload"], &given["proof_json"]["ZkSig"]);
    let output = &payload["outputs"][0];
    let transfer = Transfer {
        inputs: vec![hex::decode(payload["inputs"][0].as_str().unwrap()).unwrap().try_into().unwrap()],
        outputs: vec![(output["value"].as_u64().unwrap(), bytes(output, "pk"))],
    };
    assert_eq!(text(given, "op_id"), hex::encode(transfer.op_id()));
    let op = Op::Transfer(transfer);
    assert_bytes(&given["op_encoded"], &op.encode(), "transfer");
    assert_eq!(given["op_json"], op.to_json());
    assert_eq!(Op::from_json(&given["op_json"]), Ok(op.clone()));

    let pi = [bytes::<32>(zk, "pi_a").to_vec(), bytes::<64>(zk, "pi_b").to_vec(), bytes::<32>(zk, "pi_c").to_vec()];
    let proof = Proof::Zk(pi.concat().try_into().unwrap());
    assert_eq!(given["proof_json"], proof.to_json());
    assert_eq!(Proof::from_json(&given["proof_json"]), Ok(proof.clone()));

    let tx = sign_ops(&key, vec![Op::Inscribe(inscription), op], Some(proof));
    assert_eq!(vector["preverify"], "ok");
    assert_tx(vector, &tx, &key, "funded");
    assert_gas(vector, &tx, "funded");
}

#[test]
fn two_inscriptions_chained_in_one_transaction_have_the_nodes_bytes() {
    let vectors = vectors();
    let vector = &vectors["two_inscriptions_one_tx"];
    let key = key(vector, "secret_key");
    let channel = ChannelId(bytes(vector, "channel_id"));
    let mut parent = MsgId::ROOT;
    let mut ops = Vec::new();
    for (data, id) in
        vector["payloads_utf8"].as_array().unwrap().iter().zip(vector["msg_ids"].as_array().unwrap().iter())
    {
        let data = data.as_str().unwrap().as_bytes().to_vec();
        let inscription = Inscription { channel, data, parent, signer: key.public_key() };
        parent = inscription.id();
        assert_eq!(id.as_str().unwrap(), parent.to_string());
        ops.push(Op::Inscribe(inscription));
    }
    assert_eq!(ops.len(), 2);
    assert_eq!(vector["preverify_ok"], true);
    assert_tx(vector, &sign_ops(&key, ops, None), &key, "two in one");
}

#[test]
fn a_channel_configuration_has_the_nodes_bytes() {
    let vectors = vectors();
    let vector = &vectors["channel_config"];
    let payload = &vector["op_json"]["payload"];
    let small = |field: &str| u16::try_from(payload[field].as_u64().unwrap()).unwrap();
    let config = ChannelConfig {
        channel: ChannelId(bytes(payload, "channel")),
        keys: payload["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| PublicKey(hex::decode(key.as_str().unwrap()).unwrap().try_into().unwrap()))
            .collect(),
        posting_timeframe: small("posting_timeframe").into(),
        posting_timeout: small("posting_timeout").into(),
        configuration_threshold: small("configuration_threshold"),
        transfer_threshold: small("transfer_threshold"),
    };
    assert_eq!(text(vector, "config_msg_id"), config.id().to_string());
    let op = Op::Config(config);
    assert_bytes(&vector["op_encoded"], &op.encode(), "config");
    assert_eq!(vector["op_json"], op.to_json());
    assert_eq!(Op::from_json(&vector["op_json"]), Ok(op.clone()));

    let key = key(vector, "signer_secret_key");
    assert_eq!(vector["signer_index"], 0);
    let tx = sign_ops(&key, vec![op], None);
    assert_tx(vector, &tx, &key, "config");
}

/// Every transaction anywhere inside the example answers, with the hash that the node wrote beside it, if any.
fn transactions_in<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) if fields.contains_key("mantle_tx") && fields.contains_key("ops_proofs") => {
            found.push(value);
        }
        Value::Object(fields) => fields.values().for_each(|value| transactions_in(value, found)),
        Value::Array(items) => items.iter().for_each(|value| transactions_in(value, found)),
        _ => {}
    }
}

#[test]
fn transactions_in_the_nodes_answers_read_back_hash_and_verify() {
    let vectors = vectors();
    let bodies = &vectors["http_bodies"];
    let event: Value = serde_json::from_str(text(&bodies["GET /cryptarchia/events/blocks/stream"], "line")).unwrap();
    let mut found = Vec::new();
    transactions_in(bodies, &mut found);
    transactions_in(&event, &mut found);
    assert_eq!(found.len(), 4, "a block, a range of blocks, a post, an event");
    for json in found {
        let tx = SignedTx::from_json(json).unwrap();
        assert_eq!(tx.verify(), Ok(()));
        assert_eq!(tx.execution_gas(), 646);
        if let Some(hash) = json["mantle_tx"]["hash"].as_str() {
            assert_eq!(hash, tx.hash().to_string());
        }
        // The node copies a posted transaction into its blocks: only the hash is added.
        let mut without_hash = json.clone();
        without_hash["mantle_tx"].as_object_mut().unwrap().remove("hash");
        assert_eq!(without_hash, tx.to_json());
    }
}
