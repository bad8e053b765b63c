//! A request's head: from bytes to the request and to where its body ends.
//!
//! Knows no stream. Two servers that disagree on where a body ends can be made to disagree on what a request is
//! (request smuggling), so whatever is ambiguous is refused here rather than guessed.

use ureq_proto::BodyMode;
use ureq_proto::http::{HeaderMap, HeaderName, Version, header};
use ureq_proto::server::state::{RecvBody, RecvRequest};
use ureq_proto::server::{MAX_REQUEST_HEADERS, RecvRequestResult, Reply};

use super::Request;
use crate::error::{Error, Kind};

/// Room for `HTTP/1.1 100 Continue` and its blank line, which ureq_proto wants to write itself.
const CONTINUE_SIZE: usize = 32;

/// Where the body of a request ends. Shrinks as the body is read.
pub(super) enum Framing {
    /// There is no more of it.
    Empty,
    /// So many bytes.
    Length(u64),
    /// Where the last chunk says so.
    Chunked(Box<Reply<RecvBody>>),
    /// Nobody knows, because the head was not understood.
    Lost,
}

/// What a head says.
pub(super) struct Head {
    pub(super) request: Request,
    pub(super) framing: Framing,
    pub(super) http10: bool,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
}

/// The index after the blank line that ends the head, if it is in `bytes`, of which the first `scanned` were looked
/// through before without finding it. This saves parsing the same bytes again with every read.
pub(super) fn end(bytes: &[u8], scanned: usize) -> Option<usize> {
    // A blank line that the new bytes complete begins up to three bytes before them.
    let from = scanned.saturating_sub(3);
    let tail = bytes.get(from..).unwrap_or_default();
    memchr::memchr_iter(b'\n', tail).find_map(|at| {
        let rest = tail.get(at + 1..).unwrap_or_default();
        let blank = if rest.starts_with(b"\n") {
            1
        } else if rest.starts_with(b"\r\n") {
            2
        } else {
            return None;
        };
        Some(from + at + 1 + blank)
    })
}

/// Why these first bytes cannot become a request, as soon as that is certain. Without this somebody who talks
/// TLS to us waits for the head's timeout.
pub(super) fn refuse_start(bytes: &[u8]) -> Option<Error> {
    const TLS_HANDSHAKE: u8 = 0x16;
    match bytes.first() {
        Some(&TLS_HANDSHAKE) => {
            Some(Error::invalid("this port speaks plain HTTP: use http:// instead of https://"))
        }
        Some(first) if !first.is_ascii_graphic() => {
            Some(Error::invalid("malformed request: it does not start with a method"))
        }
        _ => None,
    }
}

/// Parses a complete head.
pub(super) fn parse(bytes: &[u8]) -> Result<Head, Error> {
    let mut reply = Reply::<RecvRequest>::new().map_err(|error| malformed(&error))?;
    // ureq_proto takes HEAD and CONNECT to have no body. One that comes all the same would be read as the next request.
    reply.force_recv_body();
    let Some(parsed) = reply.try_request(bytes).map_err(|error| malformed(&error))?.1 else {
        return Err(Error::invalid("malformed request: the head ends early"));
    };
    let (parts, ()) = parsed.into_parts();
    let http10 = parts.version == Version::HTTP_10;
    let method = method(bytes);
    check_framing(&method, http10, &parts.headers)?;
    let head = Head {
        framing: framing(reply)?,
        http10,
        keep_alive: keep_alive(http10, &parts.headers),
        // HTTP/1.0 knows no interim responses.
        expects_continue: !http10 && lists(&parts.headers, &header::EXPECT, "100-continue"),
        request: Request {
            method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            headers: guarded(parts.headers),
        },
    };
    Ok(head)
}

/// The first word. ureq_proto reads methods that it does not know as GET.
fn method(bytes: &[u8]) -> String {
    let word = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
    String::from_utf8_lossy(word).into_owned()
}

fn malformed(error: &ureq_proto::Error) -> Error {
    if matches!(error, ureq_proto::Error::HttpParseTooManyHeaders) {
        return Error::new(Kind::HeadersTooLarge, format!("more than {MAX_REQUEST_HEADERS} request headers"));
    }
    Error::invalid(format!("malformed request: {error}"))
}

/// What ureq_proto lets pass.
fn check_framing(method: &str, http10: bool, headers: &HeaderMap) -> Result<(), Error> {
    let has_length = headers.contains_key(header::CONTENT_LENGTH);
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        // ureq_proto would take such a body as chunked.
        if !has_length && matches!(method, "POST" | "PUT" | "PATCH") {
            return Err(Error::new(Kind::LengthRequired, format!("{method} needs a content-length header")));
        }
        return Ok(());
    };
    if has_length {
        return Err(Error::invalid("both content-length and transfer-encoding"));
    }
    if http10 {
        return Err(Error::invalid("transfer-encoding in an HTTP/1.0 request"));
    }
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(Error::invalid("transfer-encoding: only chunked is supported"));
    }
    Ok(())
}

fn framing(reply: Reply<RecvRequest>) -> Result<Framing, Error> {
    let body = match reply.proceed() {
        None | Some(RecvRequestResult::ProvideResponse(_)) => return Ok(Framing::Empty),
        Some(RecvRequestResult::RecvBody(body)) => body,
        // The connection decides when the client is told to go on, so what is written here is thrown away.
        Some(RecvRequestResult::Send100(reply)) => {
            reply.accept(&mut [0; CONTINUE_SIZE]).map_err(|error| malformed(&error))?.1
        }
    };
    Ok(match body.body_mode() {
        BodyMode::LengthDelimited(length) => Framing::Length(length),
        BodyMode::Chunked => Framing::Chunked(Box::new(body)),
        BodyMode::NoBody | BodyMode::CloseDelimited => Framing::Empty,
    })
}

fn keep_alive(http10: bool, headers: &HeaderMap) -> bool {
    let close = lists(headers, &header::CONNECTION, "close");
    !close && (!http10 || lists(headers, &header::CONNECTION, "keep-alive"))
}

/// Whether the comma-separated header has this word.
fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
}

/// Marks what carries a key, so that no `Debug` shows it.
fn guarded(mut headers: HeaderMap) -> HeaderMap {
    for (name, value) in &mut headers {
        if matches!(name.as_str(), "authorization" | "x-api-key" | "cookie" | "proxy-authorization") {
            value.set_sensitive(true);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_its_first_blank_line() {
        for (bytes, size) in [
            ("GET / HTTP/1.1\r\n\r\nrest", Some(18)),
            ("GET / HTTP/1.1\n\nrest", Some(16)),
            ("GET / HTTP/1.1\r\na: b\n\r\n\r\n", Some(23)),
            ("GET / HTTP/1.1\r\na: b\r\n\r", None),
            ("GET / HTTP/1.1\r\na: b\r\n", None),
            ("", None),
        ] {
            for scanned in 0..=bytes.len().min(17) {
                let found_before = size.is_some_and(|size| size <= scanned);
                if !found_before {
                    assert_eq!(end(bytes.as_bytes(), scanned), size, "{bytes:?} {scanned}");
                }
            }
        }
    }

    #[test]
    fn debug_output_has_no_keys() {
        let head = parse(b"GET / HTTP/1.1\r\nx-api-key: sk-1\r\nauthorization: Bearer sk-2\r\n\r\n").unwrap();
        let text = format!("{:?}", head.request);
        assert!(!text.contains("sk-"), "{text}");
    }
}
