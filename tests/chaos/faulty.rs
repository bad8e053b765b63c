//! An upstream: does its part of each plan, and notes how long a request stayed after its client had left.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::HANG;
use super::plan::{Dice, Ending, Plan};
use super::upstream::{delta, finish, usage};

#[derive(Default)]
struct State {
    /// 0, or the number of a member of pools.
    number: u64,
    /// The number of requests for each plan.
    tries: Mutex<HashMap<u64, u32>>,
    /// The times when clients left while their requests were here.
    left: Mutex<HashMap<u64, Instant>>,
    outlived: Mutex<Vec<Duration>>,
    busy: AtomicUsize,
}

pub(crate) struct Faulty {
    address: SocketAddr,
    state: Arc<State>,
}

impl Faulty {
    pub(crate) fn start(number: u64) -> Faulty {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { number, ..State::default() });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, state) = (stream.unwrap(), Arc::clone(&shared));
                thread::spawn(move || converse(stream, &state));
            }
        });
        Faulty { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Call it just before the client of this plan closes its connection.
    pub(crate) fn leaving(&self, seed: u64) {
        self.state.left.lock().unwrap().insert(seed, Instant::now());
    }

    /// The times by which requests outlived their clients, in ascending order.
    pub(crate) fn outlived(&self) -> Vec<Duration> {
        let mut outlived = self.state.outlived.lock().unwrap().clone();
        outlived.sort();
        outlived
    }

    /// Waits until no request is here.
    pub(crate) fn wait_until_idle(&self) {
        let until = Instant::now() + HANG;
        while self.state.busy.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < until, "a request stays");
            thread::yield_now();
        }
    }
}

fn converse(stream: TcpStream, state: &State) {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.set_write_timeout(Some(HANG)).unwrap();
    let mut stream = BufReader::new(stream);
    // The way it ends does not matter here: the client judges the result.
    while let Ok(Some((head, body))) = request(&mut stream) {
        if head.starts_with("GET ") {
            let models = json!({"object": "list", "data": [{"id": "qwen3", "object": "model", "owned_by": "vllm", "max_model_len": 8192}]});
            if whole(stream.get_mut(), 200, &models.to_string()).is_err() {
                return;
            }
            continue;
        }
        let Some(plan) = Plan::of(&body) else { return };
        state.busy.fetch_add(1, Ordering::SeqCst);
        let goes_on = answer(&mut stream, &plan, state);
        if let Some(left) = state.left.lock().unwrap().remove(&plan.seed) {
            state.outlived.lock().unwrap().push(left.elapsed());
        }
        state.busy.fetch_sub(1, Ordering::SeqCst);
        if !goes_on.unwrap_or(false) {
            return;
        }
    }
}

fn request(stream: &mut BufReader<TcpStream>) -> io::Result<Option<(String, String)>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body)?;
    Ok(Some((head, String::from_utf8(body).unwrap())))
}

fn whole(stream: &mut TcpStream, status: u16, body: &str) -> io::Result<()> {
    let head = "Scripted\r\ncontent-type: application/json";
    write!(stream, "HTTP/1.1 {status} {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Answers one request. Returns true if the connection goes on.
fn answer(stream: &mut BufReader<TcpStream>, plan: &Plan, state: &State) -> io::Result<bool> {
    let mut dice = Dice::new(plan.seed ^ 0xfa);
    let socket = stream.get_mut();
    match plan.ending_at(state.number) {
        Ending::Whole { says_done } => stream_whole(socket, plan, says_done, &mut dice),
        Ending::Short(pieces) => {
            send(socket, &(body(plan, pieces, &mut dice) + "0\r\n\r\n"), &mut dice)?;
            Ok(true)
        }
        Ending::Closed(pieces) => {
            send(socket, &body(plan, pieces, &mut dice), &mut dice)?;
            Ok(false)
        }
        Ending::Reset(pieces) => {
            send(socket, &body(plan, pieces, &mut dice), &mut dice)?;
            rustix::net::sockopt::set_socket_linger(&*socket, Some(Duration::ZERO))?;
            Ok(false)
        }
        Ending::Stall(pieces) => {
            send(socket, &body(plan, pieces, &mut dice), &mut dice)?;
            until_left(stream)
        }
        Ending::Garbage(pieces) => {
            let garbage =
                dice.pick(&["data: {nope\n\n", "data: }{\n\n", "data: \u{1}\u{2}\n\n", "data: [1,\n\n"]);
            send(socket, &(body(plan, pieces, &mut dice) + &chunk(garbage) + "0\r\n\r\n"), &mut dice)?;
            Ok(true)
        }
        Ending::Half(pieces) => {
            let half = format!("data: {}", delta(json!({"content": "lost"})));
            let half = chunk(&half[..half.len() / 2]);
            send(socket, &(body(plan, pieces, &mut dice) + &half + "0\r\n\r\n"), &mut dice)?;
            Ok(true)
        }
        Ending::Status(status) => {
            whole(socket, status, &json!({"error": {"message": "scripted", "code": status}}).to_string())?;
            Ok(true)
        }
        Ending::NoHttp => {
            socket.write_all(b"SSH-2.0-OpenSSH_9.2\r\n")?;
            Ok(false)
        }
        Ending::Dead => Ok(false),
        Ending::Silent => until_left(stream),
        Ending::Mended { status } => {
            let tries = {
                let mut tries = state.tries.lock().unwrap();
                let tries = tries.entry(plan.seed).or_default();
                *tries += 1;
                *tries
            };
            if tries > 1 {
                state.tries.lock().unwrap().remove(&plan.seed);
                return stream_whole(socket, plan, true, &mut dice);
            }
            // These words are asked again however late they come; a bare 503 only if it comes soon.
            let refusal = json!({"error": {"message": "Loading model", "code": status}});
            whole(socket, status, &refusal.to_string())?;
            Ok(true)
        }
        Ending::Endless => {
            send(socket, &body(plan, 0, &mut dice), &mut dice)?;
            loop {
                for piece in plan.chunks().iter().take(plan.text.len()) {
                    socket.write_all(chunk(&format!("data: {piece}\n\n")).as_bytes())?;
                    // The answer comes at this pace.
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }
}

/// Waits until the proxy closes.
fn until_left(stream: &mut BufReader<TcpStream>) -> io::Result<bool> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    assert_eq!(rest, b"", "more was asked");
    Ok(false)
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn stream_whole(socket: &mut TcpStream, plan: &Plan, says_done: bool, dice: &mut Dice) -> io::Result<bool> {
    let mut events = events(plan, usize::MAX);
    events += &format!("data: {}\n\ndata: {}\n\n", finish(plan.finish()), usage(20, 5));
    if says_done {
        events += "data: [DONE]\n\n";
    }
    send(socket, &(head() + &chunked(&events, dice) + "0\r\n\r\n"), dice)?;
    Ok(true)
}

fn head() -> String {
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned()
}

/// The head and this many pieces, in chunks that begin and end anywhere.
fn body(plan: &Plan, pieces: usize, dice: &mut Dice) -> String {
    head() + &chunked(&events(plan, pieces), dice)
}

fn events(plan: &Plan, pieces: usize) -> String {
    let role = delta(json!({"role": "assistant", "content": ""}));
    let chunks = plan.chunks();
    let chunks = std::iter::once(&role).chain(chunks.iter().take(pieces));
    chunks.map(|chunk| format!("data: {chunk}\n\n")).collect()
}

fn chunked(text: &str, dice: &mut Dice) -> String {
    let size = dice.pick(&[7, 100, 1000, 100_000]);
    let (mut out, mut rest) = (String::new(), text);
    while !rest.is_empty() {
        let mut end = (1 + dice.below(size)).min(rest.len());
        while !rest.is_char_boundary(end) {
            end += 1;
        }
        out += &chunk(&rest[..end]);
        rest = &rest[end..];
    }
    out
}

/// Writes the text in pieces of any size, some with a pause between them.
fn send(socket: &mut TcpStream, text: &str, dice: &mut Dice) -> io::Result<()> {
    let (size, drips) = (dice.pick(&[3, 200, 5000, 1 << 20]), dice.chance(20));
    let mut rest = text.as_bytes();
    // Single bytes of a long text would take the whole time of the test.
    let size = if rest.len() > 2000 { size.max(50) } else { size };
    while !rest.is_empty() {
        let (now, later) = rest.split_at((1 + dice.below(size)).min(rest.len()));
        socket.write_all(now)?;
        rest = later;
        if drips && dice.chance(10) {
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}
