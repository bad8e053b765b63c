//! The body of a client's request, whole and not encoded.

use super::stop::Stop;
use crate::error::{Error, Kind};
use crate::http::{self, Request};
use crate::json::Document;
use crate::server::Client;

/// The body, whole and not encoded.
pub(super) fn read_body(client: &Client, request: &Request) -> Result<Document, Stop> {
    let encoding = request.header("content-encoding").unwrap_or("identity");
    if !encoding.eq_ignore_ascii_case("identity") {
        let what = format!("content-encoding: '{encoding}' is not supported; send the body as it is");
        return Err(Error::new(Kind::InvalidRequest, what).code("request_body_encoding_unsupported").into());
    }
    let mut document = Document::new();
    let read = client.borrow_mut().read_body(document.bytes_mut());
    read.map_err(|failure| match failure {
        http::Failure::Reject(error) => Stop::Error(error),
        http::Failure::Closed => Stop::ClientGone,
        http::Failure::Io(error) => Stop::Client(error),
    })?;
    Ok(document)
}
