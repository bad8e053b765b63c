//! Random texts out of pieces of calls.

use sparkgap::rescue::{CallDetector, OfferedTools, Release};

use super::answer::pieces;

/// Numbers from a seed (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }
}

/// Tools by their whole names.
struct Names(&'static [&'static str]);

impl OfferedTools for Names {
    fn offers(&self, name: &str) -> bool {
        self.0.contains(&name)
    }

    fn may_offer(&self, beginning: &str) -> bool {
        self.0.iter().any(|name| name.starts_with(beginning) || beginning.starts_with(name))
    }
}

/// Pieces of all forms, of Markdown, code and prose.
const PIECES: [&str; 64] = [
    "<tool_call>",
    "</tool_call>",
    "<function=",
    "</function>",
    "<parameter=",
    "</parameter>",
    "<invoke name=\"",
    "</invoke>",
    "<parameter name=\"",
    "\">",
    ">",
    "<function_calls>",
    "</function_calls>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
    "<|tool_calls_section_begin|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "function<｜tool▁sep｜>",
    "<｜tool▁sep｜>",
    "<｜DSML｜invoke name=\"",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<|python_tag|>",
    "<|channel|>commentary to=functions.",
    "<|message|>",
    "<TOOLCALL>",
    "<tool_calls>",
    "<minimax:tool_call>",
    "<seed:tool_call>",
    "<|tool_call_start|>[",
    "```json\n",
    "```",
    "{\"name\": \"",
    "\", \"arguments\": ",
    "{\"command\": \"ls\"}",
    "}",
    "{",
    "[",
    "]",
    "(",
    ")",
    "=",
    ",",
    "\"",
    "'",
    "\\",
    "Bash",
    "f",
    "command",
    "ls -la",
    " ",
    "\n",
    "\n\n",
    "text ",
    "é",
    "<",
    "😀",
    "<|im_end|>",
];

fn text(random: &mut Random) -> String {
    (0..=random.below(24)).map(|_| PIECES[random.below(PIECES.len())]).collect()
}

/// Runs a text through the detector. Returns the text that is shown, the text that stays held, and the number of calls in
/// it.
fn run(pieces: &[&str], is_part: bool, tools: &Names) -> (String, usize, usize) {
    let mut detector = CallDetector::new(is_part);
    let mut shown = String::new();
    for piece in pieces {
        match detector.push(piece, tools) {
            Release::Pushed => shown.push_str(piece),
            Release::Ready => {
                shown.push_str(detector.ready());
                detector.clear_ready();
            }
            Release::Nothing => {}
        }
    }
    let (held, calls) = (detector.held_size(), detector.calls().map_or(0, |(calls, _)| calls.len()));
    assert!(calls == 0 || held > 0);
    if detector.release() == Release::Ready {
        shown.push_str(detector.ready());
        detector.clear_ready();
    }
    assert!(!detector.is_holding());
    (shown, held, calls)
}

/// Text stays as it is, and the result does not depend on the cuts. Without an offered tool nothing is a call.
fn check(seed: u64, texts: usize) -> usize {
    let mut random = Random(seed);
    let mut found = 0;
    for _ in 0..texts {
        let text = text(&mut random);
        let (size, is_part) = (1 + random.below(9), random.below(4) == 0);
        let offered = Names(&["Bash", "f"]);
        let whole = run(&[&text], is_part, &offered);
        assert_eq!(whole.0, text);
        assert_eq!(run(&pieces(&text, size), is_part, &offered), whole, "{text:?} by {size}");
        let (shown, _, calls) = run(&pieces(&text, size), is_part, &Names(&["Glob", "Write"]));
        assert_eq!((shown, calls), (text, 0));
        found += calls + usize::from(whole.2 > 0);
    }
    found
}

#[test]
fn random_texts_are_not_changed() {
    assert!(check(1, 100_000) > 0, "no random text is a call, so the pieces are not those of calls");
}

#[test]
#[ignore = "takes minutes without optimization"]
fn a_million_random_texts_are_not_changed() {
    check(2, 1_000_000);
}
