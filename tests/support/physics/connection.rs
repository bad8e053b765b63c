//! The HTTP of the model server: `/v1/chat/completions`, `/v1/models`, `/metrics`, `/tokenize` and `/health`, in vLLM's
//! shape.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::engine::Job;
use super::render;
use super::server::{Answer, CachedClaim, Fault, MODEL, Phase, Progress, Shared, Ticket, WINDOW};

/// The tokens that the request allows for its answer.
pub(super) fn max_tokens(chat: &Value) -> Option<u64> {
    chat["max_completion_tokens"].as_u64().or_else(|| chat["max_tokens"].as_u64())
}

/// Answers requests until one side closes. The way it ends does not matter here: the client judges the result.
pub(super) fn converse(stream: TcpStream, shared: &Shared) {
    let mut stream = BufReader::new(stream);
    let _ = stream.get_ref().set_nodelay(true);
    while let Ok(Some((head, body))) = read_request(&mut stream) {
        if !matches!(answer(&mut stream, shared, &head, &body), Ok(true)) {
            return;
        }
    }
}

/// The head in lower case and the body of the next request; `None`: the connection has ended.
fn read_request(stream: &mut BufReader<TcpStream>) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap_or("0");
    let mut body = vec![0; length.trim().parse().unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok(Some((head, body)))
}

/// Answers one request. Returns true if the connection goes on.
fn answer(stream: &mut BufReader<TcpStream>, shared: &Shared, head: &str, body: &[u8]) -> io::Result<bool> {
    let path = head.split(' ').nth(1).unwrap_or_default();
    let fault = if path == "/v1/chat/completions" { shared.take_fault() } else { shared.fault() };
    let socket = stream.get_mut();
    if fault == Some(Fault::Loading) {
        let error = json!({"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}});
        return whole(socket, 503, &error.to_string());
    }
    let chat: Value = serde_json::from_slice(body).unwrap_or_default();
    match path {
        "/v1/chat/completions" => complete(socket, shared, &chat, fault),
        "/v1/models" => {
            let model = json!({"id": MODEL, "object": "model", "created": 1, "owned_by": "vllm", "root": MODEL,
                "parent": null, "max_model_len": WINDOW});
            whole(socket, 200, &json!({"object": "list", "data": [model]}).to_string())
        }
        "/metrics" => whole(socket, 200, &shared.metrics()),
        "/health" => whole(socket, 200, ""),
        "/tokenize" => {
            let count = render::tokens(&render::prompt(&chat));
            whole(socket, 200, &json!({"count": count, "max_model_len": WINDOW, "tokens": []}).to_string())
        }
        _ => whole(socket, 404, r#"{"detail":"Not Found"}"#),
    }
}

fn whole(socket: &mut TcpStream, status: u16, body: &str) -> io::Result<bool> {
    let kind = if body.starts_with('{') { "application/json" } else { "text/plain; charset=utf-8" };
    let length = body.len();
    write!(
        socket,
        "HTTP/1.1 {status} Scripted\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    Ok(true)
}

/// A request that the box works on.
struct Completion<'c> {
    socket: &'c mut TcpStream,
    shared: &'c Shared,
    fault: Option<Fault>,
    is_streamed: bool,
    prompt: u64,
    answer: Answer,
    text: String,
    is_cut: bool,
}

fn complete(socket: &mut TcpStream, shared: &Shared, chat: &Value, fault: Option<Fault>) -> io::Result<bool> {
    let prompt = render::prompt(chat);
    let tokens = render::tokens(&prompt);
    let asked = max_tokens(chat).unwrap_or(WINDOW.saturating_sub(tokens));
    if tokens + asked.max(1) > WINDOW {
        let message = format!(
            "This model's maximum context length is {WINDOW} tokens. However, you requested {asked} output tokens \
             and your prompt contains at least {tokens} input tokens, for a total of at least {} tokens. Please \
             reduce the length of the input prompt or the number of requested output tokens.",
            tokens + asked
        );
        let error =
            json!({"error": {"message": message, "type": "BadRequestError", "param": null, "code": 400}});
        return whole(socket, 400, &error.to_string());
    }
    let wanted = shared.answer(chat);
    let thinking = wanted.thinking.min(asked);
    let answer = Answer { thinking, text: wanted.text.min(asked - thinking) };
    let text = render::answer(&prompt, answer.text);
    let job = render::job(&prompt, thinking, &text);
    let mut completion = Completion {
        socket,
        shared,
        fault,
        is_streamed: chat["stream"] == true,
        prompt: tokens,
        answer,
        text,
        is_cut: answer != wanted,
    };
    let has_usage = chat["stream_options"]["include_usage"] == true;
    completion.run(job, has_usage)
}

impl Completion<'_> {
    fn run(&mut self, job: Job, has_usage: bool) -> io::Result<bool> {
        self.reset_if(Phase::Head)?;
        let ticket = self.shared.arrive(job);
        let result = self.follow(ticket);
        self.shared.forget(ticket);
        let progress = result?;
        let usage = self.usage(&progress);
        if !self.is_streamed {
            let message = json!({"role": "assistant", "content": self.text});
            let choice = json!({"index": 0, "message": message, "finish_reason": self.finish()});
            let whole_answer = json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1,
                "model": MODEL, "choices": [choice], "usage": usage});
            return whole(self.socket, 200, &whole_answer.to_string());
        }
        self.delta(&json!({}), &self.finish().into())?;
        if has_usage {
            self.event(&json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1,
                "model": MODEL, "choices": [], "usage": usage}))?;
        }
        let done = "data: [DONE]\n\n";
        write!(self.socket, "{:x}\r\n{done}\r\n0\r\n\r\n", done.len())?;
        Ok(true)
    }

    /// Passes tokens on as they come, until the last one.
    fn follow(&mut self, ticket: Ticket) -> io::Result<Progress> {
        if self.is_streamed {
            self.socket.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n",
            )?;
        }
        let total = (self.answer.thinking + self.answer.text).max(1);
        let (mut sent, mut progress) = (0, Progress::default());
        loop {
            self.reset_if(match sent {
                0 => Phase::Prefill,
                _ if sent <= self.answer.thinking => Phase::Thinking,
                _ => Phase::Text,
            })?;
            if sent == total {
                return Ok(progress);
            }
            progress = self.shared.wait(ticket, sent).ok_or(io::ErrorKind::ConnectionReset)?;
            let produced = if progress.is_done { total } else { progress.produced };
            // Thinking and text are sent apart, so that a reset can come between them.
            let end = if sent < self.answer.thinking { produced.min(self.answer.thinking) } else { produced };
            if end == sent {
                self.look_for_client()?;
            } else if self.is_streamed {
                self.pass_on(sent, end)?;
            }
            sent = end;
        }
    }

    /// Sends the tokens from `start` to `end`.
    fn pass_on(&mut self, start: u64, end: u64) -> io::Result<()> {
        if start == 0 {
            self.delta(&json!({"role": "assistant", "content": ""}), &Value::Null)?;
        }
        let thinking = self.answer.thinking;
        if start < thinking {
            let words = "hm, ".repeat((end.min(thinking) - start) as usize);
            self.delta(&json!({"reasoning": words}), &Value::Null)?;
        }
        let place = |token: u64| (token.saturating_sub(thinking) as usize * 4).min(self.text.len());
        let words = self.text[place(start)..place(end)].to_owned();
        if !words.is_empty() {
            self.delta(&json!({"content": words}), &Value::Null)?;
        }
        Ok(())
    }

    fn finish(&self) -> &'static str {
        if self.is_cut { "length" } else { "stop" }
    }

    fn usage(&self, progress: &Progress) -> Value {
        let output = self.answer.thinking + self.answer.text;
        let mut usage = json!({"prompt_tokens": self.prompt, "completion_tokens": output,
            "total_tokens": self.prompt + output});
        let cached = match self.shared.claim() {
            CachedClaim::Truth => progress.cached,
            CachedClaim::Nothing => 0,
            CachedClaim::Everything => self.prompt,
            CachedClaim::Missing => return usage,
        };
        usage["prompt_tokens_details"] = json!({"cached_tokens": cached});
        usage
    }

    fn delta(&mut self, delta: &Value, finish: &Value) -> io::Result<()> {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        self.event(&json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1,
            "model": MODEL, "choices": [choice]}))
    }

    fn event(&mut self, event: &Value) -> io::Result<()> {
        let text = format!("data: {event}\n\n");
        self.socket.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
    }

    /// Resets the connection if a fault says so. The error ends the connection's thread, which closes it.
    fn reset_if(&mut self, phase: Phase) -> io::Result<()> {
        let reset = Some(Fault::Reset(phase));
        if self.fault != reset && self.shared.fault() != reset {
            return Ok(());
        }
        rustix::net::sockopt::set_socket_linger(&*self.socket, Some(Duration::ZERO))?;
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    /// Fails if the client has left.
    fn look_for_client(&mut self) -> io::Result<()> {
        self.socket.set_nonblocking(true)?;
        let seen = self.socket.peek(&mut [0]);
        self.socket.set_nonblocking(false)?;
        match seen {
            Ok(0) => Err(io::ErrorKind::ConnectionAborted.into()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }
}
