//! How many requests an upstream gets at a time, and who is next: first come, first served.
//!
//! A waiting client is minded like one whose upstream is silent: it gets its pings, and when it leaves so does its place.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::error::{Error, Kind, Retry};
use crate::upstream::{Failure, Wait, wait_for};

use super::Stop;

/// How many may wait; beyond that a client is told to come again.
const WAITING_MAX: usize = 512;

const RETRY_AFTER_S: u32 = 5;

/// As long as the client has patience.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The places of one upstream.
#[derive(Debug)]
pub(super) struct Queue(Mutex<State>);

#[derive(Debug)]
struct State {
    free: u32,
    /// Each is woken by its descriptor, which hands it the place.
    waiting: VecDeque<Arc<OwnedFd>>,
}

/// A place; given on to the next when it is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Queue>);

impl Queue {
    /// A queue for `places` requests at a time.
    pub(super) fn new(places: u32) -> Self {
        Queue(Mutex::new(State { free: places, waiting: VecDeque::new() }))
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A place, at once or when it is this client's turn.
    ///
    /// # Errors
    /// 529: too many wait already. The client has left.
    pub(super) fn take(self: &Arc<Self>, wait: &Rc<dyn Wait>) -> Result<Place, Stop> {
        let turn = eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| Stop::Client(error.into()))?;
        let turn = Arc::new(turn);
        let is_free = self.with(|state| {
            if state.free > 0 {
                state.free -= 1;
                return Ok(true);
            }
            if state.waiting.len() >= WAITING_MAX {
                let error = Error::new(Kind::Overloaded, "too many requests wait for this model");
                return Err(error.retry(Retry::After(RETRY_AFTER_S)));
            }
            state.waiting.push_back(Arc::clone(&turn));
            Ok(false)
        })?;
        if is_free {
            return Ok(Place(Arc::clone(self)));
        }
        match wait_for(wait.as_ref(), turn.as_fd(), WAIT_MAX) {
            Ok(true) => Ok(Place(Arc::clone(self))),
            left => {
                let was_waiting = self.with(|state| {
                    let before = state.waiting.len();
                    state.waiting.retain(|other| !Arc::ptr_eq(other, &turn));
                    state.waiting.len() < before
                });
                if !was_waiting {
                    drop(Place(Arc::clone(self))); // it was just handed over
                }
                Err(match left {
                    Err(Failure::ClientGone) => Stop::ClientGone,
                    _ => Error::new(Kind::Overloaded, "waited too long for this model").into(),
                })
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.with(|state| match state.waiting.pop_front() {
            Some(next) => {
                // An eventfd takes its first write always.
                let _ = rustix::io::write(&*next, &1u64.to_ne_bytes());
            }
            None => state.free += 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::upstream::{minded, nobody};

    fn waiting(queue: &Queue) -> usize {
        queue.with(|state| state.waiting.len())
    }

    #[test]
    fn the_next_gets_the_place() {
        let queue = Arc::new(Queue::new(1));
        let first = queue.take(&nobody()).ok().unwrap();
        let (sender, served) = sync_channel(2);
        let others: Vec<_> = (0..2)
            .map(|i| {
                let (queue, sender) = (Arc::clone(&queue), sender.clone());
                let before = waiting(&queue);
                let thread = std::thread::spawn({
                    let queue = Arc::clone(&queue);
                    move || {
                        let _place = queue.take(&nobody()).ok().unwrap();
                        sender.send(i).unwrap();
                    }
                });
                while waiting(&queue) == before {
                    std::thread::yield_now();
                }
                thread
            })
            .collect();
        drop(first);
        assert_eq!((served.recv().unwrap(), served.recv().unwrap()), (0, 1));
        others.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(queue.with(|state| (state.free, state.waiting.len())), (1, 0));
    }

    #[test]
    fn a_client_that_leaves_gives_up_its_turn() {
        let queue = Arc::new(Queue::new(1));
        let place = queue.take(&nobody()).ok().unwrap();
        let (wait, client) = minded();
        drop(client);
        assert!(matches!(queue.take(&wait), Err(Stop::ClientGone)));
        assert_eq!(waiting(&queue), 0);
        drop(place);
        assert_eq!(queue.with(|state| state.free), 1);
    }

    #[test]
    fn the_queue_has_an_end() {
        let queue = Arc::new(Queue::new(0));
        queue.with(|state| {
            state
                .waiting
                .extend((0..WAITING_MAX).map(|_| Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap())));
        });
        assert!(matches!(queue.take(&nobody()), Err(Stop::Error(error)) if error.kind == Kind::Overloaded));
    }
}
