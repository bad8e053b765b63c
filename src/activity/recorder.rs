//! Decides which requests are recorded, and makes a recording fit for the disk.

use std::sync::Arc;
use std::time::Instant;

use super::redact::{cut_images, hide_keys};
use super::tap::{PLACES, Recording, RecordingMemory, Tap};

/// The requests that are recorded. A hook decides otherwise for single ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordMode {
    /// None.
    #[default]
    Off,
    /// Those that fail.
    Errors,
    /// All.
    All,
}

impl RecordMode {
    /// The values and their names on the command line.
    pub const NAMES: [(RecordMode, &'static str); 3] =
        [(RecordMode::Off, "off"), (RecordMode::Errors, "errors"), (RecordMode::All, "all")];

    /// The mode of this name.
    pub fn from_name(name: &str) -> Option<RecordMode> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(mode, _)| *mode)
    }
}

/// The settings of the recorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordOptions {
    /// The requests that are recorded.
    pub mode: RecordMode,
    /// The most bytes of all recordings on the disk; the oldest ones go.
    pub size_max: usize,
    /// True if images are kept, which otherwise are cut to their size.
    pub keeps_images: bool,
}

impl Default for RecordOptions {
    fn default() -> Self {
        RecordOptions { mode: RecordMode::Off, size_max: 256 * 1024 * 1024, keeps_images: false }
    }
}

/// The recorder that all requests share.
#[derive(Debug, Default)]
pub struct Recorder {
    options: RecordOptions,
    memory: Arc<RecordingMemory>,
}

/// A recording without keys, ready for the disk.
#[derive(Debug)]
pub struct CleanRecording {
    /// The head of the client's request as JSON.
    pub head: String,
    /// The steps, a line each.
    pub steps: String,
    /// The bytes of each place.
    pub places: [Vec<u8>; PLACES],
    /// True if a limit cut something.
    pub is_cut: bool,
    /// The keys that were taken out, for texts that are added later.
    pub known: Vec<String>,
}

impl Recorder {
    /// A recorder with these settings.
    pub fn new(options: RecordOptions) -> Self {
        Recorder { options, memory: Arc::default() }
    }

    /// The settings.
    pub fn options(&self) -> RecordOptions {
        self.options
    }

    /// Begins the recording of a request that has just come, if its kind is recorded.
    pub fn begin(&self, tap: &Tap, began: Instant) {
        if self.options.mode != RecordMode::Off {
            tap.begin(&self.memory, began);
        }
    }

    /// Does what a hook said of a request that began at this moment: records it, or does not.
    pub fn follow(&self, tap: &Tap, is_wanted: bool, began: Instant) {
        if is_wanted {
            tap.begin(&self.memory, began);
        }
        tap.with(|recording| recording.is_wanted = Some(is_wanted));
    }

    /// Ends a recording. `None`: it is not to be kept.
    pub fn end(&self, tap: &Tap, is_failed: bool) -> Option<CleanRecording> {
        let recording = tap.take()?;
        let is_kept = recording.is_wanted.unwrap_or(match self.options.mode {
            RecordMode::Off => false,
            RecordMode::Errors => is_failed,
            RecordMode::All => true,
        });
        is_kept.then(|| self.clean(recording))
    }

    fn clean(&self, mut recording: Recording) -> CleanRecording {
        let mut places = std::mem::take(&mut recording.places);
        let known = std::mem::take(&mut recording.secrets);
        // Bodies alone hold images. The parts of an answer have lengths in the steps, so they stay as they are.
        if !self.options.keeps_images {
            places.iter_mut().take(3).for_each(|body| *body = cut_images(body));
        }
        places.iter_mut().for_each(|bytes| hide_keys(bytes, &known));
        let text = |text: String| -> String {
            let mut bytes = text.into_bytes();
            hide_keys(&mut bytes, &known);
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let steps = text(recording.steps_text());
        let head = text(std::mem::take(&mut recording.head));
        CleanRecording { head, steps, places, is_cut: recording.is_cut, known }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activity::StepKind;

    #[test]
    fn the_mode_and_the_hook_decide() {
        for (mode, hook, is_failed, expected) in [
            (RecordMode::Off, None, true, false),
            (RecordMode::Off, Some(true), false, true),
            (RecordMode::Errors, None, false, false),
            (RecordMode::Errors, None, true, true),
            (RecordMode::Errors, Some(true), false, true),
            (RecordMode::All, None, false, true),
            (RecordMode::All, Some(false), true, false),
        ] {
            let recorder = Recorder::new(RecordOptions { mode, ..RecordOptions::default() });
            let tap = Tap::default();
            recorder.begin(&tap, Instant::now());
            if let Some(is_wanted) = hook {
                recorder.follow(&tap, is_wanted, Instant::now());
            }
            assert_eq!(recorder.end(&tap, is_failed).is_some(), expected, "{mode:?} {hook:?} {is_failed}");
        }
        assert_eq!(RecordMode::from_name("errors"), Some(RecordMode::Errors));
        assert_eq!(RecordMode::from_name("some"), None);
    }

    #[test]
    fn no_place_keeps_a_key() {
        let recorder = Recorder::new(RecordOptions { mode: RecordMode::All, ..RecordOptions::default() });
        let tap = Tap::default();
        recorder.begin(&tap, Instant::now());
        let key = "canary-key-of-a-client";
        tap.with(|recording| {
            recording.secrets.push(key.to_owned());
            recording.head = format!("[\"{key}\"]");
        });
        for kind in [StepKind::Request, StepKind::Hooked, StepKind::Sent, StepKind::Piece, StepKind::Answer] {
            tap.note(kind, format!("x{key}x").as_bytes(), || format!("{{\"k\":\"{key}\"}}"));
        }
        let kept = recorder.end(&tap, false).unwrap();
        assert!(!format!("{} {}", kept.head, kept.steps).contains(key));
        for bytes in &kept.places {
            assert_eq!(String::from_utf8_lossy(bytes), "x**********************x");
        }
    }
}
