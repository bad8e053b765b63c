//! The reports to the service manager: a status line whenever the server's state changes, and signs of life for its
//! watchdog.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::fleet::{Availability, HealthState};
use crate::proxy::Proxy;
use crate::server::{Heartbeat, StopHandle};
use crate::service;
use crate::threads;

/// The time between two checks of the status line, which is reported if it has changed.
const STATUS_PERIOD: Duration = Duration::from_secs(2);

/// The number of reports to the watchdog within its time limit: one late report must not end the server.
const REPORTS_PER_LIMIT: u32 = 3;

/// The state of the server, for reports.
pub(super) struct Status {
    proxy: Arc<Proxy>,
    /// True if the last reload was refused.
    reload_failed: AtomicBool,
    /// True once another process is the service. The service manager then refuses this one's reports.
    has_ended: AtomicBool,
}

impl Status {
    /// The state of a server with this proxy.
    pub(super) fn new(proxy: &Arc<Proxy>) -> Arc<Self> {
        Arc::new(Status {
            proxy: Arc::clone(proxy),
            reload_failed: AtomicBool::default(),
            has_ended: AtomicBool::default(),
        })
    }

    /// Reports the end of a reload; call it after each one.
    pub(super) fn reloaded(&self, done: bool) {
        self.reload_failed.store(!done, Ordering::Relaxed);
        service::ready(&self.line());
    }

    /// Reports that the server has been told to stop.
    pub(super) fn stopping(&self) {
        if self.has_ended.load(Ordering::Relaxed) {
            return;
        }
        service::stopping(&format!("finishing {}", self.requests()));
    }

    /// Ends the reports: another process makes them now.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    /// Reports to the service manager, if there is one, that the server is ready, and from then on its state.
    ///
    /// # Errors
    /// The thread for it cannot be started.
    pub(super) fn begin(self: &Arc<Self>, heartbeats: Vec<Heartbeat>, stop: &StopHandle) -> io::Result<()> {
        service::ready(&self.line());
        if !service::is_managed() {
            return Ok(());
        }
        let status = Arc::clone(self);
        let mut reported = String::new();
        let stopping = stop.clone();
        threads::every("status", STATUS_PERIOD, move || {
            let line = status.line();
            if line != reported && !stopping.is_ending() {
                service::status(&line);
                reported = line;
            }
        })?;
        let Some(period) = Status::watchdog_period() else { return Ok(()) };
        let (status, stopping) = (Arc::clone(self), stop.clone());
        threads::every("watchdog", period, move || {
            if status.has_ended.load(Ordering::Relaxed) {
                return;
            }
            // A server that stops takes no turns; the drain has its own limit.
            if !stopping.is_ending() {
                // The line takes every lock that a request takes, so a deadlock ends the reports as well.
                drop(status.line());
                let oldest = heartbeats.iter().map(|heartbeat| heartbeat.age(Instant::now())).max();
                if let Some(age) = oldest.filter(|age| *age > period) {
                    return log::warn!(
                        "a listener has accepted no connection for {} s: it is stuck",
                        age.as_secs()
                    );
                }
            }
            service::alive();
        })
    }

    /// A heartbeat for one more accepting thread. It beats only if the service manager watches.
    pub(super) fn heartbeat() -> Heartbeat {
        Heartbeat::new(Status::watchdog_period().map(|period| period / 2))
    }

    /// The time between two reports to the watchdog; `None`: the service manager does not watch.
    fn watchdog_period() -> Option<Duration> {
        service::watchdog().map(|limit| limit / REPORTS_PER_LIMIT)
    }

    /// The number of requests in progress, in words.
    pub(super) fn requests(&self) -> String {
        match self.proxy.activity().in_flight().count() {
            1 => "1 request".to_string(),
            count => format!("{count} requests"),
        }
    }

    fn line(&self) -> String {
        let gateway = self.proxy.gateway();
        let mut line = self.requests();
        for (i, served) in gateway.upstreams().iter().enumerate() {
            let upstream = served.upstream();
            let availability = upstream.availability();
            let separator = if i == 0 { ";" } else { "," };
            let _ = write!(line, "{separator} {}: {}", served.name(), availability.name());
            if availability == Availability::Up {
                let _ = match upstream.discovered().models.len() {
                    1 => write!(line, ", 1 model"),
                    count => write!(line, ", {count} models"),
                };
            }
            let report = gateway.dispatcher().report(served.id()).filter(|_| served.needs_place());
            if let Some((state, _)) =
                report.map(|report| report.health).filter(|it| it.0 != HealthState::Well)
            {
                let _ = write!(line, " ({})", state.name());
            }
        }
        let _ = write!(line, "; hooks {}", gateway.hooks().hash());
        if self.reload_failed.load(Ordering::Relaxed) {
            line.push_str(" (the last reload was refused, see the log)");
        }
        line
    }
}
