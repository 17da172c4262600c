//! The node's wallet: pays the fees of other people's transactions from its notes.
//!
//! Invariants
//! - A note promised to one transaction is not promised to another until it is seen spent, or ten blocks later
//!   became final. So a wallet with one note funds one transaction at a time.
//! - The richest notes go first; what is left over comes back as one change note.
//!
//! Not here: making real proofs. See `ledger::transfer_proof`.

use std::collections::BTreeMap;

use logos_log::entry::{Op, Proof, SignedTx, Transfer};

use crate::ledger::{transfer_proof, Ledger, NoteId, NoteKey, Prices};

/// Final blocks after which an unspent note is free again.
const RESERVED_BLOCKS: u64 = 10;

/// What a client asks for.
#[derive(Debug)]
pub struct FundRequest {
    /// The operations to pay for.
    pub ops: Vec<Op>,
    /// Who gets the change.
    pub change: NoteKey,
    /// Whose notes may be spent.
    pub funding: Vec<NoteKey>,
    /// Refuse beyond this.
    pub max_fee: u64,
    /// What to add to the mandatory fee, in percent.
    pub percent: u64,
}

/// Notes promised to transactions not seen yet, and the LIB height at which they are free again.
#[derive(Default)]
pub struct Wallet {
    reserved: BTreeMap<NoteId, u64>,
}

impl Wallet {
    /// Complete a transaction with the transfer that pays for it; nothing if it costs nothing.
    pub fn fund(
        &mut self,
        ledger: &Ledger,
        lib: u64,
        prices: &Prices,
        request: &FundRequest,
    ) -> Result<Option<(Vec<Op>, Proof)>, String> {
        if *prices == Prices::FREE {
            return Ok(None);
        }
        self.reserved.retain(|note, free_at| ledger.notes.contains_key(note) && *free_at > lib);
        let free = |(id, note): &(&NoteId, &crate::ledger::Note)| {
            request.funding.contains(&note.owner) && !self.reserved.contains_key(*id)
        };
        let mut notes: Vec<_> = ledger.notes.iter().filter(free).map(|(id, note)| (note.value, *id)).collect();
        notes.sort_by(|a, b| b.cmp(a));

        let mut transfer = Transfer { inputs: Vec::new(), outputs: vec![(0, request.change)] };
        let mut funds = 0;
        for (value, id) in notes.into_iter().take(usize::from(u8::MAX)) {
            transfer.inputs.push(id);
            funds += u128::from(value);
            let mandatory = prices.fee(&unproven(&request.ops, &transfer));
            let fee = mandatory + (mandatory * u128::from(request.percent)).div_ceil(100);
            if fee > u128::from(request.max_fee) {
                return Err(format!("fee {fee} exceeds the maximum of {}", request.max_fee));
            }
            if let Some(change) = funds.checked_sub(fee) {
                transfer.outputs[0].0 = u64::try_from(change).map_err(|_| "the change exceeds a note".to_string())?;
                self.reserved.extend(transfer.inputs.iter().map(|id| (*id, lib + RESERVED_BLOCKS)));
                let mut ops = request.ops.clone();
                ops.push(Op::Transfer(transfer));
                let hash = SignedTx { ops: ops.clone(), proofs: Vec::new() }.hash();
                return Ok(Some((ops, transfer_proof(hash))));
            }
        }
        Err(format!("insufficient funds: {funds} in notes that are not reserved"))
    }
}

/// The transaction with proofs of the right size, to know what it costs.
fn unproven(ops: &[Op], transfer: &Transfer) -> SignedTx {
    let ops: Vec<Op> = ops.iter().cloned().chain([Op::Transfer(transfer.clone())]).collect();
    let proof = |op: &Op| match op {
        Op::Inscribe(_) => Proof::Ed25519([0; 64]),
        Op::Config(_) => Proof::MultiSig(vec![([0; 64], 0)]),
        Op::Transfer(_) => Proof::Zk([0; 128]),
    };
    SignedTx { proofs: ops.iter().map(proof).collect(), ops }
}
