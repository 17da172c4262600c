//! Bounds, each with its reason. Nothing is allocated or read past them.

/// Largest data of one entry (one part of a message). A Logos block holds 2 MiB and a node of June 2026 only
/// 1 MiB; 512 KiB leaves room for others and for several parts chained in one transaction.
pub const PART_BYTES_MAX: usize = 512 * 1024;

/// Largest inscription that any node accepts: 7/8 of a 2 MiB block. We read entries up to this, and write less.
pub const INSCRIPTION_BYTES_MAX: usize = 1_835_008;

/// An encoded inscription is its data plus this (channel 32, length 4, parent 32, signer 32).
pub const INSCRIPTION_OVERHEAD: usize = 100;

/// Largest single-inscription signed transaction: ops count 1, opcode 1, inscription, signature 64.
pub const SIGNED_ENTRY_BYTES_MAX: usize = INSCRIPTION_BYTES_MAX + INSCRIPTION_OVERHEAD + 2 + 64;

/// Largest signed transaction that any node accepts: it must fit a block, which holds 2 MiB.
pub const TX_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Most operations of a transaction: their number is one byte.
pub const OPS_MAX: usize = u8::MAX as usize;

/// Largest value in a row. SQLite's own hard limit on a string or blob (SQLITE_MAX_LENGTH is at most 2^31-1).
pub const VALUE_BYTES_MAX: u64 = i32::MAX as u64;

/// Most columns of a table, SQLite's own hard limit (SQLITE_MAX_COLUMN is at most 32767).
pub const COLUMNS_MAX: u64 = 32_767;

/// Longest SQL text of one schema statement, and longest name: SQLite's default SQLITE_MAX_SQL_LENGTH is 10^9;
/// no schema we will ever see is near this.
pub const SQL_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// log2 of the largest zstd window we make or accept: 8 MiB, what the zstd format asks every decoder to support.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

const _: () = assert!(PART_BYTES_MAX <= INSCRIPTION_BYTES_MAX);
const _: () = assert!(SIGNED_ENTRY_BYTES_MAX <= TX_BYTES_MAX);
