//! Any text through the search for calls: every byte is shown or held, in order; the result does not depend on the cuts.
//!
//! Input: one byte for the size of the pieces and one for the place of the text, then the text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sparkgap::rescue::{CallDetector, OfferedTools, Release};

struct Tools;

impl OfferedTools for Tools {
    fn offers(&self, name: &str) -> bool {
        matches!(name, "Bash" | "f")
    }

    fn may_offer(&self, beginning: &str) -> bool {
        ["Bash", "f"].iter().any(|name| name.starts_with(beginning) || beginning.starts_with(name))
    }
}

/// The text that is shown, the size of the text that stays held, and the calls in it.
fn run(text: &str, size: usize, is_part: bool) -> (String, usize, Option<String>) {
    let mut detector = CallDetector::new(is_part);
    let mut shown = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = (size.min(rest.len())..=rest.len()).find(|end| rest.is_char_boundary(*end)).unwrap();
        let (piece, after) = rest.split_at(end);
        match detector.push(piece, &Tools) {
            Release::Pushed => shown.push_str(piece),
            Release::Ready => {
                shown.push_str(detector.ready());
                detector.clear_ready();
            }
            Release::Nothing => {}
        }
        assert!(text.starts_with(&shown));
        rest = after;
    }
    let (held, calls) = (detector.held_size(), detector.calls().map(|(calls, _)| format!("{calls:?}")));
    assert_eq!(shown.len() + held, text.len());
    if detector.release() == Release::Ready {
        shown.push_str(detector.ready());
        detector.clear_ready();
    }
    (shown, held, calls)
}

fuzz_target!(|input: &[u8]| {
    let [size, place, text @ ..] = input else { return };
    let text = String::from_utf8_lossy(text);
    let whole = run(&text, text.len().max(1), place % 2 == 1);
    assert_eq!(whole.0, text);
    assert_eq!(run(&text, usize::from(*size).max(1), place % 2 == 1), whole);
});
