//! What every test needs: fresh folders, connections with the extension loaded, stock shells, dumps that compare
//! two databases value by value, and pairs of a primary and its replica.
//!
//! Everything here uses real files, real processes and the extension as `make build` left it. Nothing is simulated.
//!
//! Not here: claims. Those are the files under `tests/harness/tests`, each opening with its goal and method.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod dice;
pub mod dump;
pub mod files;
pub mod load;
#[cfg(not(feature = "bundled"))]
mod older;
pub mod pair;
pub mod shell;
pub mod sql;
pub mod status;

pub use dice::Dice;
pub use dump::{assert_equal, differences, dump, dump_without};
pub use files::{extension, extension_sim, TempDir};
pub use pair::{in_every_order, replicate, Applied, Pair};
pub use shell::{Answer, Shell};
pub use sql::{open, open_plain, wait_until, Sql};
pub use status::{messages, status, status_of, Message, Status};

pub use rusqlite::{self, Connection};

/// How long a test waits for something that must happen. Generous on purpose: no test asserts a time.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(90);
