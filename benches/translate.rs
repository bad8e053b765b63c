//! The translation alone: no socket, no thread.
//!
//! `cargo bench --bench translate`. An answer has 1,000 deltas, so microseconds of an answer are nanoseconds of an event.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on has nothing better to do than to stop"
)]

mod workloads;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use sparkgap::json::Document;
use workloads::{Kind, Request};

fn main() {
    divan::main();
}

/// The deltas of an answer: a thousand, so that microseconds of an answer are nanoseconds of an event.
const DELTAS: usize = 1000;

/// The decoder, the translation, and the events encoded into a reused buffer.
#[divan::bench(args = [Kind::Text, Kind::Reasoning, Kind::Arguments, Kind::Counted])]
fn answer_of_1000_deltas(bencher: Bencher<'_, '_>, kind: Kind) {
    let answer = workloads::answer(kind, DELTAS);
    let mut out = Vec::new();
    bencher
        .counter(ItemsCount::new(DELTAS))
        .with_inputs(|| workloads::plan(0))
        .bench_local_values(|plan| workloads::relay(black_box(&answer), plan, &mut out));
}

/// Parse, read, translate, write. Everything except the parser's buffers is new for each request.
#[divan::bench(args = [3_000, 30_000, 300_000, 2_000_000])]
fn request_of_bytes(bencher: Bencher<'_, '_>, size: usize) {
    let body = Request { size, stream: true, max_tokens: 4096 }.body();
    bencher.counter(BytesCount::new(body.len())).with_inputs(|| body.clone()).bench_local_values(|body| {
        // The proxy uses a new document and a new buffer for each request, too.
        let mut out = Vec::new();
        workloads::translate_request(&mut Document::from(body), &mut out);
        out
    });
}

/// The parse alone, the largest part of the work on a request.
#[divan::bench(args = [3_000, 30_000, 300_000, 2_000_000])]
fn parse_of_bytes(bencher: Bencher<'_, '_>, size: usize) {
    let body = Request { size, stream: true, max_tokens: 4096 }.body();
    bencher.counter(BytesCount::new(body.len())).with_inputs(|| body.clone()).bench_local_values(|body| {
        let mut document = Document::from(body);
        black_box(document.parse().unwrap());
    });
}

/// Stop sequences are searched in every delta.
#[divan::bench(args = [0, 1, 4, 16, 64])]
fn answer_with_stop_sequences(bencher: Bencher<'_, '_>, stop_sequences: usize) {
    let answer = workloads::answer(Kind::Text, DELTAS);
    let mut out = Vec::new();
    bencher
        .counter(ItemsCount::new(DELTAS))
        .with_inputs(|| workloads::plan(stop_sequences))
        .bench_local_values(|plan| workloads::relay(black_box(&answer), plan, &mut out));
}

/// Tool arguments in fragments of four bytes, up to a megabyte.
#[divan::bench(args = [1_000, 16_000, 262_144])]
fn fragments_of_arguments(bencher: Bencher<'_, '_>, count: usize) {
    let answer = workloads::fragments(count);
    let mut out = Vec::new();
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| workloads::plan(0))
        .bench_local_values(|plan| workloads::relay(black_box(&answer), plan, &mut out));
}
