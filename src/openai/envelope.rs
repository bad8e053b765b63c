//! Errors of sparkgap in OpenAI's form, for clients that speak OpenAI's protocol.

use crate::error::{Error, Kind};
use crate::json::Value;

/// The status for "busy" on these paths: clients of OpenAI know 503, and 529 is Anthropic's own.
const BUSY: u16 = 503;

/// The same error with OpenAI's body and status.
#[must_use]
pub fn in_openai_form(error: Error) -> Error {
    let body = openai_error(&error).to_json();
    let error = if error.status() == Kind::Overloaded.status() { error.with_status(BUSY) } else { error };
    error.with_body("application/json", body)
}

/// An error as an event of a stream that has begun. `is_response`: the stream is of `/v1/responses`, whose events have types;
/// the member `error` is what OpenAI's libraries look for in both.
pub fn openai_error_event(error: &Error, request_id: &str, is_response: bool) -> String {
    let body = openai_error(error);
    let Some(inner) = body.get("error").filter(|_| is_response) else {
        return format!("data: {}\n\n", body.to_json());
    };
    let response = Value::object([
        ("id", request_id.into()),
        ("object", "response".into()),
        ("status", "failed".into()),
        ("error", inner.reborrow()),
    ]);
    let event = Value::object([
        ("type", "response.failed".into()),
        ("response", response),
        ("error", inner.reborrow()),
    ]);
    format!("event: response.failed\ndata: {}\n\n", event.to_json())
}

/// OpenAI's envelope: `{"error":{"message","type","param","code"}}`.
fn openai_error(error: &Error) -> Value<'_> {
    let (kind, code) = match error.kind {
        Kind::Authentication => ("invalid_request_error", Some("invalid_api_key")),
        Kind::NotFound if error.message.starts_with("model: ") => {
            ("invalid_request_error", Some("model_not_found"))
        }
        Kind::RateLimit => ("rate_limit_error", Some("rate_limit_exceeded")),
        Kind::Api | Kind::BadGateway | Kind::Timeout | Kind::Overloaded => ("server_error", None),
        _ => ("invalid_request_error", None),
    };
    let code = code.or(error.code).map_or(Value::Null, Value::from);
    let inner = Value::object([
        ("message", error.message.as_str().into()),
        ("type", kind.into()),
        ("param", Value::Null),
        ("code", code),
    ]);
    Value::object([("error", inner)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_has_a_type_and_a_status_that_openai_s_libraries_know() {
        for (kind, status, expected) in [
            (
                Kind::Authentication,
                401,
                r#""type":"invalid_request_error","param":null,"code":"invalid_api_key""#,
            ),
            (Kind::InvalidRequest, 400, r#""type":"invalid_request_error","param":null,"code":null"#),
            (Kind::NotFound, 404, r#""type":"invalid_request_error","param":null,"code":"model_not_found""#),
            (Kind::RateLimit, 429, r#""type":"rate_limit_error","param":null,"code":"rate_limit_exceeded""#),
            (Kind::BadGateway, 502, r#""type":"server_error","param":null,"code":null"#),
            (Kind::Overloaded, 503, r#""type":"server_error","param":null,"code":null"#),
        ] {
            let error = in_openai_form(Error::new(kind, "model: \"x\""));
            let mut body = Vec::new();
            error.body("req_1", &mut body);
            let body = String::from_utf8(body).unwrap();
            assert_eq!(error.status(), status);
            assert_eq!(body, format!(r#"{{"error":{{"message":"model: \"x\"",{expected}}}}}"#));
        }
    }

    #[test]
    fn an_error_in_a_stream_is_an_event() {
        let error = Error::new(Kind::Api, "broken\n\ndata: x");
        let event = openai_error_event(&error, "req_1", false);
        assert!(event.starts_with(r#"data: {"error":{"message":"broken\n\ndata: x","#), "{event}");
        assert_eq!(event.matches("\n\n").count(), 1);
        let event = openai_error_event(&error, "req_1", true);
        assert!(event.starts_with("event: response.failed\ndata: {\"type\":\"response.failed\","), "{event}");
        assert!(
            event.contains(r#""response":{"id":"req_1","object":"response","status":"failed","error":{"#)
        );
    }
}
