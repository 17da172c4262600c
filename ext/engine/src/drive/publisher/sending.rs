//! When the sender sends, waits and gives up: its decisions, without a sidecar or a channel.
//!
//! Invariants
//! - Going offline is normal: retries back off with chance in them, and nothing else stops. So is what somebody has to mend (a full disk,
//!   an empty wallet, a password): when it is mended the sender goes on by itself.
//! - Only what can never be mended by trying again (another writer on our channel, a defect of ours) ends it. A retired one does not wait
//!   for what somebody has to mend.
//! - New messages end a wait, but do not cut a back-off short.

use std::time::Duration;

use logos_log::ids::Position;

use crate::error::Kind;

/// Stopping is looked at as often, should its notification come between a look and a wait.
const LOOK: Duration = Duration::from_secs(1);

/// How long to rest when there is nothing to do.
const IDLE: Duration = Duration::from_secs(3600);

const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// How long a retired sender (no connection of the application is left) goes on trying.
const FAREWELL: Duration = Duration::from_secs(5);

/// What the sender has come to know.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// It has looked around.
    Looked(Look),
    /// What is stored was brought a step further; `again`: when to come again, if there is a reason to.
    Sent {
        /// After so long.
        again: Option<Duration>,
    },
    /// It could not be.
    Failed {
        /// Who can mend it.
        kind: Kind,
        /// The longest pause between two tries on this channel.
        longest: Duration,
        /// Chance, so that many publishers do not come back at once.
        chance: u8,
    },
}

/// What holds when the sender looks around.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// Whether it was told to end.
    pub stopping: bool,
    /// Whether the application has closed its last connection.
    pub retired: bool,
    /// Whether there is nothing left to be made or sent.
    pub idle: bool,
    /// The last stored message.
    pub stored: Option<Position>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send what is stored.
    Send,
    /// Wait so long, or until there is news.
    Wait(Duration),
    /// End.
    End,
}

/// The sender's state of mind.
#[derive(Debug, Default)]
pub struct Sending {
    /// The pause before this try, if that was a second one.
    backoff: Option<Duration>,
    /// Until when it waits, and whether new messages end that. `None`: it does not.
    until: Option<(Duration, bool)>,
    /// What was stored when it last sent.
    seen: Option<Position>,
    retired_at: Option<Duration>,
    ended: bool,
}

impl Sending {
    /// Takes an event in, and says what follows.
    pub fn step(&mut self, event: Event, now: Duration) -> Action {
        match event {
            Event::Looked(look) => self.looked(look, now),
            Event::Sent { again } => {
                self.backoff = None;
                self.wait(now, again.unwrap_or(IDLE), true)
            }
            Event::Failed { kind, longest, chance } => {
                let hopeless = matches!(kind, Kind::Resync | Kind::Bug);
                self.ended = hopeless || (kind == Kind::Fix && self.retired_at.is_some());
                let pause = (self.backoff.unwrap_or(BACKOFF_FIRST) * 2).min(longest);
                self.backoff = Some(pause);
                // Half to whole of it.
                self.wait(now, pause / 2 + pause.mul_f64(f64::from(chance) / 512.0), false)
            }
        }
    }

    fn wait(&mut self, now: Duration, pause: Duration, news_ends_it: bool) -> Action {
        let pause = if self.retired_at.is_some() { pause.min(FAREWELL) } else { pause };
        self.until = Some((now + pause, news_ends_it));
        if self.ended {
            Action::End
        } else {
            Action::Wait(pause.min(LOOK))
        }
    }

    fn looked(&mut self, look: Look, now: Duration) -> Action {
        if look.stopping || self.ended {
            return Action::End;
        }
        let retires = look.retired && self.retired_at.is_none();
        if look.retired {
            let since = *self.retired_at.get_or_insert(now);
            if look.idle || now.saturating_sub(since) > FAREWELL {
                return Action::End;
            }
        }
        match self.until {
            Some((until, news_ends_it)) if now < until && !retires && !(news_ends_it && look.stored != self.seen) => {
                Action::Wait((until - now).min(LOOK))
            }
            _ => {
                (self.until, self.seen) = (None, look.stored);
                Action::Send
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;
    use logos_log::ids::Digest;

    const MS: Duration = Duration::from_millis(1);
    const HOUR: Duration = Duration::from_secs(3600);

    fn stored(seq: u64) -> Look {
        Look { stored: Some(Position { seq, digest: Digest([0; 32]) }), ..Look::default() }
    }

    fn failed(kind: Kind) -> Event {
        Event::Failed { kind, longest: Duration::from_secs(60), chance: 255 }
    }

    #[test]
    fn what_is_stored_is_sent_at_once_and_then_news_are_waited_for() {
        let mut sending = Sending::default();
        assert_eq!(sending.step(Event::Looked(stored(1)), MS), Action::Send);
        assert_eq!(sending.step(Event::Sent { again: None }, 2 * MS), Action::Wait(LOOK));
        assert_eq!(sending.step(Event::Looked(stored(1)), HOUR / 2), Action::Wait(LOOK));
        assert_eq!(sending.step(Event::Looked(stored(2)), HOUR / 2), Action::Send);
        sending.step(Event::Sent { again: Some(20 * MS) }, HOUR / 2);
        assert_eq!(sending.step(Event::Looked(stored(2)), HOUR / 2 + 19 * MS), Action::Wait(MS));
        assert_eq!(sending.step(Event::Looked(stored(2)), HOUR / 2 + 20 * MS), Action::Send);
    }

    #[test]
    fn a_day_offline_is_a_bounded_number_of_tries_and_the_first_success_ends_it() {
        let (mut sending, mut now, mut tries) = (Sending::default(), Duration::ZERO, 0);
        while now < 24 * HOUR {
            // The application goes on: new messages do not cut a back-off short.
            match sending.step(Event::Looked(stored(now.as_secs())), now) {
                Action::Send => {
                    tries += 1;
                    sending.step(failed(Kind::Retry), now);
                }
                Action::Wait(time) => now += time,
                Action::End => panic!("offline is no reason to end"),
            }
        }
        let minutes = 24 * 60;
        assert!((minutes..minutes + 20).contains(&tries), "{tries}");
        assert_eq!(sending.step(Event::Looked(stored(1)), now + HOUR), Action::Send);
        sending.step(Event::Sent { again: None }, now + HOUR);
        assert_eq!(sending.step(Event::Looked(stored(2)), now + HOUR), Action::Send);
        let Action::Wait(pause) = sending.step(failed(Kind::Retry), now + HOUR) else { panic!("it waits") };
        assert!(pause <= 2 * BACKOFF_FIRST, "it begins anew: {pause:?}");
    }

    #[test]
    fn what_somebody_can_mend_is_tried_again_and_what_nobody_can_ends_it() {
        for kind in [Kind::Retry, Kind::Fix] {
            let mut sending = Sending::default();
            assert!(matches!(sending.step(failed(kind), MS), Action::Wait(_)), "{kind:?}");
        }
        for kind in [Kind::Resync, Kind::Bug] {
            let mut sending = Sending::default();
            assert_eq!(sending.step(failed(kind), MS), Action::End, "{kind:?}");
            assert_eq!(sending.step(Event::Looked(stored(9)), HOUR), Action::End, "{kind:?}");
        }
    }

    #[test]
    fn a_retired_sender_tries_once_more_and_for_some_seconds() {
        let retired = Look { retired: true, ..stored(1) };
        let mut sending = Sending::default();
        sending.step(Event::Looked(stored(1)), MS);
        sending.step(failed(Kind::Retry), MS);
        assert_eq!(sending.step(Event::Looked(retired), 2 * MS), Action::Send, "it does not wait for the back-off");
        assert!(matches!(sending.step(failed(Kind::Retry), 3 * MS), Action::Wait(_)));
        assert_eq!(sending.step(Event::Looked(Look { idle: true, ..retired }), 4 * MS), Action::End);
        assert_eq!(sending.step(Event::Looked(retired), 4 * MS + FAREWELL), Action::End);
        // It does not wait for what somebody has to mend.
        let mut sending = Sending::default();
        sending.step(Event::Looked(retired), MS);
        assert_eq!(sending.step(failed(Kind::Fix), 2 * MS), Action::End);
    }

    #[test]
    fn whoever_is_told_to_stop_stops() {
        let mut sending = Sending::default();
        assert_eq!(sending.step(Event::Looked(Look { stopping: true, ..stored(1) }), MS), Action::End);
    }

    #[test]
    fn many_publishers_do_not_come_back_at_once() {
        let pause = |chance| {
            let event = Event::Failed { kind: Kind::Retry, longest: HOUR, chance };
            match Sending::default().step(event, MS) {
                Action::Wait(pause) => pause,
                _ => HOUR,
            }
        };
        assert_eq!(pause(0), BACKOFF_FIRST);
        assert!(pause(255) > pause(128) && pause(255) < 2 * BACKOFF_FIRST);
    }
}
