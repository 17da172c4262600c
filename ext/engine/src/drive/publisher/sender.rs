//! The sender: brings stored messages to the channel, oldest first, and records how far they have come.
//!
//! Invariants
//! - Only what is durably stored is sent, byte for byte, as often as it takes.
//!
//! Not here: when to send (`sending`).

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use super::sending::{Action, Event, Look, Sending};
use super::{Progress, Publisher};
use crate::channel::Writer;
use crate::error::{Error, Result};
use crate::host::{fault, threads};

/// Entries that a channel is offered at a time. They are offered until they are final, so this bounds what can be on its
/// way: 10 GB in full entries.
const OFFER: usize = 20_000;

pub(super) fn spawn(publisher: Arc<Publisher>) -> Result<()> {
    let run = move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut sender = Sender::new(&publisher)?;
            loop {
                let seen = publisher.news();
                match sender.step() {
                    Action::Send => {}
                    Action::Wait(time) => publisher.wait_for_news(seen, time),
                    Action::End => return Ok(()),
                }
            }
        }));
        publisher.update(|p| {
            match outcome {
                Err(_) => p.sender = Some(Error::bug("the sender thread panicked")),
                Ok(Err(e)) => p.sender = Some(e),
                Ok(Ok(())) => {}
            }
            p.sender_done = true;
        });
        publisher.let_go();
    };
    threads::spawn("logos-sender", run)
}

impl Progress {
    /// Whether there is nothing left to be made or sent.
    fn idle(&self) -> bool {
        self.builder_done && self.backlog.messages == 0
    }
}

/// The sender of one publisher.
pub struct Sender {
    publisher: Arc<Publisher>,
    writer: Box<dyn Writer>,
    sending: Sending,
    /// Whether the channel was found to be ours.
    checked: bool,
}

impl Sender {
    /// One that goes on where the sidecar says.
    pub fn new(publisher: &Arc<Publisher>) -> Result<Self> {
        let writer = publisher.url.writer(publisher.author()?, &publisher.options.node);
        Ok(Self { publisher: publisher.clone(), writer, sending: Sending::default(), checked: false })
    }

    /// Takes one step: a look around, and what is stored is sent if it is time. Says what it waits for.
    pub fn step(&mut self) -> Action {
        let (publisher, env) = (self.publisher.clone(), self.publisher.workers.env.clone());
        let look = {
            let p = publisher.state();
            Look {
                stopping: publisher.stopping(),
                retired: publisher.retired.load(Ordering::Acquire),
                idle: p.idle(),
                stored: p.stored,
            }
        };
        let action = self.sending.step(Event::Looked(look), env.now());
        if action != Action::Send {
            return action;
        }
        let outcome = self.turn();
        publisher.update(|p| p.sender = outcome.as_ref().err().cloned());
        let event = match outcome {
            Ok(again) => Event::Sent { again },
            Err(e) => {
                let mut chance = [0];
                let _ = env.fill(&mut chance);
                Event::Failed { kind: e.kind, longest: self.writer.longest_pause(), chance: chance[0] }
            }
        };
        match self.sending.step(event, env.now()) {
            Action::End => Action::End,
            // What was stored meanwhile is looked for before waiting.
            Action::Send | Action::Wait(_) => Action::Send,
        }
    }

    /// Brings what is stored a step further. Returns when to come again, if there is a reason to.
    fn turn(&mut self) -> Result<Option<Duration>> {
        let publisher = &self.publisher;
        let entries = publisher.sidecar().unsettled(OFFER)?;
        if entries.is_empty() && self.checked {
            return Ok(None);
        }
        if !entries.is_empty() {
            fault::point("send.before");
        }
        let sent = self.writer.send(&entries, publisher.as_ref());
        publisher.update(|p| p.requests = self.writer.requests());
        let known = sent?;
        self.checked = true;
        if !entries.is_empty() {
            fault::point("send.before_record");
            publisher.sidecar().settle(&entries, &known.settled, publisher.workers.env.wall_ms())?;
            fault::point("send.recorded");
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
