//! One document of an upstream: read as a chunk, and as the body of an error. Both give the same twice.
//!
//! Input: two bytes for the status, one for `retry-after`; the rest is the document.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sparkgap::json::Parser;
use sparkgap::openai::{Chunk, read_failure};

fuzz_target!(|input: &[u8]| {
    let [high, low, retry, document @ ..] = input else { return };
    assert_eq!(chunk(document), chunk(document));
    let status = 400 + u16::from_be_bytes([*high, *low]) % 200;
    let retry_after = (*retry > 0).then_some(u32::from(*retry));
    let failure = || format!("{:?}", read_failure(status, &mut document.to_vec(), retry_after));
    assert_eq!(failure(), failure());
});

/// Everything that a chunk holds, as text.
fn chunk(document: &[u8]) -> Option<String> {
    let mut bytes = document.to_vec();
    let read = Parser::default().read(&mut bytes, |tape| {
        let chunk = Chunk::read(tape);
        let mut told = format!("{:?}", chunk.counts);
        if let Some(choice) = chunk.choice {
            told += &format!("{:?} {:?}", choice.finish_reason, choice.stop);
            choice.delta.reasonings().chain(choice.delta.texts()).for_each(|text| told.push_str(text));
            for call in choice.delta.tool_calls() {
                told += &format!("{:?} {:?} {:?}", call.index, call.id, call.name);
                call.arguments(|text| told.push_str(text));
            }
        }
        told
    });
    read.ok()
}
