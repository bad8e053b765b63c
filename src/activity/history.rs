//! The records of the last requests, bounded in number and in bytes.
//!
//! A request that ends pushes its record under a short lock. A reader holds the lock only to copy pointers, so no request
//! waits for what a reader does with them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::record::Record;

/// The most records that are kept.
const ROWS_MAX: usize = 1000;

/// The most bytes that the records take together. One takes less than 1 KB without a long error.
const BYTES_MAX: usize = 2 * 1024 * 1024;

/// A request that has ended.
#[derive(Debug)]
pub struct FinishedRequest {
    /// Its number since the start, from 1: a reader that knows the last one asks for those after it.
    pub number: u64,
    /// Its record.
    pub record: Record,
}

/// The records of the last requests.
#[derive(Debug, Default)]
pub struct RequestHistory(Mutex<Rows>);

#[derive(Debug, Default)]
struct Rows {
    last: u64,
    bytes: usize,
    rows: VecDeque<Arc<FinishedRequest>>,
}

impl RequestHistory {
    /// Adds the record of a request that has ended. The oldest ones are dropped where there are too many.
    pub fn push(&self, record: Record) -> Arc<FinishedRequest> {
        let mut rows = self.rows();
        rows.last += 1;
        rows.bytes += record.size();
        let row = Arc::new(FinishedRequest { number: rows.last, record });
        rows.rows.push_back(Arc::clone(&row));
        while rows.rows.len() > ROWS_MAX || rows.bytes > BYTES_MAX {
            let Some(oldest) = rows.rows.pop_front() else { break };
            rows.bytes = rows.bytes.saturating_sub(oldest.record.size());
        }
        row
    }

    /// The requests that ended after the one of this number, the oldest first; 0: all that are kept.
    pub fn after(&self, number: u64) -> Vec<Arc<FinishedRequest>> {
        let rows = self.rows();
        let from = rows.rows.partition_point(|row| row.number <= number);
        rows.rows.iter().skip(from).cloned().collect()
    }

    /// Locks the rows. A thread that panicked has at worst left out a row.
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Caller;
    use super::*;

    fn record(id: &str, error: usize) -> Record {
        let mut record = Record::new(id, &Caller::new([127, 0, 0, 1].into()));
        record.error = (error > 0).then(|| "x".repeat(error));
        record
    }

    #[test]
    fn the_last_records_are_kept_in_their_order() {
        let history = RequestHistory::default();
        (0..ROWS_MAX + 5).for_each(|_| _ = history.push(record("req_1", 0)));
        let rows = history.after(0);
        assert_eq!((rows.len(), rows[0].number), (ROWS_MAX, 6));
        let newer: Vec<u64> = history.after(1003).iter().map(|row| row.number).collect();
        assert_eq!(newer, [1004, 1005]);
        assert!(history.after(1005).is_empty() && history.after(u64::MAX).is_empty());
    }

    #[test]
    fn long_errors_take_the_place_of_several_records() {
        let history = RequestHistory::default();
        let state = || {
            let bytes = history.rows().bytes;
            (bytes <= BYTES_MAX, history.after(0).len())
        };
        for _ in 0..ROWS_MAX {
            let mut record = record("req_1", 1_000_000);
            record.end();
            history.push(record);
        }
        assert_eq!(state(), (true, ROWS_MAX), "an error is cut");
        (0..ROWS_MAX).for_each(|_| _ = history.push(record("req_1", 10_000)));
        let (fits, kept) = state();
        assert!(fits && (150..ROWS_MAX).contains(&kept), "{kept} rows");
        history.push(record("req_1", 2 * BYTES_MAX));
        assert_eq!(state(), (true, 0), "one that fits nowhere is not kept");
    }
}
