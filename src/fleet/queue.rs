//! Limits the requests that an upstream gets at a time; the others wait: first come, first served.
//!
//! A waiting client is watched like one whose upstream is silent: it gets its pings, and when it leaves, its place is
//! freed.

use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Kind, Retry};
use crate::line::WaitingLine;
use crate::transport::{Failure, Wait, wait_for};
use crate::wake::Wake;

/// The most requests that wait. A further client is told to try again later.
const WAITING_MAX: usize = 512;

const RETRY_AFTER_S: u32 = 5;

/// The longest wait: a day, so that in practice the client's patience decides.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The slots of one upstream.
#[derive(Debug)]
pub struct Queue(Mutex<QueueState>);

#[derive(Debug)]
struct QueueState {
    free: u32,
    /// A waiter that is woken already has the slot.
    waiting: WaitingLine<Wake>,
}

/// A slot. When it is dropped, the next waiter gets it.
#[derive(Debug)]
pub struct QueueSlot(Arc<Queue>);

/// The reason why a request gets no slot.
#[derive(Debug)]
pub enum NoSlot {
    /// The client has left.
    ClientGone,
    /// Too many requests wait already, or this one waited too long.
    Refused(Error),
}

impl Queue {
    /// A queue for `slots` requests at a time.
    pub fn new(slots: u32) -> Self {
        Queue(Mutex::new(QueueState { free: slots, waiting: WaitingLine::new(WAITING_MAX) }))
    }

    fn with<T>(&self, change: impl FnOnce(&mut QueueState) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A slot, at once or when it is this client's turn.
    ///
    /// # Errors
    /// Too many requests wait already, or the client has left.
    pub fn take(self: &Arc<Self>, wait: &Rc<dyn Wait>) -> Result<QueueSlot, NoSlot> {
        let turn = self.with(|state| {
            if state.free > 0 {
                state.free -= 1;
                return Ok(None);
            }
            if state.waiting.is_full() {
                return Err(come_back(Error::new(Kind::Overloaded, "too many requests wait for this model")));
            }
            let turn = Wake::new().map_err(|error| NoSlot::Refused(Error::exhausted(error)))?;
            Ok(Some(state.waiting.join(turn)))
        })?;
        let Some(turn) = turn else { return Ok(QueueSlot(Arc::clone(self))) };
        match wait_for(wait.as_ref(), turn.as_fd(), WAIT_MAX) {
            Ok(true) => Ok(QueueSlot(Arc::clone(self))),
            left => {
                if !self.with(|state| state.waiting.leave(&turn)) {
                    drop(QueueSlot(Arc::clone(self))); // this waiter was given the slot just now
                }
                Err(match left {
                    Err(Failure::ClientGone) => NoSlot::ClientGone,
                    _ => NoSlot::Refused(Error::new(Kind::Overloaded, "waited too long for this model")),
                })
            }
        }
    }
}

/// A refusal that asks the client to try again soon.
fn come_back(error: Error) -> NoSlot {
    NoSlot::Refused(error.retry(Retry::After(RETRY_AFTER_S)))
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        self.0.with(|state| match state.waiting.take_first() {
            Some(next) => next.wake(),
            None => state.free += 1,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::transport::{minded, nobody};

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
        assert!(matches!(queue.take(&wait), Err(NoSlot::ClientGone)));
        assert_eq!(waiting(&queue), 0);
        drop(place);
        assert_eq!(queue.with(|state| state.free), 1);
    }

    #[test]
    fn the_queue_has_an_end() {
        let queue = Arc::new(Queue::new(0));
        queue.with(|state| {
            (0..WAITING_MAX).for_each(|_| drop(state.waiting.join(Wake::new().unwrap())));
        });
        assert!(
            matches!(queue.take(&nobody()), Err(NoSlot::Refused(error)) if error.kind == Kind::Overloaded)
        );
    }
}
