//! The backend of `log`: lines on stderr, with the time, or with the journal's priorities under systemd.
//!
//! ERROR: the operator must act. WARN: configuration that smells, something lost in translation. INFO: start, stop, one
//! line a request. DEBUG: stages. TRACE: bodies, unredacted.

use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::service;

/// Dumps raw heads, keys among them, at DEBUG and TRACE: its records are never written.
const NEVER: &str = "ureq_proto";

struct Logger {
    level: LevelFilter,
    is_journal: bool,
}

/// Starts logging. Under systemd each line begins with its priority instead of the time.
pub fn start(level: LevelFilter) {
    let is_journal = service::stderr_is_journal();
    // A second start, in a test, keeps the first logger.
    if log::set_boxed_logger(Box::new(Logger { level, is_journal })).is_ok() {
        log::set_max_level(level);
    }
}

/// syslog(3)'s numbers, as sd-daemon(3) reads them.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Text may hold what a stranger chose: nothing in it may end a line or command a terminal.
fn one_line(text: String) -> String {
    if !text.chars().any(char::is_control) {
        return text;
    }
    let mut line = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level && !metadata.target().starts_with(NEVER)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // One write a line, so that the lines of several threads do not mix; and not through std's stderr, at whose lock
        // they would wait for each other. Nobody is there to tell of a failure.
        let text = one_line(record.args().to_string());
        let line = if self.is_journal {
            format!("<{}>{text}\n", priority(record.level()))
        } else {
            let time = humantime::format_rfc3339_millis(SystemTime::now());
            format!("{time} {:5} {text}\n", record.level())
        };
        let _ = rustix::io::write(std::io::stderr(), line.as_bytes());
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(one_line("a b é".into()), "a b é");
        assert_eq!(one_line("a\r\n<0>forged\u{1b}[2J\u{85}".into()), "a\\r\\n<0>forged\\u{1b}[2J\\u{85}");
    }

    #[test]
    fn heads_are_never_logged() {
        let logger = Logger { level: LevelFilter::Trace, is_journal: false };
        let metadata = |target| Metadata::builder().level(Level::Trace).target(target).build();
        assert!(!logger.enabled(&metadata("ureq_proto::util")));
        assert!(logger.enabled(&metadata("sparkgap::proxy")));
    }
}
