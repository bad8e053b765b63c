//! The changes of upstreams that a hook is still to be told, in their order.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::health::HealthState;

/// The most changes that wait. A hook gets 50 ms at a time, and no upstream changes that often.
const NEWS_MAX: usize = 64;

/// The name of an upstream, its new state, and the reason.
pub(super) type News = (String, HealthState, String);

/// The changes that wait, and whether a thread is telling them.
#[derive(Debug, Default)]
pub(super) struct StateNews(Mutex<NewsQueue>);

#[derive(Debug, Default)]
struct NewsQueue {
    waiting: VecDeque<News>,
    is_being_told: bool,
}

impl StateNews {
    fn queue(&self) -> MutexGuard<'_, NewsQueue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a change; if too many wait, the oldest one is dropped. Returns true if the caller is to start the thread that
    /// tells them.
    pub(super) fn add(&self, name: &str, state: HealthState, why: String) -> bool {
        let mut queue = self.queue();
        if queue.waiting.len() >= NEWS_MAX {
            queue.waiting.pop_front();
        }
        queue.waiting.push_back((name.to_string(), state, why));
        !std::mem::replace(&mut queue.is_being_told, true)
    }

    /// The next change, for the thread that tells them. `None`: all are told, and the thread ends.
    pub(super) fn next(&self) -> Option<News> {
        let mut queue = self.queue();
        let next = queue.waiting.pop_front();
        queue.is_being_told = next.is_some();
        next
    }

    /// Notes that the thread could not be started. The changes wait for the next one.
    pub(super) fn stop(&self) {
        self.queue().is_being_told = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_tells_all_changes_in_their_order() {
        let news = StateNews::default();
        let add = |name| news.add(name, HealthState::Out, String::new());
        let told = || news.next().map(|(name, ..)| name);
        assert!(add("a"));
        assert!(!add("b"));
        assert_eq!((told().as_deref(), told().as_deref(), told()), (Some("a"), Some("b"), None));
        assert!(add("c"));
        news.stop();
        assert!(add("d"));
    }

    #[test]
    fn the_oldest_of_too_many_changes_are_dropped() {
        let news = StateNews::default();
        (0..NEWS_MAX + 2).for_each(|i| _ = news.add(&i.to_string(), HealthState::Full, String::new()));
        assert_eq!(news.next().unwrap().0, "2");
    }
}
