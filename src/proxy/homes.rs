//! The upstreams that made the latest responses, for requests that go on from one of them (`previous_response_id`): only the
//! server that made a response has it.

use std::collections::{HashMap, VecDeque};

/// The most responses that are remembered; the oldest is forgotten first. With ids of at most 128 bytes they take about 1 MB.
const REMEMBERED_MAX: usize = 4096;

/// The upstreams of responses, by the responses' ids.
#[derive(Debug, Default)]
pub(super) struct ResponseHomes {
    upstreams: HashMap<String, String>,
    order: VecDeque<String>,
}

impl ResponseHomes {
    /// Remembers the upstream that made a response.
    pub(super) fn note(&mut self, id: &str, upstream: &str) {
        if self.upstreams.insert(id.to_owned(), upstream.to_owned()).is_none() {
            self.order.push_back(id.to_owned());
        }
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.upstreams.remove(&oldest);
        }
    }

    /// The name of the upstream that made a response, if it is known.
    pub(super) fn find(&self, id: &str) -> Option<String> {
        self.upstreams.get(id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut homes = ResponseHomes::default();
        (0..=REMEMBERED_MAX).for_each(|n| homes.note(&n.to_string(), "spark"));
        homes.note("1", "other");
        assert_eq!((homes.find("0"), homes.find("1").as_deref()), (None, Some("other")));
        assert_eq!((homes.upstreams.len(), homes.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
    }
}
