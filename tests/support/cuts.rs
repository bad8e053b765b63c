//! The same upstream bytes, cut and truncated: cuts change nothing, and truncations are reported as errors.

use super::replay::{Answer, Exchange};
use super::validator::{self, Ended};

/// The number of places at which a body is cut. A body of up to this length is cut at every byte, a longer one at
/// evenly spaced places.
#[derive(Clone, Copy, Debug)]
pub struct PlacesMax(pub usize);

fn steps(len: usize, places: PlacesMax) -> impl Iterator<Item = usize> {
    let step = len.div_ceil(places.0).max(1);
    (0..len).step_by(step)
}

/// Cuts the body into pieces of n bytes for all n, and into two at every byte: the client must see the same answer.
/// Events that depend on the cut (there are none) would fail here.
pub fn cut(name: &str, exchange: &Exchange, places: PlacesMax) {
    let body = &exchange.body;
    let whole = exchange.whole().answer;
    // Pieces of more than half the body are covered by the cuts in two.
    for size in steps(body.len() / 2, places).map(|size| size + 1) {
        assert_eq!(exchange.replay(body.chunks(size)).answer, whole, "{name} in pieces of {size}");
    }
    for at in steps(body.len(), places) {
        let (head, tail) = body.split_at(at);
        assert_eq!(exchange.replay([head, tail]).answer, whole, "{name} cut at {at}");
    }
}

/// Truncates the body at every byte: the result must be an error until the finish has come, and the events that were
/// sent must be a valid stream.
pub fn truncate(name: &str, exchange: &Exchange, places: PlacesMax) {
    let body = &exchange.body;
    let Some(finish) = finish(exchange) else { return };
    let mut before = None;
    for len in steps(body.len(), places) {
        let answer = exchange.replay([&body[..len]]).answer;
        if before.as_ref() == Some(&(len >= finish, answer.clone())) {
            continue;
        }
        let whole = judge(name, &answer, exchange.plan.stream) == Ended::Whole;
        assert_eq!(whole, len >= finish, "{name}: truncated to {len} of {}, finish at {finish}", body.len());
        before = Some((len >= finish, answer));
    }
}

/// Judges an answer; a refusal counts as failed.
pub fn judge(name: &str, answer: &Answer, is_stream: bool) -> Ended {
    match answer {
        Answer::Refused(error) => {
            let mut body = Vec::new();
            error.body(super::replay::REQUEST_ID, &mut body);
            validator::error(&body).unwrap_or_else(|what| panic!("{name}: {what}"));
            Ended::Failed
        }
        Answer::Told(bytes) if is_stream => match validator::stream(bytes) {
            Ok((ended, _)) => ended,
            Err(what) => panic!("{name}: {what}\n{}", String::from_utf8_lossy(bytes)),
        },
        Answer::Told(bytes) => {
            let judged = validator::message(bytes);
            judged.unwrap_or_else(|what| panic!("{name}: {what}\n{}", String::from_utf8_lossy(bytes)));
            Ended::Whole
        }
    }
}

/// True if a line says why the first choice ended, or that everything is done.
fn is_finish(line: &str) -> bool {
    let data = line.trim_start_matches("data:").trim();
    match serde_json::from_str::<serde_json::Value>(data) {
        Ok(chunk) => chunk["choices"].as_array().is_some_and(|choices| {
            let told = |reason: &str| !matches!(reason, "" | "null" | "None");
            choices
                .iter()
                .any(|choice| choice["finish_reason"].as_str().is_some_and(told) && choice["index"] == 0)
        }),
        // The chunk has several lines.
        Err(_) => data == "[DONE]" || data.contains("\"finish_reason\":\""),
    }
}

/// The number of bytes after which the finish has come: the end of the line that says it, or the stop sequence that the
/// translation itself finds. `None`: the whole body fails already.
fn finish(exchange: &Exchange) -> Option<usize> {
    let body = &exchange.body;
    if judge("whole", &exchange.whole().answer, exchange.plan.stream) == Ended::Failed {
        return None;
    }
    if !exchange.is_sse {
        return Some(body.trim_ascii_end().len());
    }
    let mut at = 0;
    let mut told = None;
    for line in body.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
        at += line.len();
        let text = String::from_utf8_lossy(line.trim_ascii_end());
        if told.is_none() && is_finish(&text) {
            told = Some(at - (line.len() - line.trim_ascii_end().len()));
        }
    }
    let cancelled = exchange.replay(body.chunks(1)).cancelled_after;
    let cancelled = cancelled.map(|at| body[..at].trim_ascii_end().len());
    told.into_iter().chain(cancelled).min()
}
