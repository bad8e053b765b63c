//! A line on stderr that shows the current step of a command, and for how long it waits.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::shown::ShownText;
use crate::transport::Wait;

/// The time between two texts on how long a step waits. On a terminal they overwrite each other.
const EACH_ON_TERMINAL: Duration = Duration::from_secs(1);
const EACH_ELSEWHERE: Duration = Duration::from_secs(10);

/// The progress line. On a terminal each text overwrites the one before, and the last is erased; elsewhere each is a
/// line of its own.
pub(super) struct ProgressLine {
    is_terminal: bool,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        ProgressLine { is_terminal: io::stderr().is_terminal() }
    }

    pub(super) fn say(&self, text: &str) {
        let text = ShownText::new(text);
        let line = if self.is_terminal { format!("\r\x1b[2K{text} …") } else { format!("{text}\n") };
        // Errors are ignored, since there is no other place to report them.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    /// Erases the line. Call this before anything else is written.
    pub(super) fn clear(&self) {
        if self.is_terminal {
            let _ = io::stderr().write_all(b"\r\x1b[2K");
        }
    }
}

/// Shows the current step and, while a model is silent or slow, for how long it has been waited for.
pub(super) struct ModelWait {
    line: ProgressLine,
    step: RefCell<String>,
    began: Cell<Instant>,
    /// The time since `began` at which the next text is due.
    due: Cell<Duration>,
    each: Duration,
}

impl ModelWait {
    pub(super) fn new() -> Self {
        let line = ProgressLine::new();
        let each = if line.is_terminal { EACH_ON_TERMINAL } else { EACH_ELSEWHERE };
        let (step, began, due) = (RefCell::default(), Cell::new(Instant::now()), Cell::new(each));
        ModelWait { line, step, began, due, each }
    }

    /// Shows a new step, whose wait begins now.
    pub(super) fn begin(&self, step: String) {
        self.line.say(&step);
        self.step.replace(step);
        self.began.set(Instant::now());
        self.due.set(self.each);
    }

    /// Erases the line. Call this before anything else is written.
    pub(super) fn clear(&self) {
        self.line.clear();
    }

    /// The text of a wait that has lasted this long, and the time at which the next one is due.
    fn waited(&self, time: Duration) -> (String, Duration) {
        let seconds = time.as_secs();
        (format!("{}: waiting for the model, {seconds} s", self.step.borrow()), time + self.each)
    }
}

impl Wait for ModelWait {
    fn client(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    // Counted from the step's beginning, so that a server that sends a little now and then does not put it off.
    fn patience(&self) -> Option<Duration> {
        Some(self.due.get().saturating_sub(self.began.get().elapsed()))
    }

    fn on_silence(&self) -> io::Result<()> {
        let (text, due) = self.waited(self.began.get().elapsed());
        self.line.say(&text);
        self.due.set(due);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_with_its_step_and_its_seconds() {
        let line = ModelWait::new();
        line.begin("checking v: speed".into());
        assert!(line.patience().unwrap() <= line.each);
        let (text, due) = line.waited(Duration::from_millis(10_400));
        assert_eq!(text, "checking v: speed: waiting for the model, 10 s");
        assert!(due > Duration::from_millis(10_400));
        // A wait that is due now is told, and then not at once again.
        line.due.set(Duration::ZERO);
        assert_eq!(line.patience(), Some(Duration::ZERO));
        line.on_silence().unwrap();
        assert!(line.due.get() >= line.each);
    }
}
