//! When the follower pulls, listens and rests: its decisions, without a database or a channel.
//!
//! Invariants
//! - An error stops nothing that can go on by itself; only disagreement and a defect of ours end it.
//! - What is damaged or unfinished is looked at again as soon as the channel says something, like what is not there yet.

use std::time::Duration;

use crate::error::{Error, Kind};

/// How long to wait for the channel to say something before looking whether to stop.
const LOOK: Duration = Duration::from_secs(1);

/// Pause after an error, growing to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LAST: Duration = Duration::from_secs(10);

/// What the follower has come to know.
#[derive(Debug, Clone, Copy)]
pub enum Event<'e> {
    /// It was told to end.
    Stopped,
    /// A message was applied.
    Applied,
    /// The channel has no more.
    CaughtUp,
    /// Pulling met this.
    Failed(&'e Error),
    /// The channel was listened to: whether it may have something new.
    Heard(bool),
    /// It is looked whether the time is up.
    Looked,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Pull.
    Pull,
    /// Listen to the channel, so long at most.
    Listen(Duration),
    /// Rest so long.
    Rest(Duration),
    /// End.
    End,
}

#[derive(Debug, Default)]
enum Doing {
    #[default]
    Pulling,
    Listening,
    RestingUntil(Duration),
    Ended,
}

/// The follower's state of mind.
#[derive(Debug, Default)]
pub struct Following {
    doing: Doing,
    /// The pause after the last error, if it is not over with that.
    pause: Option<Duration>,
}

impl Following {
    /// Takes an event in, and says what follows.
    pub fn step(&mut self, event: Event<'_>, now: Duration) -> Action {
        match event {
            Event::Stopped => self.doing = Doing::Ended,
            Event::Applied => (self.doing, self.pause) = (Doing::Pulling, None),
            Event::CaughtUp => (self.doing, self.pause) = (Doing::Listening, None),
            Event::Failed(e) if e.waits => self.doing = Doing::Listening,
            Event::Failed(e) if matches!(e.kind, Kind::Resync | Kind::Bug) => self.doing = Doing::Ended,
            Event::Failed(_) => {
                let pause = self.pause.map_or(PAUSE_FIRST, |pause| (pause * 2).min(PAUSE_LAST));
                (self.doing, self.pause) = (Doing::RestingUntil(now + pause), Some(pause));
            }
            Event::Heard(true) if matches!(self.doing, Doing::Listening) => self.doing = Doing::Pulling,
            Event::Heard(_) | Event::Looked => {}
        }
        match self.doing {
            Doing::RestingUntil(until) if now < until => Action::Rest(until - now),
            Doing::RestingUntil(_) | Doing::Pulling => Action::Pull,
            Doing::Listening => Action::Listen(LOOK),
            Doing::Ended => Action::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_pulls_while_there_is_more_and_then_listens() {
        let mut following = Following::default();
        assert_eq!(following.step(Event::Looked, SECOND), Action::Pull);
        assert_eq!(following.step(Event::Applied, SECOND), Action::Pull);
        assert_eq!(following.step(Event::CaughtUp, SECOND), Action::Listen(LOOK));
        assert_eq!(following.step(Event::Heard(false), 3600 * SECOND), Action::Listen(LOOK));
        assert_eq!(following.step(Event::Heard(true), 3601 * SECOND), Action::Pull);
    }

    #[test]
    fn half_an_entry_is_waited_for_and_a_lost_connection_tried_again() {
        let mut following = Following::default();
        assert_eq!(following.step(Event::Failed(&Error::waiting("half", "")), SECOND), Action::Listen(LOOK));
        let (lost, mut now, mut tries) = (Error::retry("lost", ""), SECOND, 0);
        while now < 3600 * SECOND {
            match following.step(Event::Looked, now) {
                Action::Rest(time) => now += time,
                _ => {
                    tries += 1;
                    following.step(Event::Failed(&lost), now);
                }
            }
        }
        assert!((360..370).contains(&tries), "{tries}");
        following.step(Event::CaughtUp, now);
        assert_eq!(following.step(Event::Failed(&lost), now), Action::Rest(PAUSE_FIRST), "it begins anew");
    }

    #[test]
    fn what_somebody_can_mend_is_tried_again_and_disagreement_ends_it() {
        let step = |e: Error| Following::default().step(Event::Failed(&e), SECOND);
        assert_eq!(step(Error::fix("full", "")), Action::Rest(PAUSE_FIRST));
        assert_eq!(step(Error::resync("other", "")), Action::End);
        assert_eq!(step(Error::bug("ours")), Action::End);
        let mut following = Following::default();
        following.step(Event::Stopped, SECOND);
        assert_eq!(following.step(Event::Heard(true), SECOND), Action::End);
    }
}
