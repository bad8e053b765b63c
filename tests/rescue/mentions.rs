//! Calls that are quoted, that stand in the argument of another call, or next to a call to an unknown tool, stay text, in each
//! family and wherever the text is cut. A call behind such a text is still found.

use sparkgap::settings::Settings;
use sparkgap::translate::Plan;

use super::answer::{Told, pieces, plan, told};
use super::corpus::cases;

/// A command that each family has a case with.
const COMMAND: &str = "ls -la src/";

/// The text of one call, and whether the form counts for a whole answer only.
struct Sample {
    family: String,
    title: String,
    text: String,
    is_whole_answer: bool,
}

/// The cases with the command, without the text before the calls.
fn samples() -> Vec<Sample> {
    let plan = plan("", &Settings::default());
    let cases = cases().into_iter().filter(|case| case.key == "content" && case.text.contains(COMMAND));
    let sample = |case: super::corpus::CallCase| {
        let lead = told(&plan, "content", &[&case.text], "stop").text;
        let text = case.text[lead.len()..].to_owned();
        let is_whole_answer = told(&plan, "content", &[&format!("So: {text}")], "stop").calls.is_empty();
        Sample { family: case.family, title: case.title, text, is_whole_answer }
    };
    cases.map(sample).collect()
}

/// Checks that a text has no call, whole, in single characters, and cut at each place.
fn check_text(plan: &Plan, text: &str, what: &str) {
    let whole = told(plan, "content", &[text], "stop");
    let expected = Told { text: text.to_owned(), stop_reason: "end_turn".to_owned(), ..Told::default() };
    assert_eq!(Told { early: 0, ..whole }, expected, "{what}");
    let single = told(plan, "content", &pieces(text, 1), "stop");
    assert_eq!(Told { early: 0, ..single }, expected, "{what}: in characters");
    for (at, _) in text.char_indices() {
        let cut = told(plan, "content", &[&text[..at], &text[at..]], "stop");
        assert_eq!(Told { early: 0, ..cut }, expected, "{what}: cut at {at}");
    }
}

#[test]
fn each_family_has_a_sample() {
    let samples = samples();
    for family in sparkgap::rescue::FAMILIES {
        assert!(samples.iter().any(|sample| sample.family == family.name), "{}", family.name);
    }
}

#[test]
fn a_quoted_call_stays_text() {
    let plan = plan("", &Settings::default());
    for (index, sample) in samples().iter().enumerate() {
        let quote = ["\"", "`", "&quot;", "\u{201c}"][index % 4];
        let text = format!("The model should have answered {quote}{}", sample.text);
        check_text(&plan, &text, &format!("{}: {}", sample.family, sample.title));
        // The next call of the same run is quoted as well.
        let run = format!("{text}\n{}", sample.text);
        check_text(&plan, &run, &format!("{}: {} twice", sample.family, sample.title));
    }
}

#[test]
fn a_call_in_an_argument_stays_text() {
    let plan = plan("", &Settings::default());
    let samples = samples();
    let plain = "<function=Bash>\n<parameter=command>\npwd\n</parameter>\n</function>";
    let mut seen: Vec<&str> = Vec::new();
    for outer in &samples {
        if seen.contains(&outer.family.as_str()) {
            continue;
        }
        seen.push(&outer.family);
        let (before, behind) = outer.text.split_once(COMMAND).unwrap();
        let is_in_string = behind.starts_with(['"', '\'']);
        // The last form has no tag: it begins with the name of an offered tool.
        for name in ["Write", "Create"].into_iter().take(2 - usize::from(outer.family == "named_json")) {
            let opened = format!("{}Use it so:\n", before.replace("Bash", name));
            let what = format!("{name} in {}", outer.family);
            check_text(&plan, &format!("{opened}{plain}"), &what);
            // A string cannot have the quotation marks of other forms in it.
            for inner in samples.iter().filter(|_| !is_in_string) {
                // The first of two calls closes an outer one of the same form, so that the second does not stand in it.
                if outer.family == "seed_oss" && inner.title.starts_with("two calls") {
                    continue;
                }
                let text = format!("{opened}{}", inner.text);
                let told = told(&plan, "content", &pieces(&text, 1), "stop");
                let what = format!("{what} with {}: {}", inner.family, inner.title);
                assert_eq!((told.text, told.calls.len()), (text, 0), "{what}");
            }
        }
    }
}

#[test]
fn a_call_next_to_one_of_an_unknown_tool_stays_text() {
    let plan = plan("", &Settings::default());
    for sample in samples() {
        let (good, what) = (&sample.text, format!("{}: {}", sample.family, sample.title));
        let bad = good.replace("Bash", "Nope").replace("Read", "Nope");
        check_text(&plan, &format!("{bad}\n{good}"), &format!("{what}: before"));
        check_text(&plan, &format!("{good}{bad}"), &format!("{what}: behind"));
        let between = format!("{good}\n{bad}{good}");
        for size in [1, 3, 7] {
            let told = told(&plan, "content", &pieces(&between, size), "stop");
            assert_eq!((&told.text, told.calls.len()), (&between, 0), "{what}: between");
        }
        for name in ["Bash", "Read"].into_iter().filter(|name| good.contains(name)) {
            check_text(&plan, &good.replacen(name, "Nope", 1), &format!("{what}: without {name}"));
        }
    }
}

#[test]
fn a_call_behind_a_mention_is_found() {
    let plan = plan("", &Settings::default());
    for sample in samples().iter().filter(|sample| !sample.is_whole_answer) {
        let call = &sample.text;
        let unknown = call.replace("Bash", "Nope").replace("Read", "Nope");
        for before in [
            "The tags `<tool_call>`, \"<function_calls>\" and '[TOOL_CALLS]' open calls.\n\n".to_owned(),
            "In `<function=NAME>` and `<invoke name=\"NAME\">` stands the name.\n\n".to_owned(),
            "I write a <tool_call> block:\n\n".to_owned(),
            "<tool_call> opens a call, <function=NAME> names the tool.\n\n".to_owned(),
            format!("A call looks so: `{call}`, and I make one now.\n\n"),
            format!("{unknown}\n\nThat tool does not exist, so I take another one.\n\n"),
        ] {
            let text = format!("{before}{call}");
            let whole = told(&plan, "content", &[&text], "stop");
            assert_eq!(whole.text, before, "{}: {}", sample.family, sample.title);
            assert!(!whole.calls.is_empty());
            let single = told(&plan, "content", &pieces(&text, 1), "stop");
            assert_eq!(Told { early: whole.early, ..single }, whole);
        }
    }
}

#[test]
fn more_calls_than_the_limit_stay_text() {
    let plan = plan("", &Settings::default());
    let call = "<tool_call>\n{\"name\": \"Bash\", \"arguments\": {\"command\": \"pwd\"}}\n</tool_call>\n";
    let call_count = |count: usize| {
        let text = call.repeat(count);
        let told = told(&plan, "content", &pieces(&text, 50), "stop");
        assert!(!told.calls.is_empty() || told.text == text);
        told.calls.len()
    };
    assert_eq!([256, 257, 300].map(call_count), [256, 0, 0]);
}
