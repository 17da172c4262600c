//! Goal: bytes and JSON that are not exactly a transaction are refused with the place and the reason, and a
//! change of any bit is noticed.
//! Method: cut, flip and lengthen real entries everywhere; generate transactions at random.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use logos_log::crypto::SigningKey;
use logos_log::entry::{sign_entry, sign_ops, ChannelConfig, Inscription, Op, Proof, SignedTx, Transfer};
use logos_log::error::LogError;
use logos_log::ids::{ChannelId, MsgId, PublicKey};
use logos_log::limits::{INSCRIPTION_BYTES_MAX, SIGNED_ENTRY_BYTES_MAX, TX_BYTES_MAX};
use proptest::prelude::*;
use serde_json::json;

fn signer() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

fn entry() -> SignedTx {
    sign_entry(&signer(), ChannelId([1; 32]), MsgId([2; 32]), b"some data".to_vec())
}

fn config() -> ChannelConfig {
    ChannelConfig {
        channel: ChannelId([1; 32]),
        keys: vec![signer().public_key(), PublicKey([9; 32])],
        posting_timeframe: 1,
        posting_timeout: 2,
        configuration_threshold: 1,
        transfer_threshold: 1,
    }
}

/// A transaction with every kind of operation.
fn rich() -> SignedTx {
    let inscription = Inscription {
        channel: ChannelId([1; 32]),
        data: vec![3; 40],
        parent: MsgId::ROOT,
        signer: signer().public_key(),
    };
    let transfer = Transfer { inputs: vec![[4; 32]], outputs: vec![(u64::MAX, [5; 32])] };
    let ops = vec![Op::Inscribe(inscription), Op::Config(config()), Op::Transfer(transfer)];
    sign_ops(&signer(), ops, Some(Proof::Zk([6; 128])))
}

#[test]
fn a_transaction_cut_short_at_any_byte_is_refused_with_the_place() {
    for tx in [entry(), rich()] {
        let bytes = tx.encode();
        for cut in 0..bytes.len() {
            let refused = SignedTx::decode(&bytes[..cut]).unwrap_err();
            assert_eq!(refused, LogError::Truncated { what: "transaction", at: cut as u64 });
        }
    }
}

#[test]
fn an_inscription_cut_short_or_with_bytes_left_over_is_refused_with_the_place() {
    let mut bytes = entry().inscriptions().next().unwrap().encode();
    for cut in 0..bytes.len() {
        let refused = Inscription::decode(&bytes[..cut]).unwrap_err();
        assert_eq!(refused, LogError::Truncated { what: "inscription", at: cut as u64 });
    }
    let end = bytes.len() as u64;
    bytes.push(0);
    assert_eq!(Inscription::decode(&bytes), Err(LogError::Trailing { what: "inscription", at: end }));
}

#[test]
fn any_flipped_bit_of_an_entry_is_refused_or_breaks_its_signature() {
    let bytes = entry().encode();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match SignedTx::decode(&flipped) {
            Ok(tx) => {
                assert_eq!(tx.encode(), flipped, "bit {bit}");
                let id = tx.inscriptions().next().unwrap().id();
                assert_eq!(tx.verify(), Err(LogError::BadSignature { id }), "bit {bit}");
            }
            Err(
                LogError::Truncated { .. }
                | LogError::Trailing { .. }
                | LogError::TooLarge { .. }
                | LogError::Malformed { .. }
                | LogError::UnknownOp { .. },
            ) => {}
            Err(other) => panic!("bit {bit}: {other}"),
        }
    }
}

#[test]
fn bytes_after_the_last_proof_are_refused() {
    for tx in [entry(), rich()] {
        let mut bytes = tx.encode();
        let end = bytes.len() as u64;
        bytes.push(0);
        assert_eq!(SignedTx::decode(&bytes), Err(LogError::Trailing { what: "transaction", at: end }));
    }
}

#[test]
fn an_operation_we_cannot_encode_is_refused_by_its_code() {
    for opcode in [0x12, 0x13, 0x14, 0x20, 0x21, 0x22, 0x30, 0x40, 0xff] {
        let mut bytes = entry().encode();
        bytes[1] = opcode;
        let refused = SignedTx::decode(&bytes).unwrap_err();
        assert_eq!(refused, LogError::UnknownOp { opcode: opcode.into() });
        assert!(refused.to_string().contains(&format!("{opcode:#04x}")));
        let mut json = entry().to_json();
        json["mantle_tx"]["ops"][0] = json!({"opcode": opcode, "payload": {"anything": 1}});
        assert_eq!(SignedTx::from_json(&json), Err(LogError::UnknownOp { opcode: opcode.into() }));
    }
}

#[test]
fn lengths_beyond_the_limits_are_refused_before_they_are_allocated() {
    let mut bytes = entry().encode();
    bytes[34..38].copy_from_slice(&u32::MAX.to_le_bytes());
    let limit = INSCRIPTION_BYTES_MAX as u64;
    assert_eq!(
        SignedTx::decode(&bytes),
        Err(LogError::TooLarge { what: "inscription data", found: u32::MAX.into(), limit })
    );
    let oversized = vec![0; TX_BYTES_MAX + 1];
    assert!(matches!(SignedTx::decode(&oversized), Err(LogError::TooLarge { what: "signed transaction", .. })));
    // 65 535 keys announced, none there.
    let mut bytes = vec![1, 0x10];
    bytes.extend_from_slice(&[1; 32]);
    bytes.extend_from_slice(&u16::MAX.to_le_bytes());
    assert_eq!(SignedTx::decode(&bytes), Err(LogError::Truncated { what: "transaction", at: 36 }));
}

#[test]
fn the_largest_inscription_fits_its_limit_and_one_byte_more_does_not() {
    let sized = |length| sign_entry(&signer(), ChannelId([1; 32]), MsgId::ROOT, vec![0; length]);
    let largest = sized(INSCRIPTION_BYTES_MAX);
    assert_eq!(largest.encode().len(), SIGNED_ENTRY_BYTES_MAX);
    assert_eq!(SignedTx::decode(&largest.encode()).unwrap().verify(), Ok(()));
    let larger = sized(INSCRIPTION_BYTES_MAX + 1);
    let refused = LogError::TooLarge {
        what: "inscription data",
        found: INSCRIPTION_BYTES_MAX as u64 + 1,
        limit: INSCRIPTION_BYTES_MAX as u64,
    };
    assert_eq!(larger.verify(), Err(refused.clone()));
    assert_eq!(SignedTx::decode(&larger.encode()), Err(refused));
    assert!(matches!(SignedTx::from_json(&larger.to_json()), Err(LogError::Json { .. })));
}

#[test]
fn signature_lists_with_repeated_or_falling_key_indices_are_refused() {
    for indices in [[0, 0], [1, 0]] {
        let mut tx = sign_ops(&signer(), vec![Op::Config(config())], None);
        tx.proofs = vec![Proof::MultiSig(indices.iter().map(|&index| ([0; 64], index)).collect())];
        assert!(matches!(SignedTx::decode(&tx.encode()), Err(LogError::Malformed { what: "transaction", .. })));
        assert!(matches!(tx.verify(), Err(LogError::WrongProof { op: 0, .. })));
    }
}

#[test]
fn proofs_of_the_wrong_number_or_kind_do_not_verify() {
    let good = rich();
    assert_eq!(good.verify(), Ok(()));
    let mut missing = good.clone();
    missing.proofs.pop();
    assert!(matches!(missing.verify(), Err(LogError::WrongProof { op: 2, .. })));
    let mut extra = good.clone();
    extra.proofs.push(Proof::Zk([0; 128]));
    assert!(matches!(extra.verify(), Err(LogError::WrongProof { op: 3, .. })));
    for op in 0..3 {
        let mut wrong = good.clone();
        wrong.proofs[op] = wrong.proofs[(op + 1) % 3].clone();
        assert!(matches!(wrong.verify(), Err(LogError::WrongProof { op: found, .. }) if found == op));
    }
}

#[test]
fn more_operations_than_a_byte_counts_do_not_verify_and_never_decode() {
    let op = Op::Transfer(Transfer { inputs: vec![], outputs: vec![] });
    let tx = sign_ops(&signer(), vec![op; 256], Some(Proof::Zk([0; 128])));
    assert!(matches!(tx.verify(), Err(LogError::TooLarge { found: 256, .. })));
    assert!(SignedTx::decode(&tx.encode()).is_err());
    assert!(matches!(SignedTx::from_json(&tx.to_json()), Err(LogError::Json { .. })));
}

#[test]
fn an_entry_of_another_signer_does_not_verify() {
    let mut tx = entry();
    let Op::Inscribe(inscription) = &mut tx.ops[0] else { panic!("an inscription") };
    inscription.signer = SigningKey::from_seed(&[8; 32]).public_key();
    let id = inscription.id();
    assert_eq!(tx.verify(), Err(LogError::BadSignature { id }));
}

#[test]
fn adding_a_fee_changes_the_transaction_hash_and_not_the_message_id() {
    let plain = entry();
    let mut ops = plain.ops.clone();
    ops.push(Op::Transfer(Transfer { inputs: vec![[4; 32]], outputs: vec![] }));
    let funded = sign_ops(&signer(), ops, Some(Proof::Zk([0; 128])));
    assert_ne!(plain.hash(), funded.hash());
    assert_eq!(plain.inscriptions().next().unwrap().id(), funded.inscriptions().next().unwrap().id());
}

#[test]
fn json_is_read_with_prefix_upper_case_unknown_fields_and_the_names_of_june() {
    let tx = rich();
    let mut json = tx.to_json();
    json["mantle_tx"]["hash"] = json!("not believed");
    let parent = &mut json["mantle_tx"]["ops"][0]["payload"]["signer"];
    *parent = json!(format!("0x{}", parent.as_str().unwrap().to_uppercase()));
    let config = json["mantle_tx"]["ops"][1]["payload"].as_object_mut().unwrap();
    let threshold = config.remove("transfer_threshold").unwrap();
    config.insert("withdraw_threshold".into(), threshold);
    let signatures = json["ops_proofs"][1]["ChannelMultiSigProof"].take();
    json["ops_proofs"][1] = json!({"ZkAndEd25519Sigs": signatures});
    assert_eq!(SignedTx::from_json(&json), Ok(tx));
}

#[test]
fn json_of_the_wrong_shape_is_refused_with_the_place() {
    let cases = [
        ("/mantle_tx", json!(null), "transaction.mantle_tx"),
        ("/mantle_tx/ops", json!({}), "transaction.mantle_tx.ops"),
        ("/mantle_tx/ops/0/opcode", json!("17"), "transaction.mantle_tx.ops[0].opcode"),
        ("/mantle_tx/ops/0/opcode", json!(17.0), "transaction.mantle_tx.ops[0].opcode"),
        ("/mantle_tx/ops/0/payload/parent", json!("00"), "transaction.mantle_tx.ops[0].payload.parent"),
        ("/mantle_tx/ops/0/payload/inscription", json!("abc"), "transaction.mantle_tx.ops[0].payload.inscription"),
        ("/mantle_tx/ops/0/payload", json!({}), "transaction.mantle_tx.ops[0].payload.channel_id"),
        ("/mantle_tx/ops/1/payload/posting_timeout", json!(1u64 << 32), "ops[1].payload.posting_timeout"),
        ("/mantle_tx/ops/2/payload/outputs/0/value", json!(-1), "ops[2].payload.outputs[0].value"),
        ("/ops_proofs/0", json!({"NewSig": "00"}), "transaction.ops_proofs[0].NewSig"),
        ("/ops_proofs/0", json!({}), "transaction.ops_proofs[0]"),
        ("/ops_proofs/2/ZkSig/pi_b", json!("00"), "transaction.ops_proofs[2].ZkSig.pi_b"),
    ];
    for (pointer, wrong, place) in cases {
        let mut json = rich().to_json();
        *json.pointer_mut(pointer).unwrap() = wrong;
        match SignedTx::from_json(&json) {
            Err(LogError::Json { path, .. }) => assert!(path.ends_with(place), "{path} is not {place}"),
            other => panic!("{pointer}: {other:?}"),
        }
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    let inscription = (any::<[u8; 32]>(), prop::collection::vec(any::<u8>(), 0..300), any::<[u8; 32]>()).prop_map(
        |(channel, data, parent)| {
            let signer = signer().public_key();
            Op::Inscribe(Inscription { channel: ChannelId(channel), data, parent: MsgId(parent), signer })
        },
    );
    let keys = prop::collection::vec(any::<[u8; 32]>().prop_map(PublicKey), 0..4);
    let config = (any::<[u8; 32]>(), keys, any::<(u32, u32, u16, u16)>()).prop_map(|(channel, keys, rules)| {
        Op::Config(ChannelConfig {
            channel: ChannelId(channel),
            keys,
            posting_timeframe: rules.0,
            posting_timeout: rules.1,
            configuration_threshold: rules.2,
            transfer_threshold: rules.3,
        })
    });
    let notes = (prop::collection::vec(any::<[u8; 32]>(), 0..4), prop::collection::vec(any::<(u64, [u8; 32])>(), 0..4));
    let transfer = notes.prop_map(|(inputs, outputs)| Op::Transfer(Transfer { inputs, outputs }));
    prop_oneof![inscription, config, transfer]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_transaction_reads_back_from_bytes_and_from_json(ops in prop::collection::vec(any_op(), 0..5)) {
        let tx = sign_ops(&signer(), ops, Some(Proof::Zk([1; 128])));
        prop_assert_eq!(tx.verify(), Ok(()));
        prop_assert_eq!(SignedTx::decode(&tx.encode()), Ok(tx.clone()));
        let text = tx.to_json().to_string();
        prop_assert_eq!(SignedTx::from_json(&serde_json::from_str(&text).unwrap()), Ok(tx));
    }

    #[test]
    fn whatever_decodes_encodes_back_to_the_same_bytes(
        start in prop_oneof![Just(vec![1, 0x11]), Just(vec![1, 0x10]), Just(vec![1, 0x00]), Just(vec![2, 0x00])],
        rest in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..400),
    ) {
        let bytes = [start, rest].concat();
        if let Ok(tx) = SignedTx::decode(&bytes) {
            prop_assert_eq!(tx.encode(), bytes);
        }
    }
}
