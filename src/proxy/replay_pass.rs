//! The answer of a recorded request that was not translated, made again from the recording: bytes that pass are the upstream's
//! own, and a count of tokens is read again.

use crate::activity::{RecordedStep, StepKind};
use crate::json::{self, Value};
use crate::protocol::tokenize::read_count;

use super::recorded::read_target;
use super::recorded_way::RecordedWay;

/// The way in which the last answer of these steps came.
pub(super) fn way_of(steps: &[RecordedStep<'_>]) -> RecordedWay {
    let target = steps.iter().rfind(|step| step.kind == StepKind::Target);
    target.map_or(RecordedWay::Translated, |step| read_facts(step, RecordedWay::read))
}

/// Reads the facts of a step.
pub(super) fn read_facts<T>(step: &RecordedStep<'_>, read: impl FnOnce(&Value<'_>) -> T) -> T {
    let mut text = step.facts.as_bytes().to_vec();
    read(&json::parse(&mut text).unwrap_or(Value::Null))
}

/// The bytes of an answer that passed. Signs of life, sparkgap's own errors, and everything before the last upstream was asked are
/// taken from the recording.
pub(super) fn pass_again(steps: &[RecordedStep<'_>]) -> Vec<u8> {
    let asked = steps.iter().rposition(|step| step.kind == StepKind::Target).unwrap_or_default();
    let (mut out, mut refusal, mut takes_next) = (Vec::new(), None, true);
    for (index, step) in steps.iter().enumerate() {
        match step.kind {
            StepKind::Answer if index < asked || takes_next => {
                out.extend_from_slice(step.bytes);
                takes_next = false;
            }
            _ if index < asked => {}
            StepKind::Target | StepKind::Sent => (refusal, takes_next) = (None, false),
            StepKind::Refusal => refusal = Some(step.bytes),
            StepKind::Piece | StepKind::Whole => out.extend_from_slice(step.bytes),
            StepKind::Ping => takes_next = true,
            // The error is the upstream's own, byte for byte.
            StepKind::Failed if read_facts(step, is_relayed) => {}
            StepKind::Failed => (refusal, takes_next) = (None, true),
            _ => {}
        }
    }
    refusal.into_iter().for_each(|bytes| out.extend_from_slice(bytes));
    out
}

fn is_relayed(facts: &Value<'_>) -> bool {
    facts.get("relayed").and_then(Value::as_bool).unwrap_or_default()
}

/// The answer to a count: read from the upstream's answer, otherwise the number of that time.
pub(super) fn count_again(steps: &[RecordedStep<'_>]) -> Result<Vec<u8>, String> {
    let target = steps.iter().rfind(|step| step.kind == StepKind::Target);
    let target = target.ok_or("no upstream was asked, so there is nothing to count again")?;
    let (flavour, tokens) = read_facts(target, |facts| {
        let flavour = read_target(facts).map(|target| target.flavour);
        (flavour, facts.get("tokens").and_then(Value::as_u64).unwrap_or_default())
    });
    let answer = steps.iter().rfind(|step| step.kind == StepKind::Whole);
    let counted = answer.zip(flavour).and_then(|(step, flavour)| read_count(flavour, step.bytes));
    let body = Value::object([("input_tokens", counted.unwrap_or(tokens).into())]);
    Ok(body.to_json().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(kind: StepKind, bytes: &'static [u8], facts: &'static str) -> RecordedStep<'static> {
        RecordedStep { kind, at: 0, bytes, facts }
    }

    #[test]
    fn bytes_that_pass_are_the_upstream_s_and_the_rest_is_taken_from_the_recording() {
        use StepKind::{Answer, Failed, Open, Piece, Ping, Refusal, Sent, Target, Whole};
        let target = || step(Target, b"", r#"{"way":"openai"}"#);
        for (steps, expected) in [
            (
                vec![target(), step(Sent, b"x", ""), step(Piece, b"a", ""), step(Answer, b"lost", "")],
                &b"a"[..],
            ),
            // Pings before and after the last upstream was asked.
            (
                vec![
                    step(Ping, b"", ""),
                    step(Answer, b":1", ""),
                    target(),
                    step(Ping, b"", ""),
                    step(Answer, b":2", ""),
                    step(Piece, b"a", ""),
                    step(Answer, b"a", ""),
                ],
                b":1:2a",
            ),
            // The refusal of the first upstream is not the answer.
            (vec![target(), step(Refusal, b"no", ""), target(), step(Whole, b"yes", "")], b"yes"),
            (vec![target(), step(Refusal, b"no", ""), step(Answer, b"no", "")], b"no"),
            (vec![target(), step(Refusal, b"no", ""), step(Failed, b"", r#"{"relayed":true}"#)], b"no"),
            (
                vec![target(), step(Refusal, b"no", ""), step(Failed, b"", "{}"), step(Answer, b"mine", "")],
                b"mine",
            ),
            (
                vec![target(), step(Piece, b"a", ""), step(Failed, b"", "rubbish"), step(Answer, b"!", "")],
                b"a!",
            ),
            (vec![target(), step(Open, b"", "")], b""),
            (Vec::new(), b""),
        ] {
            assert_eq!(pass_again(&steps), expected, "{steps:?}");
        }
    }

    #[test]
    fn a_count_is_read_again_or_is_the_one_of_that_time() {
        const TARGET: &str = r#"{"way":"count","model":"m","flavour":"vllm","settings":{},"tokens":7}"#;
        let count = |answer: &'static [u8]| {
            let steps = [step(StepKind::Target, b"", TARGET), step(StepKind::Whole, answer, "")];
            String::from_utf8(count_again(&steps).unwrap()).unwrap()
        };
        assert_eq!(count(br#"{"count": 321, "tok"#), r#"{"input_tokens":321}"#);
        for rubbish in [&b""[..], b"{", br#"{"count":0}"#, br#"{"count":99999999999999999999}"#, b"\xff"] {
            assert_eq!(count(rubbish), r#"{"input_tokens":7}"#);
        }
        assert!(count_again(&[]).is_err());
    }
}
