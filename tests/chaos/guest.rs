//! One of the clients: does its part of one plan after the other, and judges the answers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{Answer, post};
use super::faulty::Faulty;
use super::plan::{Dice, Ending, Plan, Role};
use super::validator::Ended;
use super::{HANG, Tally};

type Connection = BufReader<TcpStream>;

pub(crate) fn work(address: SocketAddr, upstreams: &[Faulty], tally: &Tally, seed: u64, until: Instant) {
    let mut kept: Option<Connection> = None;
    for number in 0.. {
        if Instant::now() >= until {
            return;
        }
        let plan = Plan::draw(seed + number);
        let connection = kept.take().unwrap_or_else(|| connect(address));
        kept = one(connection, &plan, upstreams, tally);
    }
}

fn connect(address: SocketAddr) -> Connection {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.set_write_timeout(Some(HANG)).unwrap();
    BufReader::new(stream)
}

/// Serves one plan. Returns the connection if it can be used again.
fn one(mut connection: Connection, plan: &Plan, upstreams: &[Faulty], tally: &Tally) -> Option<Connection> {
    let request = post(plan.request().to_string().as_bytes());
    match plan.role {
        Role::Babbles => {
            babble(connection, plan);
            tally.refused.fetch_add(1, Relaxed);
            return None;
        }
        Role::LeavesEarly(percent) => {
            let part = &request[..request.len() * percent / 100];
            connection.get_mut().write_all(part).unwrap();
            tally.left.fetch_add(1, Relaxed);
            return None;
        }
        Role::Leaves(size) => {
            connection.get_mut().write_all(&request).unwrap();
            // Some leave at once. The others leave after a number of bytes that the upstream surely sends.
            let size = match plan.ending {
                // The members of a pool may be busy or out.
                _ if !plan.pool().is_empty() => 0,
                _ if !plan.is_streamed || plan.model == "dead-1" || size < 1000 => 0,
                Ending::Endless => size,
                Ending::Stall(_) => 100,
                _ => 0,
            };
            connection.read_exact(&mut vec![0; size]).unwrap();
            if size == 0 {
                // This is between the first hook and the middle of the answer.
                std::thread::sleep(Duration::from_millis(plan.seed % 20));
            }
            upstreams.iter().for_each(|upstream| upstream.leaving(plan.seed));
            tally.left.fetch_add(1, Relaxed);
            return None;
        }
        Role::Reads | Role::ReadsSlowly => {}
    }
    connection.get_mut().write_all(&request).unwrap();
    let mut answer = Answer { status: 0, headers: Vec::new(), body: Vec::new() };
    if let Err(error) = receive(&mut connection, plan.role == Role::ReadsSlowly, &mut answer) {
        assert!(may_be_cut(plan, &answer), "{error}: {plan:?} {}", answer.text());
        tally.cut.fetch_add(1, Relaxed);
        return None;
    }
    let events = answer.body.windows(7).filter(|bytes| bytes == b"event: ").count();
    tally.events.fetch_add(events as u64, Relaxed);
    if judge(plan, &answer) { &tally.whole } else { &tally.failed }.fetch_add(1, Relaxed);
    (plan.keeps_connection && answer.header("connection") != Some("close")).then_some(connection)
}

/// Reads a whole HTTP response. After an error the answer has the chunks that came in full.
fn receive(connection: &mut Connection, slowly: bool, answer: &mut Answer) -> io::Result<()> {
    let first = line(connection)?;
    answer.status = first.split(' ').nth(1).unwrap_or_default().parse().map_err(io::Error::other)?;
    while let Some((name, value)) = line(connection)?.split_once(": ") {
        answer.headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    if let Some(length) = answer.header("content-length") {
        answer.body = vec![0; length.parse().map_err(io::Error::other)?];
        return connection.read_exact(&mut answer.body);
    }
    loop {
        let size = usize::from_str_radix(&line(connection)?, 16).map_err(io::Error::other)?;
        let mut piece = vec![0; size + 2];
        for part in piece.chunks_mut(64) {
            connection.read_exact(part)?;
            if slowly {
                // This client is on a slow line.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if size == 0 {
            return Ok(());
        }
        answer.body.extend_from_slice(&piece[..size]);
    }
}

fn line(connection: &mut Connection) -> io::Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Judges an answer. Returns true if it was complete.
fn judge(plan: &Plan, answer: &Answer) -> bool {
    let is_stream = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    let (ended, content, error) = if is_stream {
        assert!(plan.is_streamed, "{plan:?}");
        let (ended, content) = answer.events();
        let error = answer.data("error").pop().map(|data| data["error"]["type"].as_str().unwrap().to_owned());
        (ended, content, error)
    } else if answer.status == 200 {
        (Ended::Whole, answer.message(), None)
    } else {
        (Ended::Failed, Vec::new(), Some(answer.error().0))
    };
    let fits = match ended {
        Ended::Whole => is_whole(plan, &content),
        Ended::Failed => has_failed(plan, &content, &error.unwrap_or_default()),
    };
    assert!(fits, "{plan:?}\n{} {}", answer.status, answer.text());
    ended == Ended::Whole
}

/// The upstreams that may have answered.
fn members(plan: &Plan) -> &'static [u64] {
    if plan.pool().is_empty() { &[0] } else { plan.pool() }
}

/// True if an answer without an end may be one that a pool cut off: a stream with text or a part of a call, of which
/// nothing was made up, from a member that failed.
fn may_be_cut(plan: &Plan, answer: &Answer) -> bool {
    let deltas = answer.data("content_block_delta");
    let text: String = deltas.iter().filter_map(|data| data["delta"]["text"].as_str()).collect();
    let fails = |member: &u64| !matches!(plan.ending_at(*member), Ending::Whole { .. });
    let is_pool = plan.pool().iter().any(fails);
    is_pool && plan.is_streamed && !deltas.is_empty() && plan.whole_text().starts_with(&text)
}

/// True if the content is everything that the upstream sent and had to send.
fn is_whole(plan: &Plan, content: &[Value]) -> bool {
    let is_whole =
        |member: &u64| matches!(plan.ending_at(*member), Ending::Whole { .. } | Ending::Mended { .. });
    let said_all = members(plan).iter().any(is_whole);
    let text = content.first().and_then(|block| block["text"].as_str());
    let input = content.get(1).map(|block| block["input"].clone());
    said_all && plan.model != "dead-1" && text == Some(&plan.whole_text()) && input == plan.input()
}

/// True if the answer had to fail in this way, and has nothing that was not sent.
fn has_failed(plan: &Plan, content: &[Value], error: &str) -> bool {
    let text = content.first().and_then(|block| block["text"].as_str()).unwrap_or_default();
    if !plan.pool().is_empty() {
        let may_fail = |member: &u64| failure(plan, &plan.ending_at(*member), error).is_some();
        // All members may be full, or out, because of other requests.
        let is_known = error == "overloaded_error" || plan.pool().iter().any(may_fail);
        return is_known && plan.whole_text().starts_with(text);
    }
    let Some(least) = failure(plan, &plan.ending, error) else { return false };
    let least = if content.is_empty() && !plan.is_streamed { 0 } else { least };
    let sent: String = plan.text.iter().take(least).map(String::as_str).collect();
    plan.whole_text().starts_with(text) && text.len() >= sent.len()
}

/// The number of pieces that the upstream had surely sent before it failed with this error. `None`: it does not fail so.
fn failure(plan: &Plan, ending: &Ending, error: &str) -> Option<usize> {
    let (least, kind) = match ending {
        _ if plan.model == "dead-1" => (0, "api_error"),
        Ending::Whole { .. } | Ending::Endless => return None,
        // Only an answer that has begun is not tried again.
        Ending::Mended { .. } => return (plan.is_streamed && error == "overloaded_error").then_some(0),
        Ending::Short(pieces) | Ending::Closed(pieces) | Ending::Garbage(pieces) | Ending::Half(pieces) => {
            (*pieces, "api_error")
        }
        // A reset may overtake the bytes that were sent before it.
        Ending::Reset(_) | Ending::NoHttp | Ending::Dead => (0, "api_error"),
        Ending::Stall(pieces) => (*pieces, "timeout_error"),
        Ending::Silent => (0, "timeout_error"),
        Ending::Status(503) => (0, "overloaded_error"),
        Ending::Status(429) => (0, "rate_limit_error"),
        Ending::Status(400) => (0, "invalid_request_error"),
        Ending::Status(404) => (0, "not_found_error"),
        Ending::Status(_) => (0, "api_error"),
    };
    (error == kind).then_some(least)
}

/// Sends bytes that are not a valid request. The server may answer with an error, or only close.
fn babble(mut connection: Connection, plan: &Plan) {
    let mut dice = Dice::new(plan.seed ^ 0xba);
    let whole = post(plan.request().to_string().as_bytes());
    let mut bytes = match dice.below(5) {
        0 => (0..dice.below(3000)).map(|_| dice.number() as u8).collect(),
        1 => b"GET / HTTP/1.1\r\nno colon\r\n\r\n".to_vec(),
        2 => b"POST /v1/messages HTTP/1.1\r\ncontent-length: 3\r\n\r\n{]}".to_vec(),
        3 => b"POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        _ => whole,
    };
    // Some of its bytes are changed, too.
    for _ in 0..1 + dice.below(5) {
        let at = dice.below(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte = dice.number() as u8;
        }
    }
    let _ = connection.get_mut().write_all(&bytes);
    let _ = connection.get_mut().shutdown(std::net::Shutdown::Write);
    let mut rest = Vec::new();
    let _ = connection.read_to_end(&mut rest);
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&rest));
}
