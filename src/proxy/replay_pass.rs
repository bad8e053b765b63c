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
