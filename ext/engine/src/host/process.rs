//! What there is once a process, whoever made it: SQLite calls us without telling for whom.

use std::any::Any;
use std::sync::OnceLock;

static SHARED: OnceLock<Box<dyn Any + Send + Sync>> = OnceLock::new();

/// The process's one value, made by whoever asks first. `None`: it is of another type, which whoever asks first also decides.
pub fn shared<T: Any + Send + Sync>(make: impl FnOnce() -> T) -> Option<&'static T> {
    SHARED.get_or_init(|| Box::new(make())).downcast_ref()
}
