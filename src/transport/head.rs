//! A response's head: parses its bytes, and finds out where the response's body ends.
//!
//! Knows nothing of streams.

use std::mem::MaybeUninit;

use super::failure::Failure;
use crate::http::{Chunks, Headers, end_of_head};

/// The largest head of a response, in bytes.
const HEAD_SIZE_MAX: usize = 64 * 1024;

/// The most headers of one response. uvicorn sends 4, a gateway on the Internet 30.
const HEADERS_MAX: usize = 128;

/// The first bytes of every head.
const BEGINNING: &[u8] = b"HTTP/1.";

/// The parsed status line and headers.
pub(super) struct ResponseHead {
    pub(super) status: u16,
    pub(super) headers: Headers,
    pub(super) framing: Framing,
    /// True if the connection can be used again after the body.
    pub(super) keep_alive: bool,
}

/// Where the body of a response ends.
pub(super) enum Framing {
    /// After this many more bytes.
    Length(u64),
    /// At the last chunk.
    Chunked(Chunks),
    /// At the end of the connection.
    UntilClose,
}

/// Parses the head at the beginning of `bytes`, and returns it with its size; `None`: it is not complete yet. The first
/// `scanned` bytes were searched for its end before.
///
/// # Errors
/// [`Failure::Protocol`]: the bytes cannot become a head that is supported here.
// `inline(never)`: keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget).
#[inline(never)]
pub(super) fn parse(bytes: &[u8], scanned: usize) -> Result<Option<(ResponseHead, usize)>, Failure> {
    let start = bytes.get(..BEGINNING.len()).unwrap_or(bytes);
    if !BEGINNING.starts_with(start) {
        return Err(Failure::Protocol("the upstream's reply is not HTTP".into()));
    }
    let Some(size) = end_of_head(bytes, scanned).filter(|size| *size <= HEAD_SIZE_MAX) else {
        let too_large = || Failure::Protocol(format!("the response's head is over {HEAD_SIZE_MAX} bytes"));
        return if bytes.len() > HEAD_SIZE_MAX { Err(too_large()) } else { Ok(None) };
    };
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let status = config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields);
    let malformed = |why: &str| Failure::Protocol(format!("malformed response: {why}"));
    match status {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(malformed("the head ends early")),
        Err(error) => return Err(malformed(&error.to_string())),
    }
    let (status, http10) = (parsed.code.unwrap_or_default(), parsed.version == Some(0));
    let headers = Headers::parsed(parsed.headers);
    let framing = framing(status, &headers).map_err(malformed)?;
    let keep_alive = match framing {
        Framing::Length(_) => headers.keep_alive(http10),
        // With a length beside the chunks, or chunks in HTTP/1.0, a proxy on the way may have seen another end of the
        // body.
        Framing::Chunked(_) => {
            !http10 && headers.get("content-length").is_none() && headers.keep_alive(http10)
        }
        Framing::UntilClose => false,
    };
    Ok(Some((ResponseHead { status, headers, framing, keep_alive }, size)))
}

/// Finds out where the body of a response to GET or POST ends (RFC 9112, section 6.3).
fn framing(status: u16, headers: &Headers) -> Result<Framing, &'static str> {
    if matches!(status, 100..=199 | 204 | 304) {
        return Ok(Framing::Length(0));
    }
    let mut codings = headers.values("transfer-encoding");
    match (codings.next(), codings.next()) {
        (None, _) => Ok(headers.content_length()?.map_or(Framing::UntilClose, Framing::Length)),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => {
            Ok(Framing::Chunked(Chunks::default()))
        }
        _ => Err("transfer-encoding: only chunked is supported"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> ResponseHead {
        let (head, size) = parse(text.as_bytes(), 0).unwrap().unwrap();
        assert_eq!(size, text.len());
        head
    }

    #[test]
    fn a_head_says_where_its_body_ends_and_whether_the_connection_stays() {
        for (text, framing, keep_alive) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", "3", true),
            ("HTTP/1.1 200\r\nContent-Length: 3, 3\r\nConnection: keep-alive\r\n\r\n", "3", true),
            ("HTTP/1.1 200 OK\ncontent-length: 0\n\n", "0", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: a, Close\r\n\r\n", "3", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\n", "3", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\n", "3", true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", "chunked", true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n", "chunked", false),
            ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "chunked", false),
            ("HTTP/1.1 200 OK\r\n\r\n", "close", false),
            ("HTTP/1.1 204 No Content\r\n\r\n", "0", true),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", "0", true),
            ("HTTP/1.1 100 Continue\r\n\r\n", "0", true),
        ] {
            let head = whole(text);
            let found = match head.framing {
                Framing::Length(length) => length.to_string(),
                Framing::Chunked(_) => "chunked".into(),
                Framing::UntilClose => "close".into(),
            };
            assert_eq!((found.as_str(), head.keep_alive), (framing, keep_alive), "{text:?}");
        }
    }

    #[test]
    fn a_head_is_parsed_however_it_is_cut() {
        let text = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\n\r\n";
        for cut in 0..text.len() {
            assert!(parse(&text.as_bytes()[..cut], 0).unwrap().is_none(), "{cut}");
            let (head, size) = parse(format!("{text}rest").as_bytes(), cut).unwrap().unwrap();
            assert_eq!((head.status, head.headers.get("retry-after"), size), (429, Some("7"), text.len()));
        }
    }

    #[test]
    fn an_invalid_head_is_refused_as_soon_as_that_is_certain() {
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(200));
        let large = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(HEAD_SIZE_MAX));
        let large_and_whole = format!("{large}\r\n\r\n");
        for (text, why) in [
            ("S", "not HTTP"),
            ("HTTP/2", "not HTTP"),
            ("data: {}\n\n", "not HTTP"),
            ("HTTP/1.1 2x0 OK\r\n\r\n", "malformed response"),
            ("HTTP/1.1 200 OK\r\na b: c\r\n\r\n", "malformed response"),
            ("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "not a number"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "conflicting"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", "only chunked"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", "only chunked"),
            (&many, "too many headers"),
            (&large, "over 65536 bytes"),
            (&large_and_whole, "over 65536 bytes"),
        ] {
            match parse(text.as_bytes(), 0) {
                Err(Failure::Protocol(said)) => assert!(said.contains(why), "{text:.80?}: {said}"),
                other => panic!("{text:.80?}: {:?}", other.map(|head| head.map(|(_, size)| size))),
            }
        }
    }
}
