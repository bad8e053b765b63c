//! Fixed workloads for counting instructions. `instructions NAME 0` prepares one, `instructions NAME 1` also runs it.
//! The difference is the cost of the workload, the same in every run. `.ci/instructions` compares it with committed
//! figures.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on has nothing better to do than to stop"
)]

mod workloads;

use std::hint::black_box;
use std::io::{self, Read, Write};

use sparkgap::http::{Connection, RequestLimits};
use sparkgap::json::Document;
use workloads::{Kind, Request};

/// The deltas of an answer.
const DELTAS: usize = 10_000;

/// The requests on one connection.
const REQUESTS: usize = 500;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (Some(name), Some(times)) = (arguments.next(), arguments.next()) else { return };
    let times: usize = times.parse().unwrap();
    match name.as_str() {
        "text" => answer(Kind::Text, times),
        "reasoning" => answer(Kind::Reasoning, times),
        "arguments" => answer(Kind::Arguments, times),
        "request" => request(times),
        "http" => http(times),
        _ => std::process::abort(),
    }
}

fn answer(kind: Kind, times: usize) {
    let answer = workloads::answer(kind, DELTAS);
    let mut out = Vec::new();
    let plans: Vec<_> = (0..times).map(|_| workloads::plan(0)).collect();
    let spare = workloads::plan(0); // so that work that is done once is part of both runs
    for plan in plans {
        black_box(workloads::relay(&answer, plan, &mut out));
    }
    drop(spare);
}

fn request(times: usize) {
    let body = Request { size: 300_000, stream: true, max_tokens: 4096 }.body();
    let bodies = vec![body; times];
    let mut out = Vec::new();
    for body in bodies {
        workloads::translate_request(&mut Document::from(body), &mut out);
        black_box(&out);
    }
}

/// A client in memory: it sends its bytes, and accepts everything.
struct Memory<'m>(&'m [u8]);

impl Read for Memory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(black_box(bytes).len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Heads, bodies and short streamed responses on one kept connection.
fn http(times: usize) {
    let body = Request { size: 3000, stream: true, max_tokens: 4096 }.body();
    let mut requests = Vec::new();
    for _ in 0..REQUESTS {
        requests.extend_from_slice(workloads::head("/v1/messages", body.len()).as_bytes());
        requests.extend_from_slice(&body);
    }
    for _ in 0..times {
        let mut connection = Connection::new(Memory(&requests), RequestLimits::default());
        let mut body = Vec::new();
        while let Some(request) = connection.read_head().unwrap() {
            black_box(&request);
            body.clear();
            connection.read_body(&mut body).unwrap();
            connection.start_stream(200, &[("content-type", "text/event-stream")]).unwrap();
            (0..10).for_each(|_| connection.write(b"event: ping\ndata: {\"type\":\"ping\"}\n\n").unwrap());
            connection.finish().unwrap();
        }
    }
}
