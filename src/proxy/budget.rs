//! How much memory the bodies of requests may take, all together.
//!
//! One body has a limit of its own; but 50 of the largest at a time are 1.6 GB, and as a tree the worst of them took
//! 1.7 GB each (measured), before it was limited what one may hold.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Kind, Retry};
use crate::http::Request;
use crate::transport::Wait;

use super::stop::Stop;
use crate::fleet::queue::{Queue, QueueSlot};

/// Below it a body is of no account: 1,024 connections of these are no more than what is allowed to the large ones.
/// Claude Code sends 100 KB to 1 MB.
const LARGE_SIZE_MIN: usize = 1024 * 1024;

/// What the large bodies may take together, from their first byte until the upstream has answered. What is sent to the
/// upstream is about as large again, so the process takes about twice as much (measured: 1.8 GB with a limit of 1 GB).
const LARGE_SIZE_SUM_MAX: usize = 512 * 1024 * 1024;

/// Large bodies that are a tree at the same time. Each is one for a fraction of a second.
const TREES_MAX: u32 = 2;

/// Values in a large body. A session of a million tokens has less than a hundredth of it.
const VALUES_MAX: usize = 2_000_000;

const RETRY_AFTER_S: u32 = 2;

/// The sum of what is held now, and who may make trees.
#[derive(Debug)]
pub(super) struct Budget {
    held: AtomicUsize,
    trees: Arc<Queue>,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { held: AtomicUsize::new(0), trees: Arc::new(Queue::new(TREES_MAX)) }
    }
}

/// A large body's share, until it is dropped.
#[derive(Debug)]
pub(super) struct Share<'b> {
    budget: &'b Budget,
    size: usize,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.size, Ordering::Relaxed);
    }
}

impl Share<'_> {
    /// Waits until the body may be a tree: few large ones are at a time.
    ///
    /// # Errors
    /// As [`Queue::take`].
    pub(super) fn turn(&self, wait: &Rc<dyn Wait>) -> Result<QueueSlot, Stop> {
        Ok(self.budget.trees.take(wait)?)
    }
}

impl Budget {
    /// The share for the body of this request; `None`: it is of no account. One without a length counts as the largest.
    ///
    /// # Errors
    /// 529: there is no more memory for it now.
    pub(super) fn share(&self, request: &Request, size_max: usize) -> Result<Option<Share<'_>>, Error> {
        let length = request.header("content-length").and_then(|length| length.trim().parse().ok());
        let size = length.unwrap_or(size_max).min(size_max);
        if size < LARGE_SIZE_MIN {
            return Ok(None);
        }
        let before = self.held.fetch_add(size, Ordering::Relaxed);
        let share = Share { budget: self, size };
        if before + size > LARGE_SIZE_SUM_MAX {
            let error = Error::new(Kind::Overloaded, "too many large requests at a time");
            return Err(error.retry(Retry::After(RETRY_AFTER_S)));
        }
        Ok(Some(share))
    }
}

/// Refuses a large body that would be a tree of far more memory than it has bytes.
///
/// # Errors
/// 400: more values than any request has use for.
pub(super) fn check_values(body: &[u8]) -> Result<(), Error> {
    if body.len() >= LARGE_SIZE_MIN && separators(body) > VALUES_MAX {
        return Err(Error::invalid(format!("The request body has more than {VALUES_MAX} JSON values")));
    }
    Ok(())
}

/// What stands before or between values, outside of strings: at least as much as there are values, but for one.
fn separators(json: &[u8]) -> usize {
    let mut count = 0;
    let mut rest = json;
    while let Some(quote) = memchr::memchr(b'"', rest) {
        count += count_in(rest.get(..quote).unwrap_or_default());
        rest = after_string(rest.get(quote + 1..).unwrap_or_default());
    }
    count + count_in(rest)
}

fn count_in(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count()
}

/// What follows the quote that ends a string.
fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        let is_quote = rest.get(at) == Some(&b'"');
        rest = rest.get(at + if is_quote { 1 } else { 2 }..).unwrap_or_default();
        if is_quote {
            return rest;
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_strings_do_not_count() {
        for (json, count) in [
            ("", 0),
            ("1", 0),
            ("[]", 1),
            (r#"{"a,b":[1,2,"x:[{,\",,"],"c\\":{}}"#, 8),
            (r#""cut,,,"#, 0),
            (r#"["\"#, 1),
        ] {
            assert_eq!(separators(json.as_bytes()), count, "{json}");
        }
    }

    #[test]
    fn only_a_large_body_of_too_many_values_is_refused() {
        let zeros = |size: usize| format!("[{}0]", "0,".repeat(size / 2)).into_bytes();
        assert!(check_values(&zeros(LARGE_SIZE_MIN / 2)).is_ok());
        assert!(check_values(&zeros(2 * VALUES_MAX - 10)).is_ok());
        let error = check_values(&zeros(2 * VALUES_MAX + 10)).unwrap_err();
        assert_eq!(error.message, "The request body has more than 2000000 JSON values");
    }

    #[test]
    fn the_sum_has_a_limit_and_shares_come_back() {
        let request = |length: Option<&str>| Request {
            method: "POST".into(),
            path: "/".into(),
            query: None,
            authority: None,
            headers: length.map(|length| ("content-length", length)).into_iter().collect(),
        };
        let (budget, size_max) = (Budget::default(), 32 << 20);
        assert!(budget.share(&request(Some("1000")), size_max).unwrap().is_none());
        let mut shares: Vec<_> = (0..16)
            .map(|i| budget.share(&request((i % 2 == 0).then_some("33554432")), size_max).unwrap())
            .collect();
        let error = budget.share(&request(None), size_max).unwrap_err();
        assert_eq!((error.kind, error.retry), (Kind::Overloaded, Retry::After(RETRY_AFTER_S)));
        assert!(budget.share(&request(Some("1000")), size_max).is_ok());
        shares.pop();
        assert!(budget.share(&request(None), size_max).unwrap().is_some());
        drop(shares);
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }
}
