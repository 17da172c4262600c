//! Starting threads: every thread of ours, and of the libraries we use, begins with all signals blocked.
//!
//! An application may block a signal in all of its threads and take it with sigwait or a signalfd. The kernel gives a signal to any
//! thread that does not block it, and were that ours, the process would die of it.
//!
//! A thread inherits the mask of the one that starts it. So the mask is changed around the start and never for longer: the
//! application's own thread must still be reached by Ctrl-C while it waits for us.

use crate::error::{Doing, Result};

/// Starts a thread of ours.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
    let builder = std::thread::Builder::new().name(name.into());
    without_signals(|| builder.spawn(run)).doing(|| "starting a thread".into()).map(drop)
}

/// Runs something that starts threads and returns at once.
#[cfg(unix)]
pub fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    struct Restore(libc::sigset_t);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: the mask is the one that the thread had.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
        }
    }
    // SAFETY: a signal set is plain data that may be all zero; the call fills it, and the second one both uses and fills valid sets.
    let _restore = unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        (libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before) == 0).then_some(Restore(before))
    };
    start()
}

/// Runs something that starts threads and returns at once.
#[cfg(not(unix))]
pub fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    start()
}
