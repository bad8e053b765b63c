//! Reads every document whole, byte by byte, in every two pieces, and cut, and checks the result of each.

use super::*;
use crate::json::Value;

/// Documents that pass unchanged.
const VALID: &[&str] = &[
    "{ }",
    "{\"a\":1}",
    "{\"a\" : 1 , \"b\" : [ 1 , 2 ] }",
    "{\"a\":-0,\"b\":0.5,\"c\":-1.5e+10,\"d\":1E-3,\"e\":0}",
    "{\"a\":true,\"b\":false,\"c\":null}",
    "{\"a\":[true,false,null,[],{},[[]],\"\"]}",
    "{\"a\":\"\"}",
    "{\"\":\"\"}",
    "{\"a\":\"x\\\"y\\\\z\\/\\b\\f\\n\\r\\t\"}",
    "{\"a\":\"\\u00e9\\u0000\\ud83d\\ude00!\"}",
    "{\"k\\u00e9\\ud83d\\ude00y\":\"v\"}",
    "{\"café\":\"naïve 日本語 😀 \u{7f}\u{2028}\"}",
    "{\"a\":{\"b\":{\"c\":{\"d\":[{\"e\":[1]}]}}}}",
    "{\"a\":{\"a\":1}}",
    "{\"a\":[{\"a\":[{\"a\":1}]}]}",
    "{\n  \"path\": \"/tmp/x\",\n\t\"edits\": [\n    {\"old\": \"a\", \"new\": \"b\"}\n  ]\r\n}",
    "{\"code\":\"fn main() {\\n    println!(\\\"{}\\\", 1);\\n}\"}",
    "{\"json\":\"{\\\"a\\\":[1,2,{\\\"b\\\":null}]}\"}",
    "{\"a\":1,\"a\":2}",
    "{\"a\":12345678901234567890123456789012345678901234567890}",
    "{\"a\":0.1000000000000000055511151231257827021181583404541015625}",
    "{\"{\":1,\"}\":2,\"[\":3,\",\":4,\":\":5}",
    "{\"a\":\"{\"}",
    "{\"_raw_arguments\":\"x\"}",
    "{\"a\":\"C:\\\\users\\\\x\"}",
    "{\"a\":5e-324,\"b\":1.7976931348623157e308,\"c\":-9223372036854775808,\"d\":18446744073709551615}",
];

/// Documents that need a repair, or cannot be repaired, each with its result (whole, not truncated).
const BROKEN: &[(&str, Outcome, &str)] = &[
    // Text around the object.
    ("", Outcome::Empty, ""),
    (" \n\t", Outcome::Empty, ""),
    ("null", Outcome::Empty, ""),
    (" null ", Outcome::Empty, ""),
    ("\"\"", Outcome::Empty, ""),
    ("{}", Outcome::Complete, "{}"),
    (" \n{\"a\":1}\r\n ", Outcome::Complete, "{\"a\":1}"),
    ("{\"a\":1}}", Outcome::Complete, "{\"a\":1}"),
    ("{\"a\":1} thanks", Outcome::Complete, "{\"a\":1}"),
    ("{\"a\":1}{\"a\":1}", Outcome::Complete, "{\"a\":1}"),
    ("{}{\"a\":1}", Outcome::Complete, "{\"a\":1}"),
    ("{} {} {\"a\":1}", Outcome::Complete, "{\"a\":1}"),
    ("[1,2]", Outcome::Raw, "{\"_raw_arguments\":\"[1,2]\"}"),
    ("\"x\"", Outcome::Raw, "{\"_raw_arguments\":\"\\\"x\\\"\"}"),
    ("5", Outcome::Raw, "{\"_raw_arguments\":\"5\"}"),
    ("true", Outcome::Raw, "{\"_raw_arguments\":\"true\"}"),
    ("ünïcode", Outcome::Raw, "{\"_raw_arguments\":\"ünïcode\"}"),
    ("\u{feff}{}", Outcome::Raw, "{\"_raw_arguments\":\"\u{feff}{}\"}"),
    ("```json\n{\"a\":1}\n```", Outcome::Raw, "{\"_raw_arguments\":\"```json\\n{\\\"a\\\":1}\\n```\"}"),
    // Encoded twice.
    ("\"{\\\"a\\\":1}\"", Outcome::Repaired, "{\"a\":1}"),
    (" \"{\\\"a\\\":\\\"\\\\n\\\"}\" ", Outcome::Repaired, "{\"a\":\"\\n\"}"),
    ("\"{\\\"a\\\":1}", Outcome::Repaired, "{\"a\":1}"),
    ("\"{\\\"a\\\":\\\"x\"", Outcome::Repaired, "{\"a\":\"x\"}"),
    ("\"\\\"{\\\\\\\"a\\\\\\\":1}\\\"\"", Outcome::Repaired, "{\"a\":1}"),
    ("\"null\"", Outcome::Empty, ""),
    ("\"[1]\"", Outcome::Raw, "{\"_raw_arguments\":\"\\\"[1]\\\"\"}"),
    // Documents that are cut.
    ("{", Outcome::Repaired, "{}"),
    ("{ ", Outcome::Repaired, "{}"),
    ("{\"a", Outcome::Repaired, "{}"),
    ("{\"a\"", Outcome::Repaired, "{}"),
    ("{\"a\":", Outcome::Repaired, "{}"),
    ("{\"a\":-", Outcome::Repaired, "{}"),
    ("{\"a\":1.", Outcome::Repaired, "{}"),
    ("{\"a\":12", Outcome::Repaired, "{\"a\":12}"),
    ("{\"a\":12 ", Outcome::Repaired, "{\"a\":12 }"),
    ("{\"a\":tr", Outcome::Repaired, "{\"a\":true}"),
    ("{\"a\":N", Outcome::Repaired, "{\"a\":null}"),
    ("{\"a\":\"x", Outcome::Repaired, "{\"a\":\"x\"}"),
    ("{\"a\":\"x\\", Outcome::Repaired, "{\"a\":\"x\"}"),
    ("{\"a\":\"x\\ud83d\\ude", Outcome::Repaired, "{\"a\":\"x\\ufffd\"}"),
    ("{\"a\":1,", Outcome::Repaired, "{\"a\":1}"),
    ("{\"a\":1,\"b\":", Outcome::Repaired, "{\"a\":1}"),
    ("{\"a\":[1,{\"b\":[\"x\"", Outcome::Repaired, "{\"a\":[1,{\"b\":[\"x\"]}]}"),
    ("{\"a\":[", Outcome::Repaired, "{\"a\":[]}"),
    // Repaired while they arrive.
    ("{\"a\":1,}", Outcome::Repaired, "{\"a\":1}"),
    ("{\"a\":[1 , ] , }", Outcome::Repaired, "{\"a\":[1 ] }"),
    ("{\"a\":[1,2}", Outcome::Repaired, "{\"a\":[1,2]}"),
    ("{\"a\":[{\"b\":1],\"c\":2}", Outcome::Repaired, "{\"a\":[{\"b\":1}],\"c\":2}"),
    ("{\"a\":True,\"b\":False,\"c\":None}", Outcome::Repaired, "{\"a\":true,\"b\":false,\"c\":null}"),
    ("{\"a\":\"x\ny\tz\u{1}\"}", Outcome::Repaired, "{\"a\":\"x\\ny\\tz\\u0001\"}"),
    ("{\"a\nb\":1}", Outcome::Repaired, "{\"a\\nb\":1}"),
    ("{\"a\":\"\\d+ it\\'s\"}", Outcome::Repaired, "{\"a\":\"\\\\d+ it's\"}"),
    ("{\"a\":\"C:\\users\"}", Outcome::Repaired, "{\"a\":\"C:\\\\users\"}"),
    ("{\"a\":\"\\ud83d x \\ude00\"}", Outcome::Repaired, "{\"a\":\"\\ufffd x \\ufffd\"}"),
    // Documents that cannot be repaired.
    ("{bad", Outcome::Raw, "{\"_raw_arguments\":\"{bad\"}"),
    ("{'a':1}", Outcome::Raw, "{\"_raw_arguments\":\"{'a':1}\"}"),
    ("{é:1}", Outcome::Raw, "{\"_raw_arguments\":\"{é:1}\"}"),
    ("{,}", Outcome::Raw, "{\"_raw_arguments\":\"{,}\"}"),
    ("{\"a\":tru}", Outcome::Raw, "{\"_raw_arguments\":\"{\\\"a\\\":tru}\"}"),
    ("{\"a\":truex}", Outcome::Raw, "{\"a\":true,\"_raw_arguments\":\"{\\\"a\\\":truex}\"}"),
    ("{\"a\":01}", Outcome::Raw, "{\"_raw_arguments\":\"{\\\"a\\\":01}\"}"),
    ("{\"a\":1.}", Outcome::Raw, "{\"_raw_arguments\":\"{\\\"a\\\":1.}\"}"),
    ("{\"a\":-}", Outcome::Raw, "{\"_raw_arguments\":\"{\\\"a\\\":-}\"}"),
    ("{\"a\":1e999}", Outcome::Raw, "{\"_raw_arguments\":\"{\\\"a\\\":1e999}\"}"),
    ("{\"a\":1e999", Outcome::Raw, "{\"_raw_arguments\":\"{\\\"a\\\":1e999\"}"),
    ("{\"a\":NaN}", Outcome::Raw, "{\"_raw_arguments\":\"{\\\"a\\\":NaN}\"}"),
    ("{\"a\":}", Outcome::Raw, "{\"_raw_arguments\":\"{\\\"a\\\":}\"}"),
    ("{\"a\" 1}", Outcome::Raw, "{\"_raw_arguments\":\"{\\\"a\\\" 1}\"}"),
    ("{\"a\":1]", Outcome::Raw, "{\"a\":1,\"_raw_arguments\":\"{\\\"a\\\":1]\"}"),
    ("{\"a\":[,1]}", Outcome::Raw, "{\"a\":[],\"_raw_arguments\":\"{\\\"a\\\":[,1]}\"}"),
    ("{\"a\":{x", Outcome::Raw, "{\"a\":{},\"_raw_arguments\":\"{\\\"a\\\":{x\"}"),
    (
        "{\"a\":[{\"b\":1 \"c",
        Outcome::Raw,
        "{\"a\":[{\"b\":1 }],\"_raw_arguments\":\"{\\\"a\\\":[{\\\"b\\\":1 \\\"c\"}",
    ),
    (
        "{\"a\":\"x\" \"y\"}",
        Outcome::Raw,
        "{\"a\":\"x\" ,\"_raw_arguments\":\"{\\\"a\\\":\\\"x\\\" \\\"y\\\"}\"}",
    ),
];

const SCHEMA: &str = r#"{"type":"object","properties":{
    "s":{"type":"string"},"b":{"type":"boolean"},"i":{"type":"integer"},"n":{"type":"number"},
    "l":{"type":"array","items":{"type":"integer"}},"o":{"type":"object"},"z":{"type":["integer","null"]},
    "m":{"type":["string","integer"]},"u":{"anyOf":[{"type":"integer"}]}}}"#;

/// Documents read with [`SCHEMA`]: the text, its result, and the number of coerced values.
const COERCED: &[(&str, &str, usize)] = &[
    (r#"{"b":"true","i":"5","n":"-1.5e3"}"#, r#"{"b":true,"i":5,"n":-1.5e3}"#, 3),
    (r#"{"b":"False","z":"None"}"#, r#"{"b":false,"z":null}"#, 2),
    (r#"{"z":"null" , "z" : "7"}"#, r#"{"z":null , "z" : 7}"#, 2),
    (
        r#"{"l":"[1, \"a\", {\"b\":2}]","o":"{\"k\":\"\\n\"}"}"#,
        r#"{"l":[1, "a", {"b":2}],"o":{"k":"\n"}}"#,
        2,
    ),
    (r#"{"s":5,"s":-1.5e3,"s":true,"s":null}"#, r#"{"s":"5","s":"-1.5e3","s":"true","s":null}"#, 3),
    (r#"{"\u0069":"5","i":"\u0035"}"#, r#"{"\u0069":5,"i":5}"#, 2),
    // Values that stay as they are.
    (r#"{"b":true,"i":5,"n":1.5,"l":[1],"o":{"b":"true"},"s":"5","z":null}"#, "", 0),
    (r#"{"b":"yes","i":"5.5","i":"","i":"five","n":"1e999","l":"1,2","l":"{}","o":"[]"}"#, "", 0),
    (r#"{"m":"5","m":5,"u":"5","x":"5","x":5,"s":[1],"s":{},"i":5.5}"#, "", 0),
    (r#"{"l":["1","2"],"o":{"i":"5"}}"#, "", 0),
];

/// One run: the text that was sent, the outcome, and the counts.
#[derive(Debug, PartialEq)]
struct Run {
    sent: String,
    outcome: Outcome,
    coercions: usize,
    repairs: usize,
    has_trailing: bool,
}

fn schema() -> Option<Schema> {
    Schema::from_json(&json::parse(&mut SCHEMA.as_bytes().to_vec()).unwrap())
}

/// True if serde_json reads the text as an object. It is stricter than the parser here, which accepts half a surrogate
/// pair.
fn is_object(text: &str) -> bool {
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok()
}

/// Appends the text that completes the object, which is `{}` if there were no arguments.
fn close(mut arguments: Arguments, out: &mut String) {
    if arguments.finish(false, out) == Outcome::Empty {
        out.push_str("{}");
    }
}

fn run<'f>(schema: Option<Schema>, fragments: impl IntoIterator<Item = &'f str>) -> Run {
    let mut arguments = Arguments::new(schema);
    let mut sent = String::new();
    for fragment in fragments {
        arguments.push(fragment, &mut sent);
        let mut closed = sent.clone();
        close(arguments.clone(), &mut closed);
        assert!(is_object(&closed), "after {fragment:?}: {sent:?} closed as {closed:?}");
        assert!(closed.starts_with(&sent));
        let mut cut = sent.clone();
        let complete = arguments.is_complete();
        let outcome = arguments.clone().finish(true, &mut cut);
        assert_eq!(outcome == Outcome::Truncated, !complete);
        assert!(complete || cut == sent || (sent.is_empty() && cut == "{"));
        assert!(
            complete || (!cut.is_empty() && !is_object(&cut)),
            "{cut:?} must not pass for a whole object"
        );
    }
    let outcome = arguments.finish(false, &mut sent);
    assert_eq!(outcome, arguments.finish(false, &mut String::new()), "the end is the end");
    assert_eq!(sent.is_empty(), outcome == Outcome::Empty);
    assert!(sent.is_empty() || is_object(&sent), "{sent:?}");
    let (coercions, repairs) = arguments.changes();
    Run { sent, outcome, coercions, repairs, has_trailing: arguments.resent.has_trailing() }
}

fn pieces(text: &str, size: usize) -> Vec<&str> {
    let mut bounds: Vec<usize> =
        (0..text.len()).step_by(size).filter(|at| text.is_char_boundary(*at)).collect();
    bounds.push(text.len());
    bounds.windows(2).map(|pair| text.get(pair[0]..pair[1]).unwrap()).collect()
}

/// Reads the document in every way, checks that the results agree, and returns the result.
fn run_all(schema: &Option<Schema>, text: &str) -> Run {
    let whole = run(schema.clone(), [text]);
    for size in [1, 2, 3, 7] {
        assert_eq!(run(schema.clone(), pieces(text, size)), whole, "{text:?} in pieces of {size}");
    }
    for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
        let (a, b) = text.split_at(at);
        assert_eq!(run(schema.clone(), [a, b]), whole, "{a:?} {b:?}");
        assert_eq!(run(schema.clone(), [a, "", b, ""]), whole, "{a:?} {b:?}");
    }
    whole
}

#[test]
fn valid_objects_pass_unchanged() {
    for text in VALID {
        let run = run_all(&None, text);
        assert_eq!((run.sent.as_str(), run.outcome, run.repairs), (*text, Outcome::Complete, 0));
        assert!(!run.has_trailing);
        let padded = format!(" \n{text}\t ");
        assert_eq!(run_all(&None, &padded).sent, *text);
        let with_schema = run_all(&schema(), text);
        assert_eq!((with_schema.sent.as_str(), with_schema.coercions), (*text, 0));
    }
}

#[test]
fn broken_objects_are_repaired_or_carried_as_raw_text() {
    for (text, outcome, expected) in BROKEN {
        let run = run_all(&None, text);
        assert_eq!((run.sent.as_str(), run.outcome), (*expected, *outcome), "{text:?}");
    }
}

#[test]
fn every_prefix_ends_the_same_whole_and_in_pieces() {
    for text in
        VALID.iter().chain(BROKEN.iter().map(|(text, ..)| text)).chain(COERCED.iter().map(|(text, ..)| text))
    {
        for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
            let cut = text.split_at(at).0;
            assert_eq!(run(schema(), [cut]), run(schema(), pieces(cut, 1)), "{cut:?}");
        }
    }
}

#[test]
fn values_are_coerced_to_the_schema() {
    for (text, expected, coercions) in COERCED {
        let run = run_all(&schema(), text);
        let expected = if expected.is_empty() { text } else { expected };
        assert_eq!(
            (run.sent.as_str(), run.coercions, run.outcome),
            (*expected, *coercions, Outcome::Complete)
        );
    }
    let cut = run_all(&schema(), "{\"i\":\"5");
    assert_eq!((cut.sent.as_str(), cut.outcome), ("{\"i\":5}", Outcome::Repaired));
}

/// Documents from a small generator: valid ones, and the same with a byte changed, lost or added.
#[test]
fn generated_documents_end_well() {
    let mut random = Random(7);
    for _ in 0..400 {
        let text = generated(&mut random);
        let run_valid = run(None, pieces(&text, 1 + random.below(4)));
        assert_eq!((run_valid.sent.as_str(), run_valid.outcome), (text.as_str(), Outcome::Complete));
        let Some(text) = damaged(&mut random, text) else { continue };
        let whole = run(schema(), [text.as_str()]);
        for size in [1, 2, 5] {
            assert_eq!(run(schema(), pieces(&text, size)), whole, "{text:?}");
        }
    }
}

/// The machine and the parser must accept the same documents as objects.
#[test]
fn the_machine_agrees_with_the_parser() {
    let mut random = Random(11);
    let (mut legal, mut illegal) = (0, 0);
    for _ in 0..20_000 {
        let text = generated(&mut random);
        let Some(text) = damaged(&mut random, text) else { continue };
        let (mut arguments, mut sent) = (Arguments::new(None), String::new());
        arguments.push(&text, &mut sent);
        let outcome = arguments.finish(false, &mut sent);
        assert!(outcome == Outcome::Empty || is_object(&sent), "{text:?} {sent:?}");
        let is_clean = outcome == Outcome::Complete && !arguments.resent.has_trailing();
        assert_eq!(is_clean, is_object(&text), "{text:?} {sent:?}");
        *if is_clean { &mut legal } else { &mut illegal } += 1;
    }
    assert!(legal > 1000 && illegal > 1000, "{legal} {illegal}");
}

fn generated(random: &mut Random) -> String {
    let mut text = String::from("{");
    write_members(random, 0, &mut text);
    text.push('}');
    text
}

/// Damages a text after its first brace, since the result of a doubled first brace depends on the pieces.
fn damaged(random: &mut Random, text: String) -> Option<String> {
    const BYTES: &[u8] = b"{}[]\",:\\0-tn \neE.+u5'";
    let mut bytes = text.into_bytes();
    let at = random.below(bytes.len() - 1) + 1;
    let byte = BYTES[random.below(BYTES.len())];
    match random.below(3) {
        0 => drop(bytes.remove(at)),
        1 if (at, byte) != (1, b'{') => bytes.insert(at, byte),
        _ if (at, byte) != (1, b'{') => bytes[at] = byte,
        _ => {}
    }
    String::from_utf8(bytes).ok()
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        // Knuth's MMIX constants. Only the high bits of the result are random enough.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

fn write_members(random: &mut Random, depth: usize, text: &mut String) {
    for index in 0..random.below(4) + usize::from(depth == 0) {
        let comma = if index > 0 { "," } else { "" };
        let key = ["a", "i", "s", "l", "", "k\\n", "é"][random.below(7)];
        text.push_str(&format!("{comma}{}\"{key}\":", [" ", ""][random.below(2)]));
        write_value(random, depth + 1, text);
    }
}

fn write_value(random: &mut Random, depth: usize, text: &mut String) {
    match random.below(if depth < 4 { 9 } else { 7 }) {
        7 => {
            text.push('{');
            write_members(random, depth, text);
            text.push('}');
        }
        8 => {
            text.push('[');
            for index in 0..random.below(3) {
                text.push_str(if index > 0 { ", " } else { "" });
                write_value(random, depth + 1, text);
            }
            text.push(']');
        }
        n => text.push_str(["1", "-2.5e1", "true", "null", "\"x y\"", "\"\\ud83d\\ude00\"", "\"日\\\\\""][n]),
    }
}

#[test]
fn nesting_has_a_limit() {
    let deep = |n: usize| {
        format!("{}{}", "{\"a\":".repeat(n), "1}".replace('1', &format!("1{}", "}".repeat(n - 1))))
    };
    let most = deep(DEPTH_MAX);
    assert_eq!(run(None, pieces(&most, 3)).sent, most);
    let more = run(None, pieces(&deep(DEPTH_MAX + 1), 3));
    assert_eq!(more.outcome, Outcome::Raw);
    assert_eq!(run(None, [deep(10_000).as_str()]).outcome, Outcome::Raw);
    // The limit on nesting also applies to the content of a string that is wanted as an object.
    let inner = deep(DEPTH_MAX + 1).replace('"', "\\\"");
    assert_eq!(run(schema(), [format!("{{\"o\":\"{inner}\"}}").as_str()]).coercions, 0);
}

#[test]
fn truncated_arguments_are_left_visibly_unfinished() {
    for (text, sent) in [
        ("", "{"),
        ("{", "{"),
        ("{\"a", "{"),
        ("{\"a\":\"xy", "{\"a\":\"xy"),
        ("{\"a\":1,\"b\":tr", "{\"a\":1"),
        ("{\"a\":1,\"b", "{\"a\":1"),
        ("{bad", "{"),
        ("\"{\\\"a\\\":", "{"),
        ("null", "{"),
    ] {
        let (mut arguments, mut out) = (Arguments::new(None), String::new());
        arguments.push(text, &mut out);
        assert_eq!(arguments.finish(true, &mut out), Outcome::Truncated, "{text:?}");
        assert_eq!(out, sent);
        assert_eq!(arguments.finish(false, &mut out), Outcome::Truncated, "the end is the end");
        arguments.abandon(&mut out);
        assert_eq!(out, sent, "{text:?}");
    }
    let (mut arguments, mut out) = (Arguments::new(None), String::new());
    arguments.push("{\"a\":1}", &mut out);
    assert_eq!(arguments.finish(true, &mut out), Outcome::Complete);
    assert_eq!(out, "{\"a\":1}");
}

#[test]
fn abandoned_arguments_cannot_pass_for_whole_ones() {
    // The last object may be a placeholder for arguments that were still to come.
    for (text, sent) in [("", "{"), ("{\"a\":", "{"), ("{\"a\":[1", "{\"a\":["), ("{}", "{")] {
        let (mut arguments, mut out) = (Arguments::new(None), String::new());
        arguments.push(text, &mut out);
        arguments.abandon(&mut out);
        arguments.abandon(&mut out);
        assert_eq!(out, sent, "{text:?}");
    }
}

fn ending(fragments: &[&str], is_told_cut: bool) -> Ending {
    let (mut arguments, mut out) = (Arguments::new(None), String::new());
    fragments.iter().for_each(|fragment| arguments.push(fragment, &mut out));
    arguments.ending(is_told_cut, &mut out)
}

#[test]
fn how_far_the_text_had_come() {
    for (text, expected) in [
        // The text reached its own end, or there is no text at all.
        ("{}", Ending::Whole),
        ("{\"a\":\"x\"} ", Ending::Whole),
        ("{\"a\":1} and more", Ending::Whole),
        ("{\"a\":\"C:\\users\ny\",}", Ending::Whole),
        ("{\"a\":[1,2}", Ending::Whole),
        ("\"{\\\"a\\\":1}\"", Ending::Whole),
        ("", Ending::Unclosed),
        (" \n", Ending::Unclosed),
        ("null", Ending::Unclosed),
        ("\"\"", Ending::Unclosed),
        // Only closing brackets are missing.
        ("{\"a\":\"x\"", Ending::Unclosed),
        ("{\"a\":true", Ending::Unclosed),
        ("{\"a\":None", Ending::Unclosed),
        ("{\"a\":12 ", Ending::Unclosed),
        ("{\"a\":[\"x\", {\"b\": []}", Ending::Unclosed),
        ("\"{\\\"a\\\":\\\"x\\\"\"", Ending::Unclosed),
        // A value, a key or more is missing.
        ("{", Ending::Cut),
        ("{\"a", Ending::Cut),
        ("{\"a\"", Ending::Cut),
        ("{\"a\":", Ending::Cut),
        ("{\"a\":\"rm -rf /srv/da", Ending::Cut),
        ("{\"a\":\"x\\", Ending::Cut),
        ("{\"a\":\"x\\u00", Ending::Cut),
        ("{\"a\":12", Ending::Cut),
        ("{\"a\":-", Ending::Cut),
        ("{\"a\":1.", Ending::Cut),
        ("{\"a\":1e", Ending::Cut),
        ("{\"a\":tru", Ending::Cut),
        ("{\"a\":n", Ending::Cut),
        ("{\"a\":1,", Ending::Cut),
        ("{\"a\":1,\"b", Ending::Cut),
        ("{\"a\":[", Ending::Cut),
        ("{\"a\":[1, ", Ending::Cut),
        ("{\"a\":{\"b", Ending::Cut),
        ("\"{\\\"a\\\":1}", Ending::Cut),
        ("\"{\\\"a\\\":\\\"x\"", Ending::Cut),
    ] {
        check_ending(text, expected);
    }
}

#[track_caller]
fn check_ending(text: &str, expected: Ending) {
    assert_eq!(ending(&[text], false), expected, "{text:?}");
    for size in [1, 3] {
        assert_eq!(ending(&pieces(text, size), false), expected, "{text:?} in pieces of {size}");
    }
}

#[test]
fn how_far_text_that_is_not_an_object_had_come() {
    for (text, expected) in [
        // It ends where its brackets are closed, and no part of it was sent.
        ("[1,2]", Ending::Whole),
        ("{\"a\":tru}", Ending::Whole),
        ("{'a': 1}", Ending::Whole),
        ("```json\n{\"a\":1}\n```", Ending::Whole),
        ("5", Ending::Whole),
        ("nul", Ending::Whole),
        ("\"ls\"", Ending::Whole),
        ("rm -rf /srv/da", Ending::Whole),
        ("\"ls", Ending::Cut),
        ("{'a': 'rm -rf /srv/da", Ending::Cut),
        ("[1,2", Ending::Cut),
        ("```json\n{\"a\":1", Ending::Cut),
        ("{\"a\":\"x\",\"b\":tru}", Ending::Cut),
        ("{\"a\":\"x\" \"y\"}", Ending::Cut),
        ("{bad}}", Ending::Cut),
        ("{a:\"}", Ending::Cut),
    ] {
        check_ending(text, expected);
    }
}

#[test]
fn how_far_a_cut_text_had_come() {
    // If the answer met a limit, only an object is whole.
    for (text, expected) in [
        ("{\"a\":1}", Ending::Whole),
        ("\"{\\\"a\\\":1}\"", Ending::Whole),
        ("{\"a\":1", Ending::Cut),
        ("{\"a\":\"x\"", Ending::Unclosed),
        ("[1,2]", Ending::Cut),
        ("5", Ending::Cut),
        ("rm -rf /srv/da", Ending::Cut),
        ("{'a': 1}", Ending::Cut),
        ("\"{'a': 1}\"", Ending::Cut),
    ] {
        assert_eq!(ending(&[text], true), expected, "{text:?}");
    }
    // A fragment that may repeat all arguments. It does not count as a repetition if the answer may have been cut
    // inside it.
    assert_eq!(ending(&["{\"a\":", "{\"a\":1}"], false), Ending::Whole);
    assert_eq!(ending(&["{\"a\":", "{\"a\":1}"], true), Ending::Cut);
    assert_eq!(ending(&["{\"a\":", "{\"a\":1"], false), Ending::Cut);
}

/// The ending that a reader of the text alone would expect for the beginning of a valid document.
fn expected_ending(text: &str) -> Ending {
    let (mut closers, mut in_string, mut is_escaped) = (Vec::new(), false, false);
    for c in text.chars() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if in_string => is_escaped = true,
            '"' => in_string = !in_string,
            '{' if !in_string => closers.push('}'),
            '[' if !in_string => closers.push(']'),
            '}' | ']' if !in_string => drop(closers.pop()),
            _ => {}
        }
    }
    let closed: String = text.chars().chain(closers.iter().rev().copied()).collect();
    let ends_open = text.ends_with(|c: char| c.is_ascii_digit())
        || text.trim_end_matches(SPACES).ends_with(['{', '[', ',', ':']);
    match (text.trim_matches(SPACES).is_empty(), is_object(text)) {
        (true, _) => Ending::Unclosed,
        (_, true) => Ending::Whole,
        _ if is_object(&closed) && !ends_open && !in_string => Ending::Unclosed,
        _ => Ending::Cut,
    }
}

#[test]
fn every_prefix_of_a_legal_document_tells_how_far_it_came() {
    let mut random = Random(13);
    let generated: Vec<String> = (0..200).map(|_| generated(&mut random)).collect();
    for text in VALID.iter().copied().chain(generated.iter().map(String::as_str)) {
        for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
            let cut = text.split_at(at).0;
            assert_eq!(ending(&pieces(cut, 3), false), expected_ending(cut), "{cut:?}");
        }
    }
}

#[test]
fn string_content_flows_at_once() {
    let (mut arguments, mut out) = (Arguments::new(schema()), String::new());
    for (fragment, sent) in [
        ("{\"s\": ", ""),
        ("\"ab", "{\"s\": \"ab"),
        ("c", "c"),
        ("\\", ""),
        ("n", "\\n"),
        ("\\ud83d", ""),
        ("\\ude00", "\\ud83d\\ude00"),
        ("\", ", "\""),
        ("\"x\": 1", ""),
        ("2", ""),
        (" ", ", \"x\": 12 "),
        (",\"i\":\"3", ""),
        ("\"", ",\"i\":3"),
        ("}", "}"),
    ] {
        out.clear();
        arguments.push(fragment, &mut out);
        assert_eq!(out, sent, "{fragment:?}");
    }
    assert!(arguments.is_complete());
}

#[test]
fn text_behind_the_object_is_remembered() {
    for (text, expected) in [
        ("{\"a\":1} \n", false),
        ("{\"a\":1}\n{\"a\":1}", false),
        (" {\"a\":1}{\"a\":1} {\"a\":1} ", false),
        ("{\"a\":1}{\"a\"", true),
        ("{\"a\":1}{\"a\":2}", true),
        ("{\"a\":1}}", true),
        ("{\"a\":1}é", true),
        ("{}{}", false),
        ("{}x", true),
    ] {
        assert_eq!(run_all(&None, text).has_trailing, expected, "{text:?}");
    }
}

/// The same text from a server that repeats all of it with every fragment.
#[test]
fn cumulative_fragments_are_used_once() {
    for text in VALID.iter().filter(|text| text.len() < 200) {
        let ends: Vec<usize> = (1..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
        let all: Vec<&str> = ends.iter().map(|at| text.split_at(*at).0).collect();
        assert_eq!(run(None, all.iter().copied()).sent, *text, "byte by byte");
        let twice = all.iter().flat_map(|fragment| [*fragment, *fragment]).skip(1);
        assert_eq!(run(None, twice).sent, *text, "some repeated");
        let with_the_end = run(None, pieces(text, 2).into_iter().chain([*text]));
        assert_eq!((with_the_end.sent.as_str(), with_the_end.has_trailing), (*text, false));
    }
    let fragments =
        [" {\"a\": \"x", " {\"a\": \"xy", " {\"a\": \"xy\", \"b\": ", " {\"a\": \"xy\", \"b\": [1]}"];
    assert_eq!(run(None, fragments).sent, "{\"a\": \"xy\", \"b\": [1]}");
    // A fragment that could be a nested object waits for the next fragment, or for the end.
    assert_eq!(run(None, ["{\"a\":", "{\"a\":1}"]).sent, "{\"a\":1}");
    assert_eq!(run(None, ["{\"a\":", "{\"a\":1", "{\"a\":12}"]).sent, "{\"a\":12}");
    assert_eq!(run(None, ["{\"a\":[", "{\"a\":[1,", "{\"a\":[1,2]}"]).sent, "{\"a\":[1,2]}");
    assert_eq!(run(None, ["{\"a\":", "{\"a\":1}", "{\"a\":1}"]).sent, "{\"a\":1}");
    assert_eq!(run(None, ["{\"a\":", "{\"a\":1}", "}"]).sent, "{\"a\":{\"a\":1}}");
    assert_eq!(run(None, ["{\"a\":", "{\"a\":1}}"]).sent, "{\"a\":{\"a\":1}}");
    assert_eq!(run(None, ["{\"a\":", "{\"a\":", "{\"b\":1}}}"]).sent, "{\"a\":{\"a\":{\"b\":1}}}");
    // One brace too many makes a broken object in one fragment, and a repetition in two.
    assert_eq!(run(None, ["{{\"a\":1}"]).outcome, Outcome::Raw);
    assert_eq!(run(None, ["{", "{\"a\":1}"]).sent, "{\"a\":1}");
}

#[test]
fn the_raw_text_has_a_limit() {
    for start in ["{\"a\":\"", "{\"a\":1,", "no object "] {
        let (mut arguments, mut out) = (Arguments::new(None), String::new());
        arguments.push(start, &mut out);
        let fragment = "é".repeat(RAW_SIZE_MAX / 4 + 1);
        for _ in 0..3 {
            arguments.push(&fragment, &mut out);
            arguments.push("x", &mut out);
        }
        assert_eq!(arguments.finish(false, &mut out), Outcome::Raw);
        let mut bytes = out.into_bytes();
        let value = json::parse(&mut bytes).unwrap();
        let raw = value.get(RAW_KEY).and_then(Value::as_str).unwrap();
        assert!(raw.starts_with(start) && (RAW_SIZE_MAX - 1..=RAW_SIZE_MAX).contains(&raw.len()));
    }
}

/// The work is counted as bytes for which the buffers were moved: reading or copying all text again would show as
/// growth of the held text, or as a new allocation.
#[test]
fn a_megabyte_in_small_fragments_is_linear() {
    let lines = "line é of code;\\n\\\"quoted\\\" ".repeat(40_000);
    let text = format!("{{\"path\":\"/x\",\"content\":\"{lines}\",\"n\":[{}1]}}", "1.5, ".repeat(20_000));
    let mut arguments = Arguments::new(None);
    let mut sent = String::with_capacity(text.len());
    arguments.raw.reserve(text.len());
    let (mut held_max, mut moved) = (0, 0);
    let place = (arguments.raw().as_ptr(), sent.as_ptr());
    for fragment in pieces(&text, 4) {
        let before = sent.len();
        arguments.push(fragment, &mut sent);
        moved += sent.len() - before;
        held_max = held_max.max(arguments.machine.held_size() + 12);
    }
    assert_eq!((moved, sent.as_str()), (text.len(), text.as_str()));
    assert!(held_max < 64, "little is held back");
    assert_eq!((arguments.raw().as_ptr(), sent.as_ptr()), place, "no buffer was allocated anew");
    assert_eq!(arguments.finish(false, &mut sent), Outcome::Complete);
}
