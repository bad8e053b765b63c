//! The first event of a stream of the Messages API: an API that has no room may say so only after its head, with an error.
//!
//! Comments and pings before that event are held back, so that nothing of an answer has reached the client when it comes;
//! meanwhile the client gets sparkgap's own pings.

use crate::error::{Error, Kind};
use crate::json::{Value, parse};
use crate::sse::{Decoder, SseEvent};
use crate::transport::{Failure, Response};

/// The most bytes that are held back. Whatever comes after them passes as it is.
const HELD_SIZE_MAX: usize = 64 * 1024;

/// The types of errors that another try, or another upstream, may not meet.
const TEMPORARY: [Kind; 4] = [Kind::Overloaded, Kind::Api, Kind::Timeout, Kind::RateLimit];

/// The types of errors that stand for the faults of a request.
const LASTING: [Kind; 6] = [
    Kind::InvalidRequest,
    Kind::Authentication,
    Kind::Billing,
    Kind::Permission,
    Kind::NotFound,
    Kind::RequestTooLarge,
];

/// An error that a stream begins with.
#[derive(Debug)]
pub(super) struct FirstError {
    pub(super) error: Error,
    /// True if another upstream may answer the request.
    pub(super) is_temporary: bool,
}

/// Reads a stream up to its first event, which stays in [`Response::beginning`]. `None`: it is not an error.
///
/// # Errors
/// Those of [`Response::read`].
pub(super) fn first_error(response: &mut Response) -> Result<Option<FirstError>, Failure> {
    let is_stream = response.content_type().is_some_and(|kind| kind.starts_with("text/event-stream"));
    if !is_stream || !(200..300).contains(&response.status) {
        return Ok(None);
    }
    response.await_content();
    let mut decoder = Decoder::new(HELD_SIZE_MAX);
    let (mut read, mut has_ended) = (0, false);
    loop {
        decoder.feed(response.beginning().get(read..).unwrap_or_default());
        read = response.beginning().len();
        if has_ended {
            decoder.end();
        }
        while let Ok(Some(event)) = decoder.next_event() {
            match judge(event) {
                FirstEvent::Ping => {}
                FirstEvent::Error(error) => return Ok(Some(error)),
                FirstEvent::Answer => return Ok(None),
            }
        }
        if has_ended || read >= HELD_SIZE_MAX {
            return Ok(None);
        }
        has_ended = !response.read_ahead()?;
    }
}

/// The meaning of an event at the beginning of a stream.
enum FirstEvent {
    Ping,
    Error(FirstError),
    Answer,
}

fn judge(event: SseEvent<'_>) -> FirstEvent {
    let SseEvent { is_error, data } = event;
    let event = parse(data);
    let body = event.as_ref().ok();
    let text = |value: Option<&Value<'_>>, key: &str| {
        value.and_then(|value| value.get(key)?.as_str().map(str::to_owned))
    };
    let kind = text(body, "type").unwrap_or_default();
    if !is_error && kind != "error" {
        return if kind == "ping" { FirstEvent::Ping } else { FirstEvent::Answer };
    }
    let said = body.and_then(|body| body.get("error"));
    let name = text(said, "type").unwrap_or_default();
    let message = text(said, "message").unwrap_or_default();
    let temporary = TEMPORARY.into_iter().find(|kind| kind.name() == name);
    let kind = temporary.or_else(|| LASTING.into_iter().find(|kind| kind.name() == name));
    FirstEvent::Error(FirstError {
        error: Error::new(kind.unwrap_or(Kind::Api), message),
        is_temporary: temporary.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> FirstEvent {
        let mut decoder = Decoder::default();
        decoder.feed(text.as_bytes());
        judge(decoder.next_event().unwrap().unwrap())
    }

    #[test]
    fn only_some_errors_may_be_answered_elsewhere() {
        let error = |kind: &str| {
            format!("{{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":\"M\"}}}}")
        };
        for (kind, status, is_temporary) in [
            ("overloaded_error", 529, true),
            ("api_error", 500, true),
            ("timeout_error", 504, true),
            ("rate_limit_error", 429, true),
            ("invalid_request_error", 400, false),
            ("authentication_error", 401, false),
            ("permission_error", 403, false),
            ("not_found_error", 404, false),
            ("request_too_large", 413, false),
            ("billing_error", 402, false),
            ("new_error", 500, false),
        ] {
            for text in [
                format!("event: error\ndata: {}\n\n", error(kind)),
                format!("data: {}\n\n", error(kind)),
                format!("data:{}\r\nevent:error\r\n\r\n", error(kind)),
            ] {
                let FirstEvent::Error(found) = judged(&text) else { unreachable!("{text}") };
                assert_eq!((found.error.status(), found.is_temporary), (status, is_temporary), "{text}");
                assert_eq!(found.error.message, "M");
            }
        }
        let FirstEvent::Error(odd) = judged("event: error\ndata: not JSON\n\n") else { unreachable!() };
        assert!(!odd.is_temporary);
    }

    #[test]
    fn pings_are_not_the_answer() {
        assert!(matches!(judged("event: ping\ndata: {\"type\": \"ping\"}\n\n"), FirstEvent::Ping));
        for text in ["data: {\"type\":\"message_start\"}\n\n", "data: {}\n\n", "data: error\n\n"] {
            assert!(matches!(judged(text), FirstEvent::Answer), "{text}");
        }
    }
}
