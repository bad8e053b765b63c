//! The recording of one request, for a browser: `GET /ui/recording/ID?part=NAME`.
//!
//! A thread of its own reads the file, one at a time, so that a slow disk holds up nobody but those who look at recordings,
//! and what it makes us hold has a limit: two recordings, which the difference of two turns needs. So have the answers, which
//! a browser may read slowly.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::parts::{RecordedPart, show};
use crate::activity::{Activity, Caller, RecordMode};
use crate::admin::activity::may_see;
use crate::admin::query::parameter;
use crate::error::{Error, Kind, Retry};
use crate::json::{self, Value};
use crate::state::{RecordingRow, Store};
use crate::threads;

/// How long a browser waits for its turn, and then for the disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most answers that are made or sent at a time, each of 2 MB at most.
const ANSWERS_MAX: usize = 16;

/// The recordings that browsers read now.
#[derive(Debug, Default)]
pub struct RecordingReads {
    /// The turn of the thread that reads. True while one does.
    turn: Arc<(Mutex<bool>, Condvar)>,
    answers: AtomicUsize,
}

/// A part of a recording as JSON, which counts among the answers until it is dropped.
pub struct RecordingAnswer<'r> {
    /// The JSON.
    pub body: Vec<u8>,
    reads: &'r RecordingReads,
}

impl Drop for RecordingAnswer<'_> {
    fn drop(&mut self) {
        self.reads.answers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The sources of an answer, and who asks.
pub struct RecordingSource<'s> {
    /// The requests, now and before.
    pub activity: &'s Activity,
    /// The state folder, if there is one.
    pub store: Option<&'s Arc<Store>>,
    /// The requests that are recorded.
    pub mode: RecordMode,
    /// The client that asks. It gets what it may see at `/activity`.
    pub caller: Caller,
}

/// The right to read, given back when it is dropped.
struct ReadTurn(Arc<(Mutex<bool>, Condvar)>);

impl Drop for ReadTurn {
    fn drop(&mut self) {
        let (is_taken, freed) = &*self.0;
        *is_taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        freed.notify_one();
    }
}

impl RecordingReads {
    /// An answer that has no text yet. `None`: there are too many.
    fn begin(&self) -> Option<RecordingAnswer<'_>> {
        let before = self.answers.fetch_add(1, Ordering::Relaxed);
        // Counted already, so that it is taken off again in any case.
        let answer = RecordingAnswer { body: Vec::new(), reads: self };
        (before < ANSWERS_MAX).then_some(answer)
    }

    /// Waits until nobody reads. `None`: somebody still does.
    fn enter(&self) -> Option<ReadTurn> {
        let (is_taken, freed) = &*self.turn;
        let is_taken = is_taken.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = freed.wait_timeout_while(is_taken, PATIENCE, |is_taken| *is_taken);
        let (mut is_taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *is_taken {
            return None;
        }
        *is_taken = true;
        Some(ReadTurn(Arc::clone(&self.turn)))
    }
}

/// The part of a recording that the query names (`part=…`), as JSON.
///
/// # Errors
/// 400 for an unknown part, 404 for a request without a recording, 409 while the request runs, 403 if it is another client's, 503 if
/// the disk does not answer, or too many are read; each with what to do.
pub fn read_recorded<'r>(
    reads: &'r RecordingReads,
    source: &RecordingSource<'_>,
    (id, query): (&str, Option<&str>),
) -> Result<RecordingAnswer<'r>, Error> {
    let part = parameter(query, "part").and_then(RecordedPart::from_name).ok_or_else(|| {
        let names = RecordedPart::NAMES.map(|(_, name)| name).join(", ");
        Error::invalid(format!("part: name one of {names}, as in ?part=client_body"))
    })?;
    let later = |what: &str| Error::new(Kind::Api, what).with_status(503).retry(Retry::After(1));
    let hangs = || later("the disk of the state folder does not answer; try again");
    let store = Arc::clone(source.store.ok_or_else(|| missing(source, id))?);
    let mut answer = reads.begin().ok_or_else(|| later("too many recordings are being read; try again"))?;
    let turn = reads.enter().ok_or_else(hangs)?;
    let (sender, received) = sync_channel(1);
    let (wanted, caller) = (id.to_owned(), source.caller.clone());
    let work = move || {
        let read = read(&store, (&wanted, part), &caller);
        drop(turn);
        let _ = sender.send(read);
    };
    threads::background("recording", work).map_err(Error::exhausted)?;
    match received.recv_timeout(PATIENCE) {
        Ok(read) => answer.body = read?.ok_or_else(|| missing(source, id))?,
        Err(RecvTimeoutError::Timeout) => return Err(hangs()),
        Err(RecvTimeoutError::Disconnected) => return Err(Error::new(Kind::Api, "Internal server error")),
    }
    Ok(answer)
}

/// Reads a part. `None`: the request was not recorded.
fn read(store: &Store, (id, part): (&str, RecordedPart), caller: &Caller) -> Result<Option<Vec<u8>>, Error> {
    let failed = |why: String| {
        let what =
            format!("the state folder cannot be read now; on the server, `sparkgap show {id}` tells why");
        Error::new(Kind::Api, what).source(why)
    };
    let reader = store.reader().map_err(failed)?;
    let Some(row) = reader.find_recording(id).map_err(failed)? else { return Ok(None) };
    if !may_see(caller, &owner_of(&row)) {
        let what = format!(
            "this request is another client's, which alone sees its texts here; on the server, `sparkgap show {id}` prints them"
        );
        return Err(Error::new(Kind::Permission, what).retry(Retry::Never));
    }
    let before = match part {
        // Clients choose the names of their sessions, so the turn before may be somebody else's.
        RecordedPart::Difference => {
            reader.turn_before(&row).map_err(failed)?.filter(|before| may_see(caller, &owner_of(before)))
        }
        _ => None,
    };
    Ok(Some(Value::from(show(part, &row, before.as_ref())).to_json().into_bytes()))
}

/// The client of a recorded request.
fn owner_of(row: &RecordingRow) -> Caller {
    let mut head = row.head.as_bytes().to_vec();
    let head = json::parse(&mut head).unwrap_or(Value::Null);
    let record = |key: &str| head.get("record").and_then(|record| record.get(key)?.as_str());
    let address = record("client").and_then(|address| address.parse().ok());
    Caller {
        user: record("user").map(Into::into),
        ..Caller::new(address.unwrap_or_else(|| Ipv4Addr::UNSPECIFIED.into()))
    }
}

/// The error for a request without a recording: its reason, and the option that makes recordings.
fn missing(source: &RecordingSource<'_>, id: &str) -> Error {
    let is_running = source.activity.in_flight().requests().iter().any(|request| request.request_id() == id);
    if is_running {
        let what = "this request is still running; what was recorded of it can be read once it has ended";
        return Error::new(Kind::InvalidRequest, what).with_status(409);
    }
    let rows = source.activity.history().after(0);
    let known = rows.iter().find(|row| row.record.request_id == id);
    let what = match (source.store, known.map(|row| row.record.is_failed()), source.mode) {
        (None, _, _) => {
            "nothing is recorded: start sparkgap with --state DIR and with --record errors, or all"
        }
        (_, None, _) => {
            "no request of this id is known: it has no recording, and is not one of the last 1,000"
        }
        (_, _, RecordMode::Off) => {
            "this request was not recorded: start sparkgap with --record errors, or all, or let a hook return { record = true }"
        }
        (_, Some(false), RecordMode::Errors) => {
            "this request was not recorded, since only those that fail are (--record errors): start sparkgap with --record all"
        }
        _ => {
            "this request has no recording: it is not written yet, a hook decided against it, or newer ones took its place (--record-size)"
        }
    };
    Error::new(Kind::NotFound, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_answers_and_one_reader_at_a_time() {
        let reads = RecordingReads::default();
        let mut answers: Vec<_> = (0..ANSWERS_MAX).map(|_| reads.begin().unwrap()).collect();
        assert!(reads.begin().is_none() && reads.begin().is_none());
        answers.pop();
        assert!(reads.begin().is_some());
        let turn = reads.enter().unwrap();
        std::thread::scope(|scope| {
            let next = scope.spawn(|| reads.enter().is_some());
            drop(turn);
            assert!(next.join().unwrap());
        });
        assert!(reads.enter().is_some());
    }
}
