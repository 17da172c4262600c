//! The sender: brings stored messages to the channel, oldest first, and records how far they have come.
//!
//! Invariants
//! - Only what is durably stored is sent, byte for byte, as often as it takes.
//! - Going offline is normal: retries back off with jitter, and nothing else stops. So is what somebody has to mend (a full disk,
//!   an empty wallet, a password): the status says it, and when it is mended the sender goes on by itself.
//! - Only what can never be mended by trying again (another writer on our channel, a defect of ours) ends the sender, with the
//!   reason. A retired one does not wait for what somebody has to mend.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::{now_ms, Progress, Publisher};
use crate::channel::Writer;
use crate::error::{Error, Kind, Result};
use crate::threads;

/// Entries that a channel is offered at a time. They are offered until they are final, so this bounds what can be on its
/// way: 10 GB in full entries.
const OFFER: usize = 20_000;

/// Stopping is looked at as often, should its notification come between a look and a wait.
const LOOK: Duration = Duration::from_secs(1);

/// How long to rest when there is nothing to do.
const IDLE: Duration = Duration::from_secs(3600);

const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// How long a retired sender (no connection of the application is left) goes on trying.
const FAREWELL: Duration = Duration::from_secs(5);

pub(super) fn spawn(publisher: Arc<Publisher>) -> Result<()> {
    let run = move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&publisher)));
        publisher.update(|p| {
            if outcome.is_err() {
                p.sender = Some(Error::bug("the sender thread panicked"));
            }
            p.sender_done = true;
        });
        publisher.let_go();
    };
    threads::spawn("logos-sender", run)
}

fn run(publisher: &Publisher) {
    let mut sender = match publisher.author() {
        Ok(author) => {
            Sender { publisher, writer: publisher.url.writer(author, &publisher.options.node), checked: false }
        }
        Err(e) => return publisher.update(|p| p.sender = Some(e)),
    };
    let mut backoff = BACKOFF_FIRST;
    let mut retired_at: Option<Instant> = None;
    while !publisher.stopping() {
        if publisher.retired.load(Ordering::Acquire) {
            let since = *retired_at.get_or_insert_with(Instant::now);
            if publisher.state().idle() || since.elapsed() > FAREWELL {
                return;
            }
        }
        let stored = publisher.state().stored;
        let outcome = sender.turn();
        publisher.update(|p| p.sender = outcome.as_ref().err().cloned());
        match outcome {
            Ok(again) => {
                backoff = BACKOFF_FIRST;
                rest(publisher, again.unwrap_or(IDLE), |p| p.stored != stored);
            }
            Err(e) if matches!(e.kind, Kind::Resync | Kind::Bug) => return,
            Err(e) if e.kind == Kind::Fix && publisher.retired.load(Ordering::Acquire) => return,
            Err(_) => {
                backoff = (backoff * 2).min(sender.writer.longest_pause());
                // New messages do not cut a back-off short.
                rest(publisher, jittered(backoff), |_| false);
            }
        }
    }
}

impl Progress {
    /// Whether there is nothing left to be made or sent.
    fn idle(&self) -> bool {
        self.builder_done && self.backlog.messages == 0
    }
}

/// Waits, but not through a stop or through news.
fn rest(publisher: &Publisher, pause: Duration, news: impl Fn(&Progress) -> bool) {
    let retired = publisher.retired.load(Ordering::Acquire);
    let deadline = Instant::now() + if retired { pause.min(FAREWELL) } else { pause };
    let mut state = publisher.state();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let retires = publisher.retired.load(Ordering::Acquire);
        let ends = retires && (!retired || state.idle());
        if left.is_zero() || news(&state) || publisher.stopping() || ends {
            return;
        }
        let (next, _) = publisher.work.wait_timeout(state, left.min(LOOK)).unwrap_or_else(PoisonError::into_inner);
        state = next;
    }
}

struct Sender<'p> {
    publisher: &'p Publisher,
    writer: Box<dyn Writer>,
    /// Whether the channel was found to be ours.
    checked: bool,
}

impl Sender<'_> {
    /// Brings what is stored a step further. Returns when to come again, if there is a reason to.
    fn turn(&mut self) -> Result<Option<Duration>> {
        let publisher = self.publisher;
        let entries = publisher.sidecar().unsettled(OFFER)?;
        if entries.is_empty() && self.checked {
            return Ok(None);
        }
        if !entries.is_empty() {
            crate::fault::point("send.before");
        }
        let sent = self.writer.send(&entries, publisher);
        publisher.update(|p| p.requests = self.writer.requests());
        let known = sent?;
        self.checked = true;
        if !entries.is_empty() {
            crate::fault::point("send.before_record");
            publisher.sidecar().settle(&entries, &known.settled, now_ms())?;
            crate::fault::point("send.recorded");
        }
        // First the error, then the position: whoever waits for the position sees a channel in order.
        publisher.update(|p| {
            p.sender.clone_from(&known.trouble);
            p.pace = known.pace;
        });
        publisher.refresh()?;
        // The next message may have been waiting for these.
        publisher.signal.wake();
        known.trouble.map_or(Ok(known.again), Err)
    }
}

/// Half to whole of a pause, so that many publishers do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 1];
    let _ = getrandom::fill(&mut random);
    pause / 2 + pause.mul_f64(f64::from(random[0]) / 512.0)
}
