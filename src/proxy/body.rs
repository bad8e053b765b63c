//! Reads the body of a client's request: complete, without a content encoding, and only as fast as there is memory for
//! it.

use std::time::Instant;

use super::exchange::Exchange;
use super::state::Proxy;
use super::stop::Stop;
use crate::error::{Error, Kind};
use crate::http::{Request, is_encoded};
use crate::json::Document;

/// The lowest rate at which a body must arrive, in bytes a second, measured over the body timeout. Without it, a client
/// that sends a byte now and then could hold the memory of its request as long as it likes.
const BODY_RATE_MIN: usize = 1024;

/// The smallest and the largest buffer for one read of a body; see [`crate::http::Connection::read_body_with`].
const BODY_READ_SIZE_MIN: usize = 16 * 1024;
const BODY_READ_SIZE_MAX: usize = 256 * 1024;

/// Reads a complete, unencoded body. Memory is claimed for the bytes that have arrived, not for the announced length.
pub(super) fn read_body(proxy: &Proxy, exchange: &Exchange, request: &Request) -> Result<Document, Stop> {
    if let Some(encoding) = request.header("content-encoding").filter(|encoding| is_encoded(encoding)) {
        let what = format!("content-encoding: '{encoding}' is not supported; send the body as it is");
        return Err(Error::new(Kind::InvalidRequest, what).code("request_body_encoding_unsupported").into());
    }
    let mut document = Document::new();
    let timeout = proxy.options.body_timeout;
    let total = proxy.options.body_total_timeout;
    let mut until = Instant::now() + total;
    let part_size_min =
        usize::try_from(timeout.as_secs()).unwrap_or(usize::MAX).saturating_mul(BODY_RATE_MIN);
    let mut part: Option<(Instant, usize)> = None;
    let before_read = |received: usize| {
        let room = received.clamp(BODY_READ_SIZE_MIN, BODY_READ_SIZE_MAX);
        let before_claim = Instant::now();
        let has_waited = exchange.claim(received + room)?;
        let now = Instant::now();
        // The wait for memory is not the client's fault.
        until += now.duration_since(before_claim);
        if now >= until {
            let seconds = total.as_secs();
            let what = format!("the request did not arrive in time: its body took more than {seconds} s");
            return Err(Error::new(Kind::RequestTimeout, what).into());
        }
        let (since, before) = *part.get_or_insert((now, received));
        if has_waited || received - before >= part_size_min {
            part = Some((now, received));
        } else if now.duration_since(since) >= timeout {
            let what = format!(
                "the request did not arrive in time: less than {part_size_min} bytes of its body in {} s",
                timeout.as_secs()
            );
            return Err(Error::new(Kind::RequestTimeout, what).into());
        }
        Ok(())
    };
    exchange.client().borrow_mut().read_body_with::<Stop>(document.bytes_mut(), before_read)?;
    exchange.share().settle();
    Ok(document)
}
