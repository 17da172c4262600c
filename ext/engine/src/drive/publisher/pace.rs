//! When the builder builds, gathers, waits and lets go of the file: its decisions, without a database.
//!
//! Invariants
//! - The first commit after a rest waits for nothing. While messages are on their way, commits gather for the next one.
//! - Whoever asks for everything to be covered is served at once, rest or not.
//! - Under load the application has the machine: after a message there is a rest of several times what it took.

use std::time::Duration;

/// How often to look for commits that no hook told us of: while there are some, and when there were none for a while.
const POLL_BUSY: Duration = Duration::from_millis(20);
const POLL_IDLE: Duration = Duration::from_millis(200);

/// How long after the last commit the connection is closed: opening it again for every commit of a busy application would be waste.
const PARK_AFTER: Duration = Duration::from_millis(100);

/// How long after the last commit the files are looked at often.
const LIVELY: Duration = Duration::from_secs(5);

/// After a hook announced a commit, the snapshot is looked at this often before polling goes on as usual.
const LOOK_AGAIN: u32 = 12;

/// How soon to try again to put under capture what could not be.
const ENROL_AGAIN: Duration = Duration::from_millis(2);

/// A rest after a message, in multiples of the time it took; and at most this long.
const REST_FACTOR: u32 = 8;
const REST_MAX: Duration = Duration::from_millis(150);

/// A look that took longer is followed by a rest as a message is.
const LOOK_WORTH: Duration = Duration::from_millis(5);

/// What the builder has come to know.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// Somebody has committed. `known`: not the first look at the file.
    Committed {
        /// Whether the file was looked at before.
        known: bool,
    },
    /// It has looked at the file.
    Looked(Look),
    /// It has made a message, or found nothing to say, in this time.
    Built {
        /// Whether there is a message.
        stored: bool,
        /// How long that took.
        took: Duration,
    },
    /// It has nothing to do.
    Idle(Idle),
}

/// What a look at the file has shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// Whether there may be something to say.
    pub due: bool,
    /// Whether somebody waits for everything to be covered.
    pub asked: bool,
    /// Whether the application has closed its last connection.
    pub retired: bool,
    /// Whether as many messages are on their way as the channel takes.
    pub crowded: bool,
    /// Least time from one message to the next, as the options say or as the channel takes for one.
    pub batch: Duration,
}

/// What holds while there is nothing to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Idle {
    /// Least time from one message to the next.
    pub batch: Duration,
    /// Whether a hook has announced a commit that no snapshot shows.
    pub announced: bool,
    /// Whether tables wait to be put under capture, with the file open; and for how long transactions have been in the way.
    pub uncaptured: Option<Duration>,
    /// Whether the file may not be let go of yet.
    pub busy: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make the next message.
    Build,
    /// Nothing, until the next event.
    Nothing,
    /// Wait so long, or until somebody asks; until a commit too, if `commits`.
    Wait {
        /// The longest time.
        time: Duration,
        /// Whether a commit ends it.
        commits: bool,
    },
    /// Let go of the file if it is at rest, then wait so long or until a commit; `else_wait`: so long if it is not.
    Park {
        /// The longest time.
        time: Duration,
        /// How soon to try again.
        else_wait: Duration,
    },
}

/// The builder's state of mind.
#[derive(Debug, Default)]
pub struct Pace {
    /// Whether commits wait for the message before theirs.
    gathering: bool,
    look_again: u32,
    /// When somebody was last seen to have committed; `None`: not since the start.
    last_commit: Option<Duration>,
    last_message: Option<Duration>,
    /// How long it took to make.
    took: Duration,
}

impl Pace {
    /// Takes an event in, and says what follows.
    pub fn step(&mut self, event: Event, now: Duration) -> Action {
        match event {
            Event::Committed { known } => {
                self.last_commit = known.then_some(now);
                self.look_again = 0;
                Action::Nothing
            }
            Event::Looked(look) => self.looked(look, now),
            Event::Built { stored, took } => {
                // Looking at large virtual tables takes its time also where it finds nothing.
                if stored || took > LOOK_WORTH {
                    (self.last_message, self.took) = (Some(now), took);
                }
                Action::Nothing
            }
            Event::Idle(idle) => self.idle(idle, now),
        }
    }

    /// Whether commits wait for the message before theirs.
    pub fn is_gathering(&self) -> bool {
        self.gathering
    }

    fn looked(&mut self, look: Look, now: Duration) -> Action {
        if !(look.due || look.asked || self.gathering) {
            return Action::Nothing;
        }
        let on_its_way = look.crowded || !self.rest_left(look.batch, now).is_zero();
        self.gathering = on_its_way && !look.asked && !look.retired;
        if self.gathering {
            Action::Nothing
        } else {
            Action::Build
        }
    }

    /// What is left of the rest after a message: as long as a batch, and several times what the message took, so that under load the
    /// application has the machine and commits gather.
    fn rest_left(&self, batch: Duration, now: Duration) -> Duration {
        let rest = batch.max((self.took * REST_FACTOR).min(REST_MAX));
        self.last_message.map_or(Duration::ZERO, |last| rest.saturating_sub(now.saturating_sub(last)))
    }

    fn idle(&mut self, idle: Idle, now: Duration) -> Action {
        if self.gathering {
            // The sender wakes the builder, or somebody who wants everything covered.
            let rest = self.rest_left(idle.batch, now);
            return Action::Wait { time: if rest.is_zero() { POLL_IDLE } else { rest }, commits: false };
        }
        if idle.announced && self.look_again < LOOK_AGAIN {
            self.look_again += 1;
            return Action::Wait { time: Duration::from_micros(50 << self.look_again), commits: true };
        }
        if let Some(held_up) = idle.uncaptured {
            // Looking costs as much as there are tables, so somebody who stays in a transaction is looked at less often.
            return Action::Wait { time: (held_up / 16).clamp(ENROL_AGAIN, POLL_IDLE), commits: true };
        }
        let since_commit = self.last_commit.map(|last| now.saturating_sub(last));
        let time = if since_commit.is_some_and(|since| since < LIVELY) { POLL_BUSY } else { POLL_IDLE };
        if since_commit.is_none_or(|since| since > PARK_AFTER) && !idle.busy {
            return Action::Park { time, else_wait: POLL_BUSY };
        }
        Action::Wait { time, commits: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn due() -> Look {
        Look { due: true, ..Look::default() }
    }

    fn waits(pace: &mut Pace, idle: Idle, now: Duration) -> Duration {
        match pace.step(Event::Idle(idle), now) {
            Action::Wait { time, .. } | Action::Park { time, .. } => time,
            other => Duration::from_secs(if other == Action::Build { 1_000 } else { 2_000 }),
        }
    }

    #[test]
    fn the_first_commit_after_a_rest_waits_for_nothing() {
        let mut pace = Pace::default();
        assert_eq!(pace.step(Event::Looked(due()), MS), Action::Build);
        pace.step(Event::Built { stored: true, took: MS }, 2 * MS);
        assert_eq!(pace.step(Event::Looked(due()), 10 * MS + MS), Action::Build);
        assert_eq!(pace.step(Event::Looked(Look::default()), 11 * MS), Action::Nothing);
    }

    #[test]
    fn commits_gather_while_a_message_is_on_its_way_and_go_together() {
        let mut pace = Pace::default();
        let crowded = Look { crowded: true, ..due() };
        assert_eq!(pace.step(Event::Looked(crowded), MS), Action::Nothing);
        assert!(pace.is_gathering());
        assert!(matches!(pace.step(Event::Idle(Idle::default()), 2 * MS), Action::Wait { commits: false, .. }));
        // What has gathered is due, though nothing was committed since.
        assert_eq!(pace.step(Event::Looked(Look::default()), 3 * MS), Action::Build);
        assert!(!pace.is_gathering());
        // Whoever asks is served at once, and so is whoever leaves.
        assert_eq!(pace.step(Event::Looked(Look { asked: true, ..crowded }), 4 * MS), Action::Build);
        assert_eq!(pace.step(Event::Looked(Look { retired: true, ..crowded }), 4 * MS), Action::Build);
    }

    #[test]
    fn a_slow_channel_makes_few_messages_of_many_commits() {
        // A block takes a minute; somebody commits ten times a second for three hours.
        let (mut pace, minute) = (Pace::default(), Duration::from_secs(60));
        let (mut messages, mut now) = (0, Duration::ZERO);
        while now < 3 * 3600 * Duration::from_secs(1) {
            pace.step(Event::Committed { known: true }, now);
            if pace.step(Event::Looked(Look { batch: minute, ..due() }), now) == Action::Build {
                messages += 1;
                pace.step(Event::Built { stored: true, took: 3 * MS }, now);
            }
            now += 100 * MS;
        }
        assert_eq!(messages, 180);
    }

    #[test]
    fn a_message_that_takes_long_is_followed_by_a_rest_but_not_for_ever() {
        let mut pace = Pace::default();
        pace.step(Event::Built { stored: true, took: Duration::from_secs(9) }, MS);
        assert_eq!(pace.step(Event::Looked(due()), 100 * MS), Action::Nothing);
        assert_eq!(waits(&mut pace, Idle::default(), 100 * MS), REST_MAX + MS - 100 * MS);
        assert_eq!(pace.step(Event::Looked(due()), REST_MAX + MS), Action::Build);
    }

    #[test]
    fn a_look_that_found_nothing_costs_a_rest_only_if_it_took_long() {
        let mut pace = Pace::default();
        pace.step(Event::Built { stored: false, took: MS }, MS);
        assert_eq!(pace.step(Event::Looked(due()), MS), Action::Build);
        pace.step(Event::Built { stored: false, took: 10 * MS }, 2 * MS);
        assert_eq!(pace.step(Event::Looked(due()), 3 * MS), Action::Nothing);
    }

    #[test]
    fn an_announced_commit_is_looked_for_often_and_then_as_usual() {
        let (mut pace, announced) = (Pace::default(), Idle { announced: true, ..Idle::default() });
        let times: Vec<Duration> = (0..LOOK_AGAIN).map(|_| waits(&mut pace, announced, MS)).collect();
        assert!(times.windows(2).all(|pair| pair[1] == 2 * pair[0]), "{times:?}");
        assert_eq!(waits(&mut pace, announced, MS), POLL_IDLE);
        pace.step(Event::Committed { known: true }, MS);
        assert_eq!(waits(&mut pace, announced, MS), times[0]);
    }

    #[test]
    fn the_file_is_let_go_of_when_nobody_has_committed_for_a_while() {
        let mut pace = Pace::default();
        pace.step(Event::Committed { known: true }, MS);
        let kept = Action::Wait { time: POLL_BUSY, commits: true };
        assert_eq!(pace.step(Event::Idle(Idle::default()), 50 * MS), kept);
        assert!(matches!(pace.step(Event::Idle(Idle::default()), 200 * MS), Action::Park { .. }));
        // While old log rows are being forgotten it is needed.
        let busy = Idle { busy: true, ..Idle::default() };
        assert_eq!(pace.step(Event::Idle(busy), 200 * MS), kept);
        assert_eq!(waits(&mut pace, Idle::default(), MS + LIVELY), POLL_IDLE);
    }

    #[test]
    fn tables_that_wait_for_capture_are_tried_less_often_the_longer_somebody_is_in_the_way() {
        let mut pace = Pace::default();
        let mut after = |held_up| waits(&mut pace, Idle { uncaptured: Some(held_up), ..Idle::default() }, MS);
        assert_eq!(after(Duration::ZERO), ENROL_AGAIN);
        assert_eq!(after(Duration::from_millis(1_600)), 100 * MS);
        assert_eq!(after(Duration::from_secs(3_600)), POLL_IDLE);
    }
}
