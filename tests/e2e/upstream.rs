//! An upstream that answers as a test says, and records the requests that it gets.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::HANG;

/// The name of its model.
pub(crate) const MODEL: &str = "qwen3";
pub(crate) const WINDOW: u64 = 8192;

/// The number of tokens that it counts for any prompt.
pub(crate) const TOKENS: u64 = 321;

const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// The fate of the connection after an answer.
#[derive(PartialEq)]
pub(crate) enum Then {
    Keep,
    Close,
}

/// Answers one request.
type Script = Box<dyn FnOnce(&mut Call) -> Then + Send>;

/// A request for an answer that it got: a chat completion, or one of another path.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The number of its connection, from 0.
    pub(crate) connection: usize,
    pub(crate) head: String,
    /// Its JSON; null for a body of another kind.
    pub(crate) body: Value,
    /// The same, as it came.
    pub(crate) raw: Vec<u8>,
}

#[derive(Default)]
struct State {
    scripts: Mutex<VecDeque<Script>>,
    seen: Mutex<Vec<Seen>>,
    /// The answers to other paths: path, status, body.
    pages: Mutex<Vec<(String, u16, String)>>,
    /// The number of tokens that it counts for a prompt, if not [`TOKENS`].
    tokens: Mutex<Option<u64>>,
    /// A gate for the list of models: each question for it is reported to the receiver, and is answered when the sender
    /// says so. `None`: no gate.
    models_gate: Option<(Sender<()>, Mutex<Receiver<()>>)>,
}

/// A scripted upstream. A request without a script is answered with `Hello.`
pub(crate) struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
}

impl Upstream {
    pub(crate) fn start() -> Upstream {
        Upstream::start_with(State::default())
    }

    /// An upstream that begins to accept at an address of [`closed`].
    pub(crate) fn open(socket: OwnedFd) -> Upstream {
        rustix::net::listen(&socket, 128).unwrap();
        Upstream::serve(TcpListener::from(socket), State::default())
    }

    /// An upstream that waits before it lists its models: each question is sent to the receiver, and answered when the
    /// sender says so.
    pub(crate) fn start_gated() -> (Upstream, Receiver<()>, Sender<()>) {
        let (asked, was_asked) = channel();
        let (open, opened) = channel();
        let state = State { models_gate: Some((asked, Mutex::new(opened))), ..State::default() };
        (Upstream::start_with(state), was_asked, open)
    }

    fn start_with(state: State) -> Upstream {
        Upstream::serve(TcpListener::bind("127.0.0.1:0").unwrap(), state)
    }

    fn serve(listener: TcpListener, state: State) -> Upstream {
        let address = listener.local_addr().unwrap();
        let state = Arc::new(state);
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (stream, state) = (stream.unwrap(), Arc::clone(&shared));
                thread::spawn(move || converse(stream, connection, &state));
            }
        });
        Upstream { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The next chat completion without a script gets this one.
    pub(crate) fn next(&self, script: impl FnOnce(&mut Call) -> Then + Send + 'static) {
        self.state.scripts.lock().unwrap().push_back(Box::new(script));
    }

    /// The next answer streams these chunks, and `[DONE]` after them.
    pub(crate) fn next_chunks(&self, chunks: Vec<Value>) {
        self.next(move |call| {
            call.stream_head();
            chunks.iter().for_each(|chunk| call.chunk(chunk));
            call.done()
        });
    }

    /// The next answer has this status and body.
    pub(crate) fn next_answer(&self, status: u16, body: &str) {
        let body = body.to_owned();
        self.next(move |call| call.whole(status, &body));
    }

    /// From now on a GET of this path has this answer.
    pub(crate) fn set_page(&self, path: &str, status: u16, body: &str) {
        self.page_setter().set(path, status, body);
    }

    /// Sets pages from within a script.
    pub(crate) fn page_setter(&self) -> PageSetter {
        PageSetter(Arc::clone(&self.state))
    }

    /// From now on each prompt is counted as this many tokens.
    pub(crate) fn set_tokens(&self, tokens: u64) {
        *self.state.tokens.lock().unwrap() = Some(tokens);
    }

    /// The chat completions that were asked for so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The only chat completion that was asked for.
    pub(crate) fn only_seen(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }
}

/// Sets the answers to other paths.
pub(crate) struct PageSetter(Arc<State>);

impl PageSetter {
    pub(crate) fn set(&self, path: &str, status: u16, body: &str) {
        let mut pages = self.0.pages.lock().unwrap();
        pages.retain(|(known, ..)| known != path);
        pages.push((path.to_owned(), status, body.to_owned()));
    }
}

fn converse(stream: TcpStream, connection: usize, state: &State) {
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.set_write_timeout(Some(HANG)).unwrap();
    let mut call = Call { stream: BufReader::new(stream), asked: Value::Null };
    while let Some(head) = call.head() {
        let pages = state.pages.lock().unwrap().clone();
        if let Some((_, status, body)) =
            pages.iter().find(|(path, ..)| head.starts_with(&format!("GET {path} ")))
        {
            call.whole(*status, body);
            continue;
        }
        if head.starts_with("GET /v1/models ") {
            if let Some((asked, opened)) = &state.models_gate {
                asked.send(()).unwrap();
                opened.lock().unwrap().recv().unwrap();
            }
            let model = json!({"id": MODEL, "object": "model", "owned_by": "vllm", "max_model_len": WINDOW});
            call.whole(200, &json!({"object": "list", "data": [model]}).to_string());
            continue;
        }
        if head.starts_with("GET ") {
            call.whole(404, r#"{"detail":"Not Found"}"#);
            continue;
        }
        let raw = call.body(&head);
        let body: Value = serde_json::from_slice(&raw).unwrap_or_default();
        call.asked.clone_from(&body);
        if head.starts_with("POST /tokenize ") {
            // vLLM sends the count first, then every token.
            let tokens = state.tokens.lock().unwrap().unwrap_or(TOKENS);
            let rest = format!(r#""max_model_len": {WINDOW}, "tokens": [1, 2, 3], "token_strs": null"#);
            call.whole(200, &format!(r#"{{"count": {tokens}, {rest}}}"#));
            continue;
        }
        assert!(head.starts_with("POST /v1/"), "{head}");
        state.seen.lock().unwrap().push(Seen { connection, head, body, raw });
        let script = state.scripts.lock().unwrap().pop_front();
        let then = match script {
            Some(script) => script(&mut call),
            None => {
                call.stream_head();
                text_chunks("Hello.").iter().for_each(|chunk| call.chunk(chunk));
                call.done()
            }
        };
        if then == Then::Close {
            return;
        }
    }
}

/// One request that is to be answered.
pub(crate) struct Call {
    stream: BufReader<TcpStream>,
    /// The body of the current request.
    pub(crate) asked: Value,
}

impl Call {
    /// The head of the next request; `None`: the connection has ended.
    fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(self.stream.read_line(&mut head), Ok(1..)) {
                return None;
            }
        }
        Some(head)
    }

    fn body(&mut self, head: &str) -> Vec<u8> {
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        body
    }

    /// Writes the text as it is. A write to a proxy that has left is not an error; scripts that wait for it notice.
    pub(crate) fn write(&mut self, text: &str) {
        let _ = self.stream.get_mut().write_all(text.as_bytes());
    }

    pub(crate) fn whole(&mut self, status: u16, body: &str) -> Then {
        self.whole_with(status, "", body)
    }

    pub(crate) fn whole_with(&mut self, status: u16, headers: &str, body: &str) -> Then {
        self.write(&format!(
            "HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            body.len()
        ));
        Then::Keep
    }

    pub(crate) fn stream_head(&mut self) {
        self.write(STREAM_HEAD);
    }

    /// Writes bytes of a stream, as one piece of it.
    pub(crate) fn piece(&mut self, text: &str) {
        self.write(&format!("{:x}\r\n{text}\r\n", text.len()));
    }

    /// Writes bytes of a stream, and returns whether they could be sent.
    pub(crate) fn try_piece(&mut self, text: &str) -> std::io::Result<()> {
        self.stream.get_mut().write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
    }

    pub(crate) fn chunk(&mut self, chunk: &Value) {
        self.piece(&format!("data: {chunk}\n\n"));
    }

    /// Ends the stream as vLLM does.
    pub(crate) fn done(&mut self) -> Then {
        self.piece("data: [DONE]\n\n");
        self.end()
    }

    /// Ends the stream without `[DONE]`.
    pub(crate) fn end(&mut self) -> Then {
        self.write("0\r\n\r\n");
        Then::Keep
    }

    /// Closes the connection. The other side can see that when this returns.
    pub(crate) fn close(&mut self) {
        self.stream.get_mut().shutdown(Shutdown::Both).unwrap();
    }

    /// A write that takes longer than this fails.
    pub(crate) fn give_up_writes_after(&mut self, time: std::time::Duration) {
        self.stream.get_mut().set_write_timeout(Some(time)).unwrap();
    }

    /// Waits until the other side has closed.
    pub(crate) fn wait_for_close(&mut self) {
        let mut rest = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
        assert_eq!(rest, b"", "more was asked");
    }
}

/// Holds answers back until it is opened.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub(crate) fn wait(&self) {
        let (is_open, opened) = &*self.0;
        let waited = opened.wait_timeout_while(is_open.lock().unwrap(), HANG, |is_open| !*is_open);
        assert!(*waited.unwrap().0, "the gate stayed closed");
    }
}

/// A chunk as vLLM sends it.
#[allow(clippy::needless_pass_by_value, reason = "what json! has made is handed over")]
pub(crate) fn delta(delta: Value) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]})
}

pub(crate) fn finish(reason: &str) -> Value {
    let mut chunk = delta(json!({}));
    chunk["choices"][0]["finish_reason"] = reason.into();
    chunk
}

pub(crate) fn usage(prompt: u64, completion: u64) -> Value {
    let total = prompt + completion;
    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [],
        "usage": {"prompt_tokens": prompt, "total_tokens": total, "completion_tokens": completion}})
}

/// The chunks of a complete answer of text.
pub(crate) fn text_chunks(text: &str) -> Vec<Value> {
    let content = |text: &str| delta(json!({"content": text}));
    let role = delta(json!({"role": "assistant", "content": ""}));
    let pieces = text.split_inclusive(' ').map(content);
    [role].into_iter().chain(pieces).chain([finish("stop"), usage(20, 5)]).collect()
}

/// A port that neither accepts nor refuses a connection, as long as the descriptors beside it are kept.
pub(crate) fn deaf() -> (SocketAddr, Vec<OwnedFd>) {
    use rustix::net::{
        AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = || socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    let listener = socket();
    bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen(&listener, 0).unwrap();
    let address = SocketAddr::try_from(getsockname(&listener).unwrap()).unwrap();
    let mut held = vec![listener];
    // Its queue has room for one connection, and the kernel accepts a few more.
    for _ in 0..4 {
        let filler = socket();
        let _ = connect(&filler, &address);
        held.push(filler);
    }
    (address, held)
}

/// A port that refuses connections, as long as nobody listens on the socket beside it.
pub(crate) fn closed() -> (SocketAddr, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    (SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap(), socket)
}
