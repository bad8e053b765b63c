//! The backend of `log`: writes lines to stderr, with the time, or with the journal's priorities under systemd.
//!
//! The levels: ERROR, the operator must act. WARN, a doubtful configuration, or something that the translation dropped.
//! INFO, the start, the stop, and one line per request. DEBUG, stages. TRACE, unredacted bodies.

use std::fmt::Write as _;
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::service;

/// Room for the line of a request, in bytes.
const LINE_SIZE: usize = 256;

struct Logger {
    level: LevelFilter,
    is_journal: bool,
}

/// Starts logging. Under systemd each line begins with its priority instead of the time.
pub fn start(level: LevelFilter) {
    let is_journal = service::stderr_is_journal();
    // A second start happens in tests, and keeps the first logger.
    if log::set_boxed_logger(Box::new(Logger { level, is_journal })).is_ok() {
        log::set_max_level(level);
    }
}

/// The priority as syslog(3) numbers it and sd-daemon(3) reads it.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// How much of what is said is written, in bytes; all of it at the level trace, which is for bodies. A client's words may be
/// in it, which it may make as long as a body.
const TEXT_SIZE_MAX: usize = 4096;

/// Ends a line that says too much.
fn cut(line: &mut String, start: usize) {
    if line.len() - start.min(line.len()) <= TEXT_SIZE_MAX {
        return;
    }
    let end = (start..=start + TEXT_SIZE_MAX).rev().find(|at| line.is_char_boundary(*at));
    line.truncate(end.unwrap_or(start));
    line.push('…');
}

/// Escapes control characters from `start` on. That text may come from a stranger, and must neither end a line nor
/// command a terminal.
fn keep_one_line(line: &mut String, start: usize) {
    if !line.chars().any(char::is_control) {
        return;
    }
    for c in line.split_off(start).chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Each line is one write, so that the lines of several threads do not mix. It does not use std's stderr, whose
        // lock the threads would wait for. A failure cannot be reported anywhere, so it is ignored.
        let mut line = String::with_capacity(LINE_SIZE);
        let _ = match self.is_journal {
            true => write!(line, "<{}>", priority(record.level())),
            false => {
                let time = humantime::format_rfc3339_millis(SystemTime::now());
                write!(line, "{time} {:5} ", record.level())
            }
        };
        let start = line.len();
        let _ = line.write_fmt(*record.args());
        if record.level() != Level::Trace {
            cut(&mut line, start);
        }
        keep_one_line(&mut line, start);
        line.push('\n');
        let _ = rustix::io::write(std::io::stderr(), line.as_bytes());
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_an_end() {
        let mut line = format!("<6>{}", "é".repeat(TEXT_SIZE_MAX));
        cut(&mut line, 3);
        assert_eq!(line, format!("<6>{}…", "é".repeat(TEXT_SIZE_MAX / 2)));
        let mut line = format!("<6>{}", "a".repeat(TEXT_SIZE_MAX));
        cut(&mut line, 3);
        assert_eq!(line.len(), 3 + TEXT_SIZE_MAX);
    }

    #[test]
    fn a_line_stays_one_line() {
        for (text, expected) in
            [("a b é", "a b é"), ("a\r\n<0>forged\u{1b}[2J\u{85}", "a\\r\\n<0>forged\\u{1b}[2J\\u{85}")]
        {
            let mut line = format!("<6>{text}");
            keep_one_line(&mut line, 3);
            assert_eq!(line, format!("<6>{expected}"));
        }
    }
}
