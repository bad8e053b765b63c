//! Made-up people for `sparkgap demo --busy`: they send requests to the server of this process, as Claude Code would.
//!
//! Each person is a thread with one request at a time. A conversation grows turn by turn, and begins anew when it is long.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crate::hash::Fnv;
use crate::json::Value;
use crate::threads;

/// The number of people, of agents of the first of them, and of those who ask for titles.
const PEOPLE: [(u64, &str); 7] =
    [(6, "main"), (0, "subagent"), (1, "main"), (2, "main"), (3, "main"), (4, "main"), (5, "auxiliary")];

/// A conversation that has more bytes than this begins anew: about 50,000 tokens.
const CONVERSATION_MAX: usize = 200_000;

/// The longest time without a byte of an answer. After that a person gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Numbers that look random, the same for each person in every run.
struct Dice(Fnv);

impl Dice {
    /// A number from 0 to `most`.
    fn roll(&mut self, most: u64) -> u64 {
        self.0 = self.0.push(b"roll");
        self.0.mixed() % (most + 1)
    }
}

/// Lets the people begin to work with the server at this address. They end with the process.
///
/// # Errors
/// There are no threads left.
pub fn begin(address: SocketAddr) -> io::Result<()> {
    for (person, class) in PEOPLE {
        threads::background("demo-person", move || work(address, person, class))?;
    }
    Ok(())
}

/// Works until the server cannot be reached.
fn work(address: SocketAddr, person: u64, class: &str) {
    let mut dice = Dice(Fnv::EMPTY.push(&person.to_le_bytes()).push(class.as_bytes()));
    let is_title = class == "auxiliary";
    let mut meeting = 0u64;
    loop {
        meeting += 1;
        // An agent has the session of the person that it works for.
        let of_whom = if class == "subagent" { 6 } else { person };
        let session = Fnv::EMPTY.push(&of_whom.to_le_bytes()).push(&meeting.to_le_bytes()).hex();
        let mut system =
            format!("You work on project {person}. {}", "Read a file before you change it. ".repeat(900));
        let mut messages: Vec<(&str, String)> = Vec::new();
        let size = |messages: &[(&str, String)]| messages.iter().map(|(_, text)| text.len()).sum::<usize>();
        while size(&messages) < CONVERSATION_MAX {
            thread::sleep(Duration::from_millis(500 + dice.roll(if is_title { 9000 } else { 4000 })));
            if !is_title && dice.roll(14) == 0 {
                // Such a change costs the whole prefix: the page shows it, and its cause.
                system = format!("It is {} o'clock. {system}", dice.roll(23));
            }
            let lines = if is_title { 3 } else { 60 + dice.roll(500) };
            let mut question = format!("Turn {} of {meeting}:", messages.len());
            for line in 0..lines {
                let _ = write!(question, " line {line} of a file,");
            }
            messages.push(("user", question));
            let output = if is_title { 20 } else { 60 + dice.roll(300) };
            let head = format!(
                "x-claude-code-session-id: {session}\r\nx-claude-code-request-class: {class}\r\n{}",
                if class == "subagent" { "x-claude-code-agent-id: explorer\r\n" } else { "" }
            );
            // A request without messages now and then, so that there are errors to look at.
            let sent: &[_] = if dice.roll(50) == 0 { &[] } else { &messages };
            if ask(address, &head, &body(&system, sent, output, is_title)).is_err() {
                return;
            }
            messages.push(("assistant", "Done. ".repeat(20)));
        }
    }
}

/// The body of a request.
fn body(system: &str, messages: &[(&str, String)], output: u64, is_title: bool) -> String {
    let message = |(role, text): &(&str, String)| {
        Value::object([("role", (*role).to_owned().into()), ("content", text.clone().into())])
    };
    let model = if is_title { "claude-haiku-5-5" } else { "claude-opus-5-5" };
    let body = [
        ("model", model.into()),
        ("max_tokens", output.into()),
        ("stream", true.into()),
        ("system", system.into()),
        ("messages", messages.iter().map(message).collect::<Vec<_>>().into()),
    ];
    Value::object(body).to_json()
}

/// Sends a request, and drops its answer.
fn ask(address: SocketAddr, headers: &str, body: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = [0; 4096];
    while stream.read(&mut answer)? > 0 {}
    Ok(())
}
