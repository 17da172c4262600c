//! Subscriptions to what happens from now on.
//!
//! Invariants
//! - A new subscriber gets nothing until the next event.
//! - A buffer is bounded: a reader that is too slow silently loses the oldest events, as with a real node.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Queue {
    lines: VecDeque<Arc<str>>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.queue().closed = true;
        self.changed.notify_all();
    }
}

/// Lines as they come; ends when the node closes it.
pub struct Subscription(Arc<Shared>);

impl Iterator for Subscription {
    type Item = Arc<str>;

    fn next(&mut self) -> Option<Arc<str>> {
        let waiting = |queue: &mut Queue| queue.lines.is_empty() && !queue.closed;
        let queue = self.0.changed.wait_while(self.0.queue(), waiting);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            return None;
        }
        queue.lines.pop_front()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// All subscribers of one kind of event.
pub struct Hub {
    capacity: usize,
    subscribers: Mutex<Vec<Arc<Shared>>>,
}

impl Hub {
    /// A hub whose subscribers may lag by so many lines.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, subscribers: Mutex::default() }
    }

    fn subscribers(&self) -> MutexGuard<'_, Vec<Arc<Shared>>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more subscriber.
    pub fn subscribe(&self) -> Subscription {
        let shared = Arc::new(Shared::default());
        self.subscribers().push(shared.clone());
        Subscription(shared)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.subscribers().iter().filter(|subscriber| !subscriber.queue().closed).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tell all.
    pub fn publish(&self, line: &Arc<str>) {
        self.subscribers().retain(|subscriber| {
            let mut queue = subscriber.queue();
            if queue.lines.len() == self.capacity {
                queue.lines.pop_front();
            }
            queue.lines.push_back(line.clone());
            subscriber.changed.notify_all();
            !queue.closed
        });
    }

    /// End all streams.
    pub fn close(&self) {
        self.subscribers().drain(..).for_each(|subscriber| subscriber.close());
    }
}
