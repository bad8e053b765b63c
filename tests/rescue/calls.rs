//! Calls are recovered whole, cut at every character, and never wrongly from a truncated text.

use sparkgap::rescue::FAMILIES;
use sparkgap::settings::Settings;

use super::answer::{Told, answer, delta, pieces, plan, told};
use super::corpus::{CallCase, cases};

/// True if the answer has the calls of the case, and everything that one who reads it needs to know is right.
fn is_recovered(case: &CallCase, told: &Told) -> bool {
    told.calls == case.calls
        && told.stop_reason == "tool_use"
        && told.rescued == case.calls.len()
        && told.family.is_some()
}

#[test]
fn the_corpus_is_recovered_cut_at_every_character() {
    let plan = plan("", &Settings::default());
    let cases = cases();
    let mut failed = Vec::new();
    for case in &cases {
        let whole = told(&plan, case.key, &[&case.text], "stop");
        let lead = if case.key == "content" { &whole.text } else { &whole.thinking };
        let is_lead = case.text.starts_with(lead.as_str());
        let mut is_right = is_recovered(case, &whole) && is_lead;
        for size in [1, 2, 3, 7] {
            let told = told(&plan, case.key, &pieces(&case.text, size), "stop");
            is_right &= Told { early: whole.early, ..told } == whole;
        }
        for (at, _) in case.text.char_indices() {
            let cut = told(&plan, case.key, &[&case.text[..at], &case.text[at..]], "stop");
            is_right &= Told { early: whole.early, ..cut } == whole;
        }
        if !is_right {
            failed.push(format!("{}: {}: {whole:?}", case.family, case.title));
        }
    }
    assert!(cases.len() >= 120, "{}", cases.len());
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[test]
fn each_family_has_cases_and_is_the_one_that_reads_them() {
    let plan = plan("", &Settings::default());
    let cases = cases();
    for family in FAMILIES {
        let mut own = cases.iter().filter(|case| case.family == family.name).peekable();
        assert!(own.peek().is_some(), "{} has no case", family.name);
        let is_own =
            |case: &CallCase| told(&plan, case.key, &[&case.text], "stop").family == Some(family.name);
        assert!(own.any(is_own), "{} reads none of its cases", family.name);
    }
}

#[test]
fn a_truncated_text_gives_no_wrong_call_and_loses_nothing() {
    let plan = plan("", &Settings::default());
    for case in cases().iter().filter(|case| case.key == "content") {
        let whole = told(&plan, case.key, &[&case.text], "stop");
        for (at, _) in case.text.char_indices().skip(1) {
            let text = &case.text[..at];
            // The model ended by itself: calls that were complete count, if nothing else follows them.
            let ended = told(&plan, case.key, &[text], "stop");
            if ended.calls.is_empty() {
                assert_eq!(ended.text.trim_end(), text.trim_end(), "{}: {}", case.family, case.title);
                assert_eq!((ended.rescued, ended.stop_reason.as_str()), (0, "end_turn"));
            } else {
                assert!(case.calls.starts_with(&ended.calls), "{}: {}: {ended:?}", case.family, case.title);
                assert_eq!(ended.text, whole.text);
            }
            // The limit ended the answer: no call counts.
            let cut = told(&plan, case.key, &[text], "length");
            assert_eq!(cut.text.trim_end(), text.trim_end(), "{}: {}", case.family, case.title);
            assert_eq!((cut.calls.len(), cut.stop_reason.as_str()), (0, "max_tokens"));
        }
    }
}

/// The text of the case with this call at the end.
const CALL: &str = "<tool_call>\n{\"name\": \"Bash\", \"arguments\": {\"command\": \"pwd\"}}\n</tool_call>";

#[test]
fn a_call_counts_only_under_the_conditions() {
    let default = plan("", &Settings::default());
    let off = plan("", &Settings { rescue_tool_calls: false, ..Settings::default() });
    let none = plan(r#","tool_choice":{"type":"none"}"#, &Settings::default());
    let forced = plan(r#","tool_choice":{"type":"tool","name":"Read"}"#, &Settings::default());
    let exact = plan("", &Settings { coerce_arguments: false, ..Settings::default() });
    for (what, plan, text, finish) in [
        ("off", &off, CALL.to_owned(), "stop"),
        ("the client forbids calls", &none, CALL.to_owned(), "stop"),
        ("the client chose another tool", &forced, CALL.to_owned(), "stop"),
        ("values keep their types", &exact, CALL.replace("\"pwd\"", "\"pwd\", \"timeout\": \"5\""), "stop"),
        ("a second call only begins", &default, format!("{CALL}\n<tool_call>\n"), "stop"),
        ("text stands between two calls", &default, format!("{CALL}\nand\n`{CALL}"), "stop"),
        ("a quotation mark precedes", &default, format!("Write \u{201c}{CALL}"), "stop"),
        ("another one precedes", &default, format!("Schreib \u{201e}{CALL}"), "stop"),
        ("one of HTML precedes", &default, format!("Write &quot;{CALL}"), "stop"),
        ("text follows", &default, format!("{CALL}\nDone."), "stop"),
        ("a backtick precedes", &default, format!("Write `{CALL}"), "stop"),
        ("the answer was cut", &default, CALL.to_owned(), "length"),
        ("the server filtered", &default, CALL.to_owned(), "content_filter"),
        ("unknown tool", &default, CALL.replace("Bash", "Bosh"), "stop"),
        ("wrong type", &default, CALL.replace("\"pwd\"", "[1]"), "stop"),
        ("a required argument is missing", &default, CALL.replace("\"command\": \"pwd\"", ""), "stop"),
        ("an unknown argument", &default, CALL.replace("\"command\"", "\"command\": \"a\", \"x\""), "stop"),
        ("JSON behind text", &default, format!("Here: {}", &CALL[12..CALL.len() - 13]), "stop"),
        ("one of two is wrong", &default, format!("{CALL}\n{}", CALL.replace("Bash", "Read")), "stop"),
    ] {
        for size in [1, 4, 999] {
            let told = told(plan, "content", &pieces(&text, size), finish);
            assert_eq!((told.calls.len(), told.rescued), (0, 0), "{what}");
            assert_eq!(told.text, text, "{what}");
        }
    }
}

#[test]
fn one_line_break_of_either_kind_is_taken_from_a_value() {
    let plan = plan("", &Settings::default());
    for end in ["\n", "\r\n"] {
        let text = format!(
            "<tool_call>{end}<function=Bash>{end}<parameter=command>{end}a{end}b{end}{end}</parameter>{end}</function>{end}</tool_call>"
        );
        let told = told(&plan, "content", &[&text], "stop");
        let end = end.escape_debug();
        assert_eq!(told.calls, [("Bash".to_owned(), format!("{{\"command\":\"a{end}b{end}\"}}"))]);
    }
}

#[test]
fn a_server_that_recognizes_calls_is_believed() {
    let plan = plan("", &Settings::default());
    let call = r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"Ping","arguments":"{}"}}]}"#;
    for deltas in [[delta("content", CALL), call.to_owned()], [call.to_owned(), delta("content", CALL)]] {
        let told = answer(&plan, deltas.into_iter(), "tool_calls");
        assert_eq!(told.text, CALL);
        assert_eq!(told.calls, [("Ping".to_owned(), "{}".to_owned())]);
        assert_eq!(told.rescued, 0);
    }
}

#[test]
fn a_call_in_reasoning_counts_only_without_an_answer() {
    let plan = plan("", &Settings::default());
    let reasoning = delta("reasoning", &format!("Hm.\n{CALL}"));
    let blank = answer(&plan, [reasoning.clone(), delta("content", "\n\n")].into_iter(), "stop");
    assert_eq!((blank.calls.len(), blank.thinking.as_str(), blank.text.as_str()), (1, "Hm.\n", ""));
    let answered = answer(&plan, [reasoning.clone(), delta("content", "\n\nHi")].into_iter(), "stop");
    assert_eq!((answered.calls.len(), answered.thinking), (0, format!("Hm.\n{CALL}")));
    assert_eq!(answered.text.trim_start(), "Hi");
    let goes_on = answer(&plan, [reasoning.clone(), delta("reasoning", " or not")].into_iter(), "stop");
    assert_eq!((goes_on.calls.len(), goes_on.thinking), (0, format!("Hm.\n{CALL} or not")));
    // The call in the text counts, and the reasoning is shown as it is.
    let both = answer(&plan, [reasoning, delta("content", CALL)].into_iter(), "stop");
    assert_eq!((both.calls.len(), both.thinking), (1, format!("Hm.\n{CALL}")));
}

#[test]
fn stop_sequences_count_in_text_and_not_in_calls() {
    let plan = plan(r#","stop_sequences":["pwd"]"#, &Settings::default());
    let taken = told(&plan, "content", &pieces(CALL, 3), "stop");
    assert_eq!((taken.calls.len(), taken.stop_reason.as_str()), (1, "tool_use"));
    let shown = told(&plan, "content", &pieces(&format!("{CALL} so"), 3), "stop");
    assert_eq!((shown.calls.len(), shown.stop_reason.as_str()), (0, "stop_sequence"));
    assert_eq!(shown.text, CALL.split_once("pwd").unwrap().0);
}

#[test]
fn only_one_call_is_passed_on_if_the_client_wants_one() {
    let plan =
        plan(r#","tool_choice":{"type":"auto","disable_parallel_tool_use":true}"#, &Settings::default());
    let told = told(&plan, "content", &[&format!("{CALL}\n{CALL}")], "stop");
    assert_eq!(told.calls.len(), 1);
}
