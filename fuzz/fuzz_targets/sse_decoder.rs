//! The decoder of server-sent events, compared with a plain implementation of the standard, whole and cut.
//!
//! Input: one byte for the size of the pieces; the rest is the stream.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sparkgap::sse::Decoder;

/// Whether the event's name is `error`, and its data.
type Event = (bool, Vec<u8>);

fuzz_target!(|input: &[u8]| {
    let Some((size, bytes)) = input.split_first() else { return };
    let expected = plainly(bytes);
    assert_eq!(decoded(bytes, bytes.len().max(1)), expected, "whole");
    let size = usize::from(*size) + 1;
    assert_eq!(decoded(bytes, size), expected, "in pieces of {size}");
    small(bytes, size);
});

fn decoded(bytes: &[u8], size: usize) -> Vec<Event> {
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    for piece in bytes.chunks(size) {
        decoder.feed(piece);
        drain(&mut decoder, &mut events);
    }
    decoder.end();
    drain(&mut decoder, &mut events);
    events
}

fn drain(decoder: &mut Decoder, events: &mut Vec<Event>) {
    while let Some(event) = decoder.next_event().expect("the input is shorter than the limit") {
        // A parser may change the data in any way.
        events.push((event.is_error, event.data.to_vec()));
        event.data.fill(b'\n');
    }
}

/// Decodes with a small limit: an event that comes before the refusal is not longer than the bytes that were read.
fn small(bytes: &[u8], size: usize) {
    let mut decoder = Decoder::new(size);
    for piece in bytes.chunks(size) {
        decoder.feed(piece);
        loop {
            match decoder.next_event() {
                Ok(Some(event)) => assert!(event.data.len() <= 2 * size),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// WHATWG HTML, section 9.2.6, word for word, except that an event without data is dropped, that the end of the stream
/// ends an event, and that a field `error` is data of an error, as old llama.cpp writes it.
fn plainly(bytes: &[u8]) -> Vec<Event> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut events = Vec::new();
    let mut data: Option<Vec<u8>> = None;
    let mut is_error = false;
    for line in lines(bytes) {
        if line.is_empty() {
            if let Some(data) = data.take().filter(|data| !data.is_empty()) {
                events.push((is_error, data));
            }
            is_error = false;
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let field = &line[..colon];
        match field {
            b"data" | b"error" => {
                is_error |= field == b"error";
                match &mut data {
                    Some(data) => {
                        data.push(b'\n');
                        data.extend_from_slice(value);
                    }
                    None => data = Some(value.to_vec()),
                }
            }
            b"event" => is_error = value == b"error",
            _ => {}
        }
    }
    events
}

/// The lines without their ends, with a blank line after the last one.
fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = vec![Vec::new()];
    let mut after_return = false;
    for byte in bytes {
        match byte {
            b'\n' if after_return => {}
            b'\n' | b'\r' => lines.push(Vec::new()),
            other => lines.last_mut().expect("at least one").push(*other),
        }
        after_return = *byte == b'\r';
    }
    lines.push(Vec::new());
    lines
}
