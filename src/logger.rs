//! The backend of `log`: writes lines to stderr, with the time, or with the journal's priorities under systemd.
//!
//! The levels: ERROR, the operator must act. WARN, a doubtful configuration, something that the translation dropped, or a
//! request that failed. INFO, the start, the stop, and one line per request. DEBUG, stages. TRACE, unredacted bodies.
//!
//! A thread of its own writes the lines, so that a stderr that nobody reads stops nothing. Lines that it does not take
//! are dropped and counted.

mod limited;
mod queue;

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::json::{Object, Value};
use crate::shown::{ShownText, plain_json};
use crate::{service, threads};
pub use limited::LimitedLines;
use queue::LineQueue;

/// Room for the line of a request, in bytes.
const LINE_SIZE: usize = 256;

/// How much of what is said is written, in bytes; all of it at the level trace, which is for bodies. Texts of clients and
/// upstreams are shorter already ([`ShownText`]); a hook may write whatever it likes.
const TEXT_SIZE_MAX: usize = 4096;

/// The lines that wait to be written, once logging has started.
static LINES: OnceLock<LineQueue> = OnceLock::new();

/// The level that the operator chose at the start.
static CHOSEN: OnceLock<LevelFilter> = OnceLock::new();

/// The form that the operator chose at the start.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

fn format() -> LogFormat {
    FORMAT.get().copied().unwrap_or_default()
}

/// Writes a line about a request. As JSON it has the request's record as well, which `value` makes.
pub fn log_request(level: Level, text: fmt::Arguments<'_>, value: impl FnOnce() -> Value<'static>) {
    if level > log::max_level() {
        return;
    }
    match (format(), LINES.get()) {
        (LogFormat::Json, Some(lines)) => lines.push(json_line(level, text, Some(value())).as_bytes()),
        _ => log::log!(level, "{text}"),
    }
}

struct Logger {
    /// `None`: no thread could be started, so each line is written at once.
    lines: Option<&'static LineQueue>,
}

/// The form of the log's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("'{text}' is not a format of the log; use text or json")),
        }
    }
}

/// Starts logging. Under systemd each line begins with its priority instead of the time.
pub fn start(level: LevelFilter, format: LogFormat) {
    // A second start happens in tests, and keeps the first logger.
    if log::max_level() != LevelFilter::Off {
        return;
    }
    let lines = LINES.get_or_init(|| LineQueue::new(lost_line));
    let writer = threads::background("log", || lines.write_all(write_whole));
    let logger = Logger { lines: writer.is_ok().then_some(lines) };
    let _ = FORMAT.set(format);
    let _ = CHOSEN.set(level);
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
}

/// Changes the level to the next one of these: the chosen one, debug, trace, and the chosen one again. Returns it.
pub fn next_level() -> LevelFilter {
    let chosen = CHOSEN.get().copied().unwrap_or(LevelFilter::Info);
    let next = next_after(log::max_level(), chosen);
    log::set_max_level(next);
    next
}

fn next_after(now: LevelFilter, chosen: LevelFilter) -> LevelFilter {
    match now {
        LevelFilter::Trace => chosen,
        LevelFilter::Debug => LevelFilter::Trace,
        _ => LevelFilter::Debug,
    }
}

/// The lines of a text that is written to stderr without the logger: errors, with their priority if stderr is the
/// journal.
pub fn as_errors(text: &str) -> String {
    if !service::stderr_is_journal() {
        return text.to_owned();
    }
    let priority = priority(Level::Error);
    text.split_inclusive('\n').map(|line| format!("<{priority}>{line}")).collect()
}

/// Waits until all lines are written. The end of the program must call it.
pub fn flush() {
    log::logger().flush();
}

/// The number of lines dropped since the start, because stderr took none for too long.
pub fn lost_lines() -> u64 {
    LINES.get().map_or(0, LineQueue::lost)
}

/// The line that stands in the place of dropped ones.
fn lost_line(count: u64) -> String {
    line(Level::Warn, format_args!("{count} log lines were dropped here: stderr took none for too long"))
}

/// Writes a whole piece to stderr. Does not use std's stderr, whose lock other threads may hold.
fn write_whole(mut piece: &[u8]) -> std::io::Result<()> {
    let stderr = std::io::stderr();
    while !piece.is_empty() {
        match rustix::io::write(&stderr, piece) {
            Ok(count) => piece = piece.get(count..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            // Whoever shares this stderr has made it nonblocking.
            Err(rustix::io::Errno::AGAIN) => {
                rustix::event::poll(
                    &mut [rustix::event::PollFd::new(&stderr, rustix::event::PollFlags::OUT)],
                    None,
                )?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
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

fn is_journal() -> bool {
    static IS_JOURNAL: OnceLock<bool> = OnceLock::new();
    *IS_JOURNAL.get_or_init(service::stderr_is_journal)
}

/// A whole line in JSON, with its end. Under systemd its priority comes first, which the journal takes off.
fn json_line(level: Level, text: fmt::Arguments<'_>, request: Option<Value<'_>>) -> String {
    let mut message = String::with_capacity(LINE_SIZE);
    let _ = message.write_fmt(text);
    fit(&mut message, 0, if level == Level::Trace { usize::MAX } else { TEXT_SIZE_MAX });
    let mut object = Object::new();
    object.push("time", humantime::format_rfc3339_millis(SystemTime::now()).to_string());
    object.push("level", level.as_str().to_ascii_lowercase());
    object.push("message", message);
    if let Some(request) = request {
        object.push("request", request);
    }
    let json = object.to_json();
    let start = if is_journal() { format!("<{}>", priority(level)) } else { String::new() };
    format!("{start}{}\n", plain_json(&json))
}

/// A whole line with its end.
fn line(level: Level, text: fmt::Arguments<'_>) -> String {
    if format() == LogFormat::Json {
        return json_line(level, text, None);
    }
    let mut line = String::with_capacity(LINE_SIZE);
    let _ = match is_journal() {
        true => write!(line, "<{}>", priority(level)),
        false => {
            let time = humantime::format_rfc3339_millis(SystemTime::now());
            write!(line, "{time} {level:5} ")
        }
    };
    let start = line.len();
    let _ = line.write_fmt(text);
    fit(&mut line, start, if level == Level::Trace { usize::MAX } else { TEXT_SIZE_MAX });
    line.push('\n');
    line
}

/// Makes the text from `start` on fit one line of at most `size_max` bytes.
fn fit(line: &mut String, start: usize, size_max: usize) {
    let text = line.get(start..).unwrap_or_default();
    let shown = ShownText::within(text, size_max);
    if !shown.is_plain() {
        let shown = shown.to_string();
        line.truncate(start);
        line.push_str(&shown);
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // A library dumps whole requests at this level, with the keys in their headers.
        if record.level() == Level::Trace && !record.target().starts_with(env!("CARGO_CRATE_NAME")) {
            return;
        }
        let line = line(record.level(), *record.args());
        match self.lines {
            Some(lines) => lines.push(line.as_bytes()),
            // A failure cannot be reported anywhere, so it is ignored.
            None => _ = write_whole(line.as_bytes()),
        }
    }

    fn flush(&self) {
        if let Some(lines) = self.lines {
            lines.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_an_end() {
        let mut line = format!("<6>{}", "é".repeat(TEXT_SIZE_MAX));
        fit(&mut line, 3, TEXT_SIZE_MAX);
        assert_eq!(line, format!("<6>{}…", "é".repeat(TEXT_SIZE_MAX / 2)));
        let mut line = format!("<6>{}", "a".repeat(TEXT_SIZE_MAX));
        fit(&mut line, 3, TEXT_SIZE_MAX);
        assert_eq!(line.len(), 3 + TEXT_SIZE_MAX);
    }

    #[test]
    fn json_is_one_object_a_line_without_commands() {
        let request = Value::object([("model", "a\u{1b}[2J\u{202e}\u{e0041}\n\"".into())]);
        let line = json_line(Level::Warn, format_args!("x\u{7f}\ny"), Some(request));
        let json = line.trim_end_matches('\n');
        assert!(json.is_ascii() && !json.bytes().any(|byte| byte.is_ascii_control()), "{json}");
        let read: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!((&read["level"], &read["message"]), (&"warn".into(), &"x\\u{7f}\\ny".into()));
        assert_eq!(read["request"]["model"], "a\u{1b}[2J\u{202e}\u{e0041}\n\"", "the text itself is kept");
        let long = json_line(Level::Info, format_args!("{}", "x".repeat(10 * TEXT_SIZE_MAX)), None);
        assert!(long.len() < TEXT_SIZE_MAX + 100, "{}", long.len());
        assert!("yaml".parse::<LogFormat>().is_err_and(|error| error.contains("text or json")));
    }

    #[test]
    fn the_level_goes_round() {
        use LevelFilter::{Debug, Info, Off, Trace, Warn};
        for (chosen, round) in
            [(Info, [Debug, Trace, Info]), (Warn, [Debug, Trace, Warn]), (Off, [Debug, Trace, Off])]
        {
            let mut level = chosen;
            for expected in round {
                level = next_after(level, chosen);
                assert_eq!(level, expected);
            }
        }
        assert_eq!(next_after(Trace, Debug), Debug);
    }

    #[test]
    fn a_body_stays_whole_and_one_line() {
        let line = line(Level::Trace, format_args!("{}\n\u{202e}", "a".repeat(2 * TEXT_SIZE_MAX)));
        assert!(line.ends_with("a\\n\\u{202e}\n") && line.len() > 2 * TEXT_SIZE_MAX, "{line}");
        assert_eq!(line.matches('\n').count(), 1);
    }
}
