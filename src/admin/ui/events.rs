//! Server-sent events for the live page: one update a second for each browser that looks.
//!
//! A browser's own connection thread writes its events. The state of now is made once a second however many look, by the
//! first thread that needs it, and nothing is made while nobody looks.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, Timespec, poll};

use super::rows;
use crate::activity::Activity;
use crate::admin::page::claude_lines;
use crate::admin::query::parameter;
use crate::error::Error;
use crate::fleet::Gateway;
use crate::hang_up;
use crate::ids;
use crate::json::{Object, Value};
use crate::server::Client;

/// The most browsers that look at a time: each holds a connection and its thread.
const LOOKERS_MAX: usize = 8;

/// The time between two updates.
const EVERY: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The state of now is made anew when it is older than this: somewhat less than the time between two updates.
const FRESH: Duration = Duration::from_millis(800);

/// The most finished requests in one event, about 100 KB. The history comes in several events, so that a browser that reads
/// slowly makes us hold little.
const ROWS_MAX: usize = 100;

/// The state that all browsers share.
#[derive(Debug)]
pub struct LivePage {
    /// A name for this process: the numbers of requests begin anew with it.
    run: String,
    lookers: AtomicUsize,
    now: Mutex<Option<(Instant, Arc<Vec<u8>>)>>,
}

impl Default for LivePage {
    fn default() -> Self {
        LivePage { run: ids::request_id(), lookers: AtomicUsize::new(0), now: Mutex::default() }
    }
}

/// The sources of the events.
pub struct LiveSource<'s> {
    /// The requests, now and before.
    pub activity: &'s Activity,
    /// Gives the gateway in force.
    pub gateway: &'s dyn Fn() -> Arc<Gateway>,
    /// True while the browser may look: its key may end.
    pub is_admitted: &'s dyn Fn() -> bool,
    /// The address that the browser reached us by; empty if it told none.
    pub address: String,
    /// True if clients need a key.
    pub needs_key: bool,
}

/// A place among those who look, given back when it is dropped.
struct Looker<'p>(&'p LivePage);

impl Drop for Looker<'_> {
    fn drop(&mut self) {
        self.0.lookers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LivePage {
    fn enter(&self) -> Result<Looker<'_>, Error> {
        if self.lookers.fetch_add(1, Ordering::Relaxed) >= LOOKERS_MAX {
            self.lookers.fetch_sub(1, Ordering::Relaxed);
            let what = format!(
                "{LOOKERS_MAX} browsers look at this page already: close it in one of them, then load it again"
            );
            return Err(Error::invalid(what).with_status(503));
        }
        Ok(Looker(self))
    }

    /// The members of the state of now, without the braces around them.
    fn now(&self, source: &LiveSource<'_>) -> Arc<Vec<u8>> {
        // Held while the state is made: the others wait for it instead of making their own.
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        match &*now {
            Some((made, text)) if made.elapsed() < FRESH => Arc::clone(text),
            _ => {
                let state = rows::now(&(source.gateway)(), source.activity);
                let text = Value::from(state).to_json().into_bytes();
                let members = text.strip_prefix(b"{").and_then(|text| text.strip_suffix(b"}"));
                let text = Arc::new(members.unwrap_or_default().to_vec());
                *now = Some((Instant::now(), Arc::clone(&text)));
                text
            }
        }
    }
}

/// Streams events until the browser leaves, its key ends, or the server stops. `query` names the last request that the browser
/// knows: `run=…&after=…`; one of another run counts for nothing.
///
/// # Errors
/// Those of the connection. A browser beyond the limit gets 503 as a response.
pub fn stream(
    live: &LivePage,
    client: &Client,
    source: &LiveSource<'_>,
    (request_id, query): (&str, Option<&str>),
) -> io::Result<()> {
    let _looker = match live.enter() {
        Ok(looker) => looker,
        Err(error) => return client.borrow_mut().respond_error(&error, request_id),
    };
    let headers = [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("request-id", request_id),
    ];
    client.borrow_mut().start_stream(200, &headers)?;
    let mut after = last_known(query, &live.run);
    let mut hello = Some(hello(live, source));
    loop {
        let mut event = b"data: {".to_vec();
        event.extend_from_slice(&hello.take().unwrap_or_default());
        event.extend_from_slice(&live.now(source));
        let rows = source.activity.history().after(after);
        let is_more = rows.len() > ROWS_MAX;
        let shown: Vec<Value<'static>> = rows
            .iter()
            .take(ROWS_MAX)
            .inspect(|row| after = row.number)
            .map(|row| rows::finished(row))
            .collect();
        event.extend_from_slice(b",\"finished\":");
        Value::Array(shown.into()).write(&mut event);
        event.extend_from_slice(b"}\n\n");
        client.borrow_mut().write(&event)?;
        drop((event, rows));
        if !is_more && has_left(client)? {
            return Ok(());
        }
        if client.borrow().is_draining() || !(source.is_admitted)() {
            return client.borrow_mut().finish();
        }
    }
}

/// The members that only the first event has.
fn hello(live: &LivePage, source: &LiveSource<'_>) -> Vec<u8> {
    let mut hello = Object::new();
    hello.push("run", live.run.as_str());
    hello.push("version", env!("CARGO_PKG_VERSION"));
    let line = |(name, line): &(&'static str, String)| {
        Value::object([("name", (*name).into()), ("line", line.clone().into())])
    };
    let lines = claude_lines(&source.address, source.needs_key);
    hello.push("connect", lines.iter().map(line).collect::<Vec<_>>());
    let mut text = Value::from(hello).to_json().into_bytes();
    // The state of now follows within the same braces.
    text.pop();
    text.push(b',');
    text.split_off(1)
}

/// The number of the last request that the browser knows.
fn last_known(query: Option<&str>, run: &str) -> u64 {
    let after = parameter(query, "after").filter(|_| parameter(query, "run") == Some(run));
    after.and_then(|after| after.parse().ok()).unwrap_or(0)
}

/// Waits for the time of the next update. True if the browser has left.
fn has_left(client: &Client) -> io::Result<bool> {
    let client = client.borrow();
    let socket = client.stream().socket().as_fd();
    let mut sockets = [PollFd::from_borrowed_fd(socket, hang_up::events(socket))];
    match poll(&mut sockets, Some(&EVERY)) {
        Ok(_) => Ok(sockets
            .iter()
            .any(|seen| hang_up::is_shown(socket, seen.revents()) && !seen.revents().is_empty())),
        // A signal makes one update come early.
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_told_what_it_does_not_know() {
        for (query, expected) in [
            (Some("run=r1&after=7"), 7),
            (Some("after=7&run=r1"), 7),
            (Some("run=r0&after=7"), 0),
            (Some("after=7"), 0),
            (Some("run=r1&after=-7"), 0),
            (Some("run=r1&after=99999999999999999999"), 0),
            (Some("run=r1"), 0),
            (Some("&=&run"), 0),
            (None, 0),
        ] {
            assert_eq!(last_known(query, "r1"), expected, "{query:?}");
        }
    }

    #[test]
    fn eight_may_look() {
        let live = LivePage::default();
        let mut lookers: Vec<_> = (0..LOOKERS_MAX).map(|_| live.enter().ok().unwrap()).collect();
        let error = live.enter().err().unwrap();
        assert_eq!(error.status(), 503);
        assert!(live.enter().is_err());
        lookers.pop();
        assert!(live.enter().is_ok() && live.enter().is_ok());
    }
}
