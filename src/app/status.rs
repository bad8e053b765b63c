//! The reports to the service manager: a status line whenever the server's state changes, and signs of life for its
//! watchdog.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::proxy::Proxy;
use crate::server::StopHandle;
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
}

impl Status {
    /// The state of a server with this proxy.
    pub(super) fn new(proxy: &Arc<Proxy>) -> Arc<Self> {
        Arc::new(Status { proxy: Arc::clone(proxy), reload_failed: AtomicBool::default() })
    }

    /// Reports the end of a reload; call it after each one.
    pub(super) fn reloaded(&self, done: bool) {
        self.reload_failed.store(!done, Ordering::Relaxed);
        service::ready(&self.line());
    }

    /// Reports that the server has been told to stop.
    pub(super) fn stopping(&self) {
        service::stopping(&format!("finishing {}", self.requests()));
    }

    /// Reports to the service manager, if there is one, that the server is ready, and from then on its state.
    ///
    /// # Errors
    /// The thread for it cannot be started.
    pub(super) fn begin(
        self: &Arc<Self>,
        address: SocketAddr,
        path: String,
        stop: &StopHandle,
    ) -> io::Result<()> {
        service::ready(&self.line());
        if !service::is_managed() {
            return Ok(());
        }
        let status = Arc::clone(self);
        let mut reported = String::new();
        let stopping = stop.clone();
        threads::every("status", STATUS_PERIOD, move || {
            let line = status.line();
            if line != reported && !stopping.is_triggered() {
                service::status(&line);
                reported = line;
            }
        })?;
        let Some(limit) = service::watchdog() else { return Ok(()) };
        let period = limit / REPORTS_PER_LIMIT;
        let stopping = stop.clone();
        threads::every("watchdog", period, move || {
            // A server that has been told to stop accepts no connections, so this check would fail; the drain has its
            // own limit.
            if stopping.is_triggered() {
                return service::alive();
            }
            match service::answers(address, &path, period) {
                Ok(()) => service::alive(),
                Err(error) => log::warn!("the server does not answer itself: {error}"),
            }
        })
    }

    fn requests(&self) -> String {
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
            let state = match (upstream.is_stale(), upstream.discovered().models.len()) {
                (false, 1) => "up, 1 model".to_string(),
                (false, count) => format!("up, {count} models"),
                (true, 0) => "not reached yet".to_string(),
                (true, _) => "lost".to_string(),
            };
            let _ = write!(line, "{} {}: {state}", if i == 0 { ";" } else { "," }, served.name());
        }
        let _ = write!(line, "; hooks {}", gateway.hooks().hash());
        if self.reload_failed.load(Ordering::Relaxed) {
            line.push_str(" (the last reload was refused, see the log)");
        }
        line
    }
}
