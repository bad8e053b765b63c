//! A request's head: parses its bytes, and finds out where the request's body ends.
//!
//! Knows nothing of streams. If two servers disagree on where a body ends, a request can be hidden in it (request
//! smuggling), so every ambiguous head is refused rather than guessed at.

use std::mem::MaybeUninit;

use ::http::Uri;

use super::chunks::Chunks;
use super::headers::Headers;
use super::request::Request;
use crate::error::{Error, Kind};

/// The most headers of one request. Claude Code sends 21 to 26; proxies in front may add some.
const HEADERS_MAX: usize = 128;

/// Where the body of a request ends. Shrinks as the body is read.
pub(super) enum RequestFraming {
    /// No more of the body follows.
    Empty,
    /// After this many bytes.
    Length(u64),
    /// At the last chunk.
    Chunked(Chunks),
    /// Unknown, because the head was not understood.
    Lost,
}

/// The parsed request line and headers.
pub(super) struct RequestHead {
    pub(super) request: Request,
    pub(super) framing: RequestFraming,
    pub(super) http10: bool,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
}

/// The index after the blank line that ends the head, if it is in `bytes`. An earlier call has searched the first
/// `scanned` bytes without finding it, so that the same bytes are not searched again after every read.
pub(crate) fn end(bytes: &[u8], scanned: usize) -> Option<usize> {
    // A blank line that the new bytes complete may begin up to three bytes before them.
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

/// The error for first bytes that cannot become a request, as soon as that is certain. Without it a client that speaks
/// TLS would wait for the head's timeout.
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
pub(super) fn parse(bytes: &[u8]) -> Result<RequestHead, Error> {
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed.parse_with_uninit_headers(bytes, &mut fields).map_err(malformed)?;
    let (httparse::Status::Complete(_), Some(method), Some(target), Some(version)) =
        (status, parsed.method, parsed.path, parsed.version)
    else {
        return Err(Error::invalid("malformed request: the head ends early"));
    };
    let uri: Uri = target.parse().map_err(|error| Error::invalid(format!("malformed request: {error}")))?;
    let headers = Headers::parsed(parsed.headers);
    // RFC 9112, section 3.2, allows only one `host`. A proxy in front of sparkgap may have checked the other one.
    let is_host = |name: &str| name.len() == "host".len() && name.eq_ignore_ascii_case("host");
    if parsed.headers.iter().filter(|field| is_host(field.name)).nth(1).is_some() {
        return Err(Error::invalid("malformed request: more than one host header"));
    }
    let http10 = version == 0;
    Ok(RequestHead {
        framing: framing(method, http10, &headers)?,
        http10,
        keep_alive: headers.keep_alive(http10),
        // HTTP/1.0 has no interim responses.
        expects_continue: !http10 && headers.lists("expect", "100-continue"),
        request: Request {
            method: method.to_owned(),
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
            authority: uri.authority().map(|authority| authority.as_str().to_owned()),
            headers,
        },
    })
}

#[allow(clippy::needless_pass_by_value, reason = "map_err passes its error by value")]
fn malformed(error: httparse::Error) -> Error {
    match error {
        httparse::Error::TooManyHeaders => {
            Error::new(Kind::HeadersTooLarge, format!("more than {HEADERS_MAX} request headers"))
        }
        error => Error::invalid(format!("malformed request: {error}")),
    }
}

/// Finds out where the body ends (RFC 9112, section 6). A body of GET or HEAD is read too: otherwise it would be taken
/// for the next request.
fn framing(method: &str, http10: bool, headers: &Headers) -> Result<RequestFraming, Error> {
    let length =
        headers.content_length().map_err(|why| Error::invalid(format!("malformed request: {why}")))?;
    let mut codings = headers.values("transfer-encoding");
    let Some(coding) = codings.next() else {
        return match length {
            Some(0) => Ok(RequestFraming::Empty),
            Some(length) => Ok(RequestFraming::Length(length)),
            None if matches!(method, "POST" | "PUT" | "PATCH") => {
                Err(Error::new(Kind::LengthRequired, format!("{method} needs a content-length header")))
            }
            None => Ok(RequestFraming::Empty),
        };
    };
    if length.is_some() {
        return Err(Error::invalid("both content-length and transfer-encoding"));
    }
    if http10 {
        return Err(Error::invalid("transfer-encoding in an HTTP/1.0 request"));
    }
    if codings.next().is_some() || !coding.eq_ignore_ascii_case(b"chunked") {
        return Err(Error::invalid("transfer-encoding: only chunked is supported"));
    }
    Ok(RequestFraming::Chunked(Chunks::default()))
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
