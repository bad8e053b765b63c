//! A client's bytes on a connection: the requests that are read from them, and the end, are the same whole and cut.
//!
//! Input: one byte for the size of the pieces; the rest are the client's bytes.

#![no_main]

use std::io::{self, Read, Write};

use libfuzzer_sys::fuzz_target;
use sparkgap::http::{Connection, Request, RequestFailure, RequestLimits};

fuzz_target!(|input: &[u8]| {
    let Some((size, bytes)) = input.split_first() else { return };
    let whole = conversation(bytes, usize::MAX);
    assert_eq!(whole, conversation(bytes, usize::from(*size) + 1), "in pieces");
    assert_eq!(whole, conversation(bytes, 1), "byte by byte");
});

/// Limits small enough to be reached.
const LIMITS: RequestLimits = RequestLimits { head_size_max: 2000, body_size_max: 1000 };

/// The result of each request.
fn conversation(bytes: &[u8], size: usize) -> Vec<String> {
    let mut connection = Connection::new(Pieces { bytes, size }, LIMITS);
    let mut told = Vec::new();
    loop {
        match connection.read_head() {
            Ok(Some(request)) => told.push(shown(&request)),
            Ok(None) => return told,
            Err(failure) => {
                told.push(ending(&failure));
                return told;
            }
        }
        let mut body = Vec::new();
        match connection.read_body(&mut body) {
            Ok(()) => {
                assert!(body.len() <= LIMITS.body_size_max, "{}", body.len());
                told.push(format!("{body:?}"));
            }
            Err(failure) => told.push(ending(&failure)),
        }
        connection.respond(200, &[], b"ok").expect("there is a request, and the client takes all");
        told.push(format!("closes: {}", connection.must_close()));
    }
}

/// Everything in a request that other code depends on.
fn shown(request: &Request) -> String {
    let headers: Vec<_> = request.headers.iter().collect();
    assert!(headers.iter().all(|(name, value)| !name.contains('\n') && !value.contains(['\r', '\n'])));
    assert!(request.headers.len() <= 128);
    format!("{:?} {:?} {:?} {headers:?}", request.method, request.path, request.query)
}

fn ending(failure: &RequestFailure) -> String {
    match failure {
        RequestFailure::Reject(error) => error.status().to_string(),
        RequestFailure::Closed => "closed".to_string(),
        RequestFailure::Io(error) => panic!("the stream does not fail: {error}"),
    }
}

/// A client that sends its bytes in pieces, and accepts everything that it gets.
struct Pieces<'b> {
    bytes: &'b [u8],
    size: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = buffer.len().min(self.size);
        self.bytes.read(&mut buffer[..size])
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
