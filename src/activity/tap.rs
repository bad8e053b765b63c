//! One tap in a request, which notes the bytes that pass at five places, with their times: the client's body, the same after
//! hooks, the upstream's body, the upstream's bytes, and the client's bytes.
//!
//! A tap that is off costs one check. One that is on copies bytes into memory, within limits; nothing is written to the disk
//! before the request has ended. The steps that are not bytes (a ping, an error) say why the client's bytes are as they are,
//! so that the answer can be translated again from the recording alone.

use std::cell::{OnceCell, RefCell};
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// The most bytes that the recording of one request takes. A request of a million tokens has 4 MB, twice, and its answer
/// less. More of it is cut, and the recording says so.
pub const RECORDING_SIZE_MAX: usize = 16 * 1024 * 1024;

/// The most bytes of all recordings of requests in progress together.
const HELD_SIZE_MAX: usize = 128 * 1024 * 1024;

/// The memory that a step takes beside its facts.
const STEP_SIZE: usize = size_of::<TapStep>();

/// The kind of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// The body of the client's request.
    Request,
    /// The same after `on_request`, if the hook changed it.
    Hooked,
    /// A body was sent to an upstream. Only the last one is kept.
    Sent,
    /// The upstream refused; its body.
    Refusal,
    /// A part of the upstream's stream; an empty one is its end.
    Piece,
    /// The upstream's answer as one JSON object.
    Whole,
    /// Bytes of the body of the client's answer.
    Answer,
    /// The upstream that is asked, its model and settings.
    Target,
    /// The translation of an answer began.
    Expect,
    /// The limits of the request changed.
    Limits,
    /// The answer was begun in silence.
    Open,
    /// The client got a ping.
    Ping,
    /// The client got the usage so far.
    Usage,
    /// The answer ended with an error.
    Failed,
    /// A block of a web search that the model asked for.
    Search,
    /// The searches of an answer are made; the next round may follow.
    Round,
    /// The status and the type of an upstream's answer that passes as it is.
    Head,
}

/// The number of places at which bytes are kept.
pub const PLACES: usize = 5;

impl StepKind {
    /// All kinds, each with its mark in the text of a recording and the place of its bytes.
    const ALL: [(StepKind, char, Option<usize>); 17] = [
        (StepKind::Request, 'i', Some(0)),
        (StepKind::Hooked, 'm', Some(1)),
        (StepKind::Sent, 'b', Some(2)),
        (StepKind::Refusal, 'r', Some(3)),
        (StepKind::Piece, 'u', Some(3)),
        (StepKind::Whole, 'w', Some(3)),
        (StepKind::Answer, 'c', Some(4)),
        (StepKind::Target, 'k', None),
        (StepKind::Expect, 'e', None),
        (StepKind::Limits, 's', None),
        (StepKind::Open, 'o', None),
        (StepKind::Ping, 'p', None),
        (StepKind::Usage, 't', None),
        (StepKind::Failed, 'x', None),
        (StepKind::Search, 'q', None),
        (StepKind::Round, 'n', None),
        (StepKind::Head, 'h', None),
    ];

    fn row(self) -> (char, Option<usize>) {
        Self::ALL.iter().find(|row| row.0 == self).map_or(('?', None), |row| (row.1, row.2))
    }

    /// The kind with this mark.
    pub fn of_mark(mark: char) -> Option<StepKind> {
        Self::ALL.iter().find(|row| row.1 == mark).map(|row| row.0)
    }

    /// True for bytes of an upstream's answer.
    pub fn is_of_upstream(self) -> bool {
        matches!(self, StepKind::Refusal | StepKind::Piece | StepKind::Whole)
    }

    /// The index of the place that its bytes are kept at.
    pub fn place(self) -> Option<usize> {
        self.row().1
    }
}

/// One step of a request.
#[derive(Debug)]
struct TapStep {
    kind: StepKind,
    /// Microseconds since the head of the request was here.
    at: u64,
    size: usize,
    facts: String,
}

/// The memory of all recordings in progress.
#[derive(Debug, Default)]
pub struct RecordingMemory(AtomicUsize);

/// The steps of one request so far.
#[derive(Debug)]
pub struct Recording {
    memory: Arc<RecordingMemory>,
    began: Instant,
    /// The bytes of each place, by [`StepKind::place`].
    pub places: [Vec<u8>; PLACES],
    steps: Vec<TapStep>,
    held: usize,
    /// True if something was left out because it exceeded a limit.
    pub is_cut: bool,
    /// The decision of a hook, if one made it: true to keep this recording, false to drop it.
    pub is_wanted: Option<bool>,
    /// The keys that the request and its upstreams used. They are replaced before anything is written.
    pub secrets: Vec<String>,
    /// The head of the client's request as JSON.
    pub head: String,
}

impl Recording {
    fn new(memory: &Arc<RecordingMemory>, began: Instant) -> Self {
        Recording {
            memory: Arc::clone(memory),
            began,
            places: Default::default(),
            steps: Vec::new(),
            held: 0,
            is_cut: false,
            is_wanted: None,
            secrets: Vec::new(),
            head: String::new(),
        }
    }

    /// Holds memory for `size` more bytes. Returns how many of them there is room for.
    fn hold(&mut self, size: usize) -> usize {
        let room = size.min(RECORDING_SIZE_MAX.saturating_sub(self.held));
        let before = self.memory.0.fetch_add(room, Ordering::Relaxed);
        let fits = room.min(HELD_SIZE_MAX.saturating_sub(before));
        self.memory.0.fetch_sub(room - fits, Ordering::Relaxed);
        self.held += fits;
        self.is_cut |= fits < size;
        fits
    }

    /// Notes a step, its bytes, and facts about it as one line of JSON.
    pub fn add(&mut self, kind: StepKind, bytes: &[u8], facts: String) {
        let (size, needed) = (bytes.len(), STEP_SIZE + facts.len());
        if self.hold(needed) < needed {
            return;
        }
        let mut kept = 0;
        if let Some(place) = kind.place() {
            if kind == StepKind::Sent {
                let earlier = std::mem::take(&mut self.places[2]);
                self.held -= earlier.len();
                self.memory.0.fetch_sub(earlier.len(), Ordering::Relaxed);
            }
            kept = self.hold(size);
            if let Some(place) = self.places.get_mut(place) {
                place.extend_from_slice(bytes.get(..kept).unwrap_or_default());
            }
        }
        let at = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.steps.push(TapStep { kind, at, size: kept, facts });
    }

    /// The steps as text, a line each: microseconds, mark, number of bytes, and facts as JSON.
    pub fn steps_text(&self) -> String {
        let mut text = String::new();
        for TapStep { kind, at, size, facts } in &self.steps {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{at} {} {size} {facts}", kind.row().0);
        }
        text
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.held, Ordering::Relaxed);
    }
}

/// The tap of one request, shared by its stages. It is off until [`Tap::begin`].
#[derive(Clone, Debug, Default)]
pub struct Tap(OnceCell<Rc<RefCell<Option<Recording>>>>);

impl Tap {
    /// Begins to record, if that has not begun yet. `began`: the moment at which the head of the request was here.
    pub fn begin(&self, memory: &Arc<RecordingMemory>, began: Instant) {
        let _ = self.0.get_or_init(|| Rc::new(RefCell::new(Some(Recording::new(memory, began)))));
    }

    /// True if the request is being recorded.
    pub fn is_on(&self) -> bool {
        self.0.get().is_some()
    }

    /// Changes the recording, if there is one.
    pub fn with(&self, change: impl FnOnce(&mut Recording)) {
        if let Some(recording) = self.0.get() {
            recording.borrow_mut().as_mut().map(change);
        }
    }

    /// Notes bytes that pass.
    pub fn bytes(&self, kind: StepKind, bytes: &[u8]) {
        self.with(|recording| recording.add(kind, bytes, String::new()));
    }

    /// Notes a step, its bytes, and facts about it as one line of JSON.
    pub fn note(&self, kind: StepKind, bytes: &[u8], facts: impl FnOnce() -> String) {
        self.with(|recording| recording.add(kind, bytes, facts()));
    }

    /// Ends the recording and returns it.
    pub fn take(&self) -> Option<Recording> {
        self.0.get()?.borrow_mut().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_has_a_limit_and_gives_its_memory_back() {
        let memory = Arc::new(RecordingMemory::default());
        let tap = Tap::default();
        tap.bytes(StepKind::Request, b"before it began");
        tap.begin(&memory, Instant::now());
        let shared = tap.clone();
        shared.bytes(StepKind::Request, &vec![b'x'; RECORDING_SIZE_MAX - 1000]);
        shared.bytes(StepKind::Answer, &[b'y'; 2000]);
        for _ in 0..100_000 {
            shared.bytes(StepKind::Ping, b"");
        }
        let recording = tap.take().unwrap();
        assert!(recording.is_cut && recording.held <= RECORDING_SIZE_MAX);
        assert_eq!(recording.places[0].len(), RECORDING_SIZE_MAX - 1000);
        assert!(recording.places[4].len() < 1000 && recording.steps.len() < 50, "{}", recording.steps.len());
        assert_eq!(memory.0.load(Ordering::Relaxed), recording.held);
        drop(recording);
        assert_eq!(memory.0.load(Ordering::Relaxed), 0);
        assert!(shared.take().is_none());
    }

    #[test]
    fn all_recordings_have_a_limit_together() {
        let memory = Arc::new(RecordingMemory::default());
        let taps: Vec<Tap> = (0..12).map(|_| Tap::default()).collect();
        for tap in &taps {
            tap.begin(&memory, Instant::now());
            tap.bytes(StepKind::Request, &vec![b'x'; RECORDING_SIZE_MAX - 100]);
        }
        assert!(memory.0.load(Ordering::Relaxed) <= HELD_SIZE_MAX);
        assert!(taps.last().unwrap().take().unwrap().is_cut);
        drop(taps);
        assert_eq!(memory.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn only_the_last_body_for_an_upstream_is_kept() {
        let memory = Arc::new(RecordingMemory::default());
        let tap = Tap::default();
        tap.begin(&memory, Instant::now());
        tap.bytes(StepKind::Sent, b"first");
        tap.note(StepKind::Sent, b"second", || "{}".to_owned());
        let recording = tap.take().unwrap();
        assert_eq!(recording.places[2], b"second");
        assert!(recording.steps_text().ends_with(" b 6 {}\n"), "{}", recording.steps_text());
        assert_eq!(StepKind::of_mark('b'), Some(StepKind::Sent));
    }
}
