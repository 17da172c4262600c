//! Use cases: what publishing, attaching, waiting, removing *mean*, for every door alike.
//!
//! Invariants
//! - Used by the doors only (`sql`, the C interface). They bring names, types and the caller's connection; whatever is decided, is
//!   decided here or below.
//! - What writes anything anywhere asks first whether the caller's connection may (`Caller::may_write`).

mod attach;
mod caller;
mod load;
mod options;
mod publish;
mod remove;
mod resync;
mod status;
mod wait;

use std::sync::Arc;

pub use attach::{refuse_scalar, Attachment};
pub use caller::Caller;
pub use options::options;
pub use status::Status;

use crate::drive::env::System;
use crate::drive::workers::Workers;
use crate::error::{Error, Result};
use crate::host::process;

/// The engine as the doors see it.
pub struct Service {
    workers: Arc<Workers>,
}

impl Service {
    /// One with workers of its own.
    pub fn new(workers: Arc<Workers>) -> Self {
        Self { workers }
    }

    /// The one of this process, which all connections share that have loaded the extension.
    pub fn of_process() -> Result<&'static Self> {
        process::shared(|| Self::new(Workers::new(Arc::new(System::default()))))
            .ok_or_else(|| Error::bug("this process has another engine"))
    }
}
