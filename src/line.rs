//! A line of those who wait, in the order in which they came, and of limited length.
//!
//! Does not know what is waited for, nor how a waiter is woken.

use std::collections::VecDeque;
use std::sync::Arc;

/// A line of waiters. Each waiter keeps its own `Arc`, by which it is told from the others when it leaves.
#[derive(Debug)]
pub struct WaitingLine<T> {
    waiters: VecDeque<Arc<T>>,
    length_max: usize,
}

impl<T> WaitingLine<T> {
    /// An empty line for at most `length_max` waiters.
    pub fn new(length_max: usize) -> Self {
        WaitingLine { waiters: VecDeque::new(), length_max }
    }

    /// The number of waiters.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// True if nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// True if a further waiter must be refused.
    pub fn is_full(&self) -> bool {
        self.waiters.len() >= self.length_max
    }

    /// Adds a waiter at the end. The caller has checked that the line is not full.
    pub fn join(&mut self, waiter: T) -> Arc<T> {
        let waiter = Arc::new(waiter);
        self.waiters.push_back(Arc::clone(&waiter));
        waiter
    }

    /// The waiter whose turn comes next.
    pub fn first(&self) -> Option<&T> {
        self.waiters.front().map(Arc::as_ref)
    }

    /// Takes the waiter whose turn comes next out of the line.
    pub fn take_first(&mut self) -> Option<Arc<T>> {
        self.waiters.pop_front()
    }

    /// Takes a waiter out of the line before its turn. Returns false if its turn has come already.
    pub fn leave(&mut self, waiter: &Arc<T>) -> bool {
        let place = self.waiters.iter().position(|other| Arc::ptr_eq(other, waiter));
        place.and_then(|place| self.waiters.remove(place)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_come_is_the_first_to_be_taken() {
        let mut line = WaitingLine::new(2);
        assert!(line.is_empty() && line.take_first().is_none());
        line.join(1);
        line.join(2);
        assert!(line.is_full());
        assert_eq!(line.first(), Some(&1));
        assert_eq!(line.take_first().as_deref(), Some(&1));
        assert!(!line.is_full());
        assert_eq!((line.take_first().as_deref(), line.len()), (Some(&2), 0));
    }

    #[test]
    fn a_waiter_leaves_only_before_its_turn_and_only_itself() {
        let mut line = WaitingLine::new(9);
        let (first, second, third) = (line.join(7), line.join(7), line.join(7));
        assert!(line.leave(&second) && !line.leave(&second));
        assert!(Arc::ptr_eq(&line.take_first().unwrap(), &first));
        assert!(!line.leave(&first), "its turn has come");
        assert!(Arc::ptr_eq(&line.take_first().unwrap(), &third));
    }
}
