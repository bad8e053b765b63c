//! A recorded request as a golden case: the files of a folder that `tests/golden.rs` reads.
//!
//! A case has its own names for what differs from run to run: the model is `qwen3`, ids are fixed, and nothing was learned. So the
//! expected results are those of this version for the recorded request and answer, not the recorded ones.

use crate::activity::{RecordedStep, StepKind, hide_keys, read_steps};
use crate::anthropic::{Event, MessagesRequest};
use crate::dialect::ServerKind;
use crate::error::{Error, Kind};
use crate::json::{self, Object, Parser, Value};
use crate::openai::{UpstreamError, read_failure};
use crate::settings::Settings;
use crate::sse::Decoder;
use crate::state::RecordingRow;
use crate::translate::{
    ChatRequest, Lessons, MessageFold, MessageStream, Plan, Progress, Target, chat_request, failure_error,
};

use super::recorded::{RecordedTarget, read_target, settings_lines};
use super::recorded_way::RecordedWay;
use super::replay_pass::{read_facts, way_of};

/// The names that the golden runner uses.
const MODEL: &str = "qwen3";
const MESSAGE_ID: &str = "msg_golden0000000000000001";
const REQUEST_ID: &str = "req_golden0000000000000001";

/// A golden case.
#[derive(Debug)]
pub struct GoldenCase {
    /// The files: their names and bytes.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// The expected answer and the one that the client got, from the first byte on at which they differ, ids aside. `None`: they are
    /// the same.
    pub difference: Option<(Vec<u8>, Vec<u8>)>,
}

/// Makes the golden case of a recorded request, without the keys that are `known`.
///
/// # Errors
/// The request is not one to the translation, or the recording lacks a part of it: text for the person.
pub fn golden_case(row: &RecordingRow, known: &[String]) -> Result<GoldenCase, String> {
    let steps = read_steps(&row.steps, &row.places);
    let mut head = row.head.as_bytes().to_vec();
    let head = json::parse(&mut head).unwrap_or(Value::Null);
    let path = head.get("request").and_then(|request| request.get("path")).and_then(Value::as_str);
    let is_message = path.is_none_or(|path| path.ends_with("/messages"));
    if way_of(&steps) != RecordedWay::Translated || !is_message {
        return Err("nothing of this request was translated, and a case tests the translation; `sparkgap show ID --har` \
                    writes it to a file"
            .to_owned());
    }
    if steps.iter().any(|step| step.kind == StepKind::Round) {
        return Err("the model has searched the web for this answer, and a case has no search engine; `sparkgap show ID --har` \
                    writes it to a file"
            .to_owned());
    }
    if row.is_cut {
        return Err("a limit has cut this recording, so a case of it would not show what happened".to_owned());
    }
    let target = steps.iter().rfind(|step| step.kind == StepKind::Target);
    let target = target.and_then(|step| read_facts(step, read_target));
    let [client, hooked, .., recorded] = &row.places;
    let messages = if hooked.is_empty() { client } else { hooked };
    let answer = RecordedAnswer::read(&steps);
    let mut case = CaseFiles { about: about(&head, target.as_ref(), &answer), files: Vec::new() };
    case.files.push(("messages.json", messages.clone()));
    // The same with the ids of that time, to be compared with what the client got.
    let ids = (message_id(&steps), row.id.as_str());
    let made = match plan(messages, target.as_ref()) {
        Err(error) => {
            case.add_json("error.json", &error_value(&error));
            error_body(&error, ids.1)
        }
        Ok(_) if target.is_none() => {
            return Err(
                "no upstream was asked, and the request can be translated: a limit, a hook or the route has \
                        refused it, which a case cannot show"
                    .to_owned(),
            );
        }
        Ok((chat, plan)) => {
            case.files.push(("chat.json", chat.into_bytes()));
            case.add_answer(&answer, &plan, (&ids.0, ids.1))
        }
    };
    let difference = difference(&without_pings(&made), &without_pings(recorded));
    let mut files = vec![("about.txt", case.about.into_bytes())];
    files.append(&mut case.files);
    // The recording has no keys; nothing that was made of it may have one.
    files.iter_mut().for_each(|(_, bytes)| hide_keys(bytes, known));
    Ok(GoldenCase { files, difference })
}

/// The body for the upstream as lines of JSON, and the plan for its answer.
fn plan(messages: &[u8], target: Option<&RecordedTarget>) -> Result<(String, Plan), Error> {
    let default = Settings::default();
    let settings = Settings { window: None, ..target.map_or(&default, |target| &target.settings).clone() };
    let flavour = target.map_or(ServerKind::Vllm, |target| target.flavour);
    let window = target.and_then(|target| target.window);
    let target_of_case =
        Target { model: MODEL, flavour, window, lessons: Lessons::default(), settings: &settings };
    let mut bytes = messages.to_vec();
    let body = json::parse(&mut bytes).map_err(|error| Error::invalid(error.to_string()))?;
    let request = MessagesRequest::read(&body)?;
    let ChatRequest { body, mut plan, .. } = chat_request(&request, &target_of_case)?;
    plan.context_window_beta = target.is_some_and(|target| target.context_window_beta);
    Ok((format!("{}\n", body.to_pretty_json()), plan))
}

/// The last answer of an upstream.
#[derive(Debug, Default)]
struct RecordedAnswer {
    status: u16,
    retry_after: Option<u64>,
    bytes: Vec<u8>,
    is_events: bool,
    /// The number of events before each long silence.
    silences: Vec<usize>,
}

impl RecordedAnswer {
    fn read(steps: &[RecordedStep<'_>]) -> RecordedAnswer {
        let mut answer = RecordedAnswer { status: 200, ..RecordedAnswer::default() };
        for step in steps {
            match step.kind {
                StepKind::Sent => {
                    // Of a further try only the answer counts.
                    let silences = std::mem::take(&mut answer.silences);
                    answer = RecordedAnswer { status: 200, silences, ..RecordedAnswer::default() };
                    answer.silences.iter_mut().for_each(|before| *before = 0);
                }
                StepKind::Refusal => {
                    answer.bytes = step.bytes.to_vec();
                    answer.is_events = false;
                    read_facts(step, |facts| {
                        let status = facts.get("status").and_then(Value::as_u64);
                        answer.status = status.and_then(|status| u16::try_from(status).ok()).unwrap_or(500);
                        answer.retry_after = facts.get("retry_after").and_then(Value::as_u64);
                    });
                    if answer.status < 300 {
                        (answer.status, answer.is_events) = (200, !is_json(step.bytes));
                    }
                }
                StepKind::Piece => {
                    answer.is_events = true;
                    answer.bytes.extend_from_slice(step.bytes);
                }
                StepKind::Whole => answer.bytes = step.bytes.to_vec(),
                StepKind::Open | StepKind::Usage => answer.silences.push(answer.events()),
                _ => {}
            }
        }
        answer
    }

    /// The number of complete events so far.
    fn events(&self) -> usize {
        let mut decoder = Decoder::default();
        decoder.feed(&self.bytes);
        let mut count = 0;
        while let Ok(Some(_)) = decoder.next_event() {
            count += 1;
        }
        count
    }

    /// The answer that the client gets: events or a message, or the error and false if an HTTP status tells it.
    fn translate(&self, plan: Plan, (message_id, request_id): (&str, &str)) -> Result<Vec<u8>, Error> {
        let asked = plan.asked.clone();
        if self.status != 200 {
            let retry_after = self.retry_after.and_then(|seconds| u32::try_from(seconds).ok());
            return Err(failure_error(
                read_failure(self.status, &mut self.bytes.clone(), retry_after),
                &asked,
            ));
        }
        let mut run = CaseRun::new(plan, message_id);
        let read = match self.is_events {
            true => run.events(self),
            false => run.whole(&self.bytes),
        };
        let ended = read.map_err(|failure| failure_error(failure, &asked)).and_then(|()| run.end());
        match ended {
            Err(error) if !run.is_streamed || !run.stream.started() => Err(error),
            Err(error) => {
                run.emit(|stream, emit| stream.fail(&error, request_id, emit));
                Ok(run.out)
            }
            Ok(()) => Ok(run.finish()),
        }
    }
}

/// One translation, as the golden runner makes it.
struct CaseRun {
    stream: MessageStream,
    is_streamed: bool,
    fold: MessageFold,
    out: Vec<u8>,
}

impl CaseRun {
    fn new(plan: Plan, message_id: &str) -> CaseRun {
        let is_streamed = plan.stream;
        let stream = MessageStream::new(plan, message_id.to_owned());
        CaseRun { stream, is_streamed, fold: MessageFold::default(), out: Vec::new() }
    }

    fn emit<T>(&mut self, step: impl FnOnce(&mut MessageStream, &mut crate::translate::Emit<'_>) -> T) -> T {
        let CaseRun { stream, is_streamed, fold, out } = self;
        step(stream, &mut |event: &Event<'_>| {
            if *is_streamed { event.encode(out) } else { fold.event(event) }
        })
    }

    fn events(&mut self, answer: &RecordedAnswer) -> Result<(), UpstreamError> {
        let mut decoder = Decoder::default();
        decoder.feed(&answer.bytes);
        let (mut count, mut has_ended) = (0, false);
        loop {
            let too_long = |_| UpstreamError::Other(Error::new(Kind::BadGateway, "too long"));
            let Some(event) = decoder.next_event().map_err(too_long)? else {
                if std::mem::replace(&mut has_ended, true) {
                    return Ok(());
                }
                // The last event may lack the blank line behind it.
                decoder.end();
                continue;
            };
            for _ in answer.silences.iter().filter(|before| **before == count) {
                match self.stream.started() {
                    true => self.emit(MessageStream::tell_usage),
                    false => self.emit(MessageStream::open),
                }
            }
            count += 1;
            let (data, is_error) = (event.data, event.is_error);
            let progress =
                self.emit(|stream, emit| stream.data(&mut Parser::default(), data, is_error, emit))?;
            if progress == Progress::Cancel {
                return Ok(());
            }
        }
    }

    fn whole(&mut self, bytes: &[u8]) -> Result<(), UpstreamError> {
        let mut bytes = bytes.to_vec();
        self.emit(|stream, emit| stream.whole(&mut Parser::default(), &mut bytes, emit)).map(|_| ())
    }

    fn end(&mut self) -> Result<(), Error> {
        self.emit(MessageStream::end)
    }

    fn finish(mut self) -> Vec<u8> {
        if !self.is_streamed {
            self.fold.finish(&mut self.out);
        }
        self.out
    }
}

/// The files of a case as far as they are made.
struct CaseFiles {
    about: String,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl CaseFiles {
    fn add_json(&mut self, name: &'static str, value: &Value<'_>) {
        self.files.push((name, format!("{}\n", value.to_pretty_json()).into_bytes()));
    }

    /// Adds the upstream's answer and what the client gets. Returns what it gets with other ids, those of the message and the request.
    fn add_answer(&mut self, answer: &RecordedAnswer, plan: &Plan, ids: (&str, &str)) -> Vec<u8> {
        if answer.bytes.is_empty() && answer.status == 200 {
            return Vec::new();
        }
        let name = if answer.is_events { "upstream.sse" } else { "upstream.json" };
        self.files.push((name, answer.bytes.clone()));
        match answer.translate(plan.clone(), (MESSAGE_ID, REQUEST_ID)) {
            Err(error) => self.add_json("error.json", &error_value(&error)),
            Ok(bytes) => match (plan.stream, json::parse(&mut bytes.clone())) {
                (false, Ok(message)) => self.add_json("message.json", &message),
                _ => self.files.push(("message.sse", bytes)),
            },
        }
        let then = answer.translate(plan.clone(), ids);
        then.unwrap_or_else(|error| error_body(&error, ids.1))
    }
}

/// The text of `about.txt`: the settings that are not the usual ones, and a sentence on the origin.
fn about(head: &Value<'_>, target: Option<&RecordedTarget>, answer: &RecordedAnswer) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| text.push_str(&format!("{key}: {value}\n"));
    if let Some(target) = target {
        if target.flavour != ServerKind::Vllm {
            line("flavour", target.flavour.name().to_owned());
        }
        target.window.into_iter().for_each(|window| line("window", window.to_string()));
        settings_lines(&target.settings).into_iter().for_each(|(key, value)| line(key, value));
        if target.context_window_beta {
            line("context_window_beta", "true".to_owned());
        }
    }
    if answer.status != 200 {
        line("status", answer.status.to_string());
    }
    answer.retry_after.into_iter().for_each(|seconds| line("retry_after", seconds.to_string()));
    if answer.is_events && !answer.silences.is_empty() {
        let silences: Vec<String> = answer.silences.iter().map(usize::to_string).collect();
        line("silences", silences.join(" "));
    }
    let status = head.get("record").and_then(|record| record.get("status")).and_then(Value::as_u64);
    text.push_str(&format!(
        "\nRecorded by sparkgap {}: the client got status {}.\nSay here what is wrong, and what the client should get.\n",
        env!("CARGO_PKG_VERSION"),
        status.unwrap_or_default()
    ));
    text
}

/// An error as the runner writes it.
fn error_value(error: &Error) -> Value<'static> {
    let mut headers = Object::new();
    error.headers().into_iter().for_each(|(name, value)| headers.push(name, value));
    let mut body = error_body(error, REQUEST_ID);
    let body = json::parse(&mut body).map_or(Value::Null, Value::into_owned);
    let status = u64::from(error.kind.status()).into();
    Value::object([("status", status), ("headers", headers.into()), ("body", body)]).into_owned()
}

fn error_body(error: &Error, request_id: &str) -> Vec<u8> {
    let mut body = Vec::new();
    error.body(request_id, &mut body);
    body
}

/// The id of the message that the client got last; empty if none was begun.
fn message_id(steps: &[RecordedStep<'_>]) -> String {
    let id = |step: &RecordedStep<'_>| {
        read_facts(step, |facts| facts.get("id").and_then(Value::as_str).map(str::to_owned))
    };
    steps.iter().rev().filter(|step| step.kind == StepKind::Expect).find_map(id).unwrap_or_default()
}

fn without_pings(answer: &[u8]) -> Vec<u8> {
    let mut ping = Vec::new();
    Event::Ping.encode(&mut ping);
    String::from_utf8_lossy(answer).replace(&*String::from_utf8_lossy(&ping), "").into_bytes()
}

/// Two texts from the first byte on at which they differ.
fn difference(one: &[u8], other: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let same = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let rest = |text: &[u8]| text.get(same..).unwrap_or_default().to_vec();
    (one != other).then(|| (rest(one), rest(other)))
}

fn is_json(bytes: &[u8]) -> bool {
    matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'['))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_found_by_their_first_byte() {
        assert_eq!(difference(b"abc", b"abc"), None);
        assert_eq!(difference(b"abc", b"abd"), Some((b"c".to_vec(), b"d".to_vec())));
        assert_eq!(difference(b"abc", b"ab"), Some((b"c".to_vec(), Vec::new())));
    }
}
