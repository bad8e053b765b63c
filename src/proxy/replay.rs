//! Translates the answer of a recorded request again, without any upstream: the same bytes in give the same bytes out.
//!
//! The steps of the recording stand for all that the translation depends on: the pieces in which the upstream's bytes
//! came, the pings between them, the ids, the settings and the estimates of that time. Hooks that see events are not run.

use crate::activity::{CLIENT_GONE, RecordedStep, StepKind, read_steps};
use crate::anthropic::{Event, MessagesRequest};
use crate::error::{Error, Kind};
use crate::json::{self, Parser, Value};
use crate::openai::{UpstreamError, read_failure};
use crate::sse::Decoder;
use crate::state::RecordingRow;
use crate::translate::{
    Asked, Lessons, MessageFold, MessageStream, Plan, Progress, Target, chat_request, failure_error,
};

use super::recorded::{RecordedTarget, read_asked, read_error, read_target};
use super::recorded_way::RecordedWay;
use super::replay_pass::{count_again, pass_again, way_of};

/// Translates the recorded bytes of the upstream again. Returns the body of the client's answer. Those of an answer that passed
/// are the upstream's own.
///
/// # Errors
/// The recording lacks something that the translation needs: text for the person.
pub fn replay_offline(row: &RecordingRow) -> Result<Vec<u8>, String> {
    let steps = read_steps(&row.steps, &row.places);
    match way_of(&steps) {
        RecordedWay::Translated if is_refused_openai(row, &steps) => return Ok(pass_again(&steps)),
        RecordedWay::Translated => {}
        RecordedWay::Messages | RecordedWay::OpenAi => return Ok(pass_again(&steps)),
        RecordedWay::Count => return count_again(&steps),
    }
    let mut replay = Replay { row, target: None, run: None, failure: None, is_done: false, body: None };
    for step in &steps {
        replay.step(step)?;
    }
    replay.finish()
}

/// True for a request to a path of OpenAI's that was refused before any upstream was chosen. Its error has the form of that
/// protocol, and no bytes of an upstream give it.
fn is_refused_openai(row: &RecordingRow, steps: &[RecordedStep<'_>]) -> bool {
    let mut head = row.head.as_bytes().to_vec();
    let head = json::parse(&mut head).unwrap_or(Value::Null);
    let path = head.get("request").and_then(|request| request.get("path")?.as_str()).unwrap_or_default();
    let is_own = path.is_empty() || path.ends_with("/messages") || path.ends_with("/count_tokens");
    !is_own && !steps.iter().any(|step| step.kind == StepKind::Target)
}

#[cfg(test)]
#[test]
fn a_refused_request_to_a_path_of_openai_keeps_its_own_error() {
    let error = br#"{"error":{"message":"not JSON"}}"#;
    let row = |path: &str| RecordingRow {
        head: format!(r#"{{"request":{{"path":"{path}"}}}}"#),
        steps: format!("1 i 2 \n2 c {} \n", error.len()),
        places: [b"@{".to_vec(), Vec::new(), Vec::new(), Vec::new(), error.to_vec()],
        ..RecordingRow::default()
    };
    assert_eq!(replay_offline(&row("/v1/chat/completions")).as_deref(), Ok(&error[..]));
    let own = replay_offline(&row("/v1/messages"));
    assert_ne!(own.as_deref(), Ok(&error[..]), "its error is translated again");
}

/// Translates another answer to the recorded request: its status, and its body as it came.
///
/// # Errors
/// Those of [`replay_offline`].
pub fn replay_answer(row: &RecordingRow, status: u16, body: &[u8]) -> Result<Vec<u8>, String> {
    let steps = read_steps(&row.steps, &row.places);
    let mut replay = Replay { row, target: None, run: None, failure: None, is_done: false, body: None };
    let begins = |kind| matches!(kind, StepKind::Target | StepKind::Expect | StepKind::Limits);
    for step in steps.iter().filter(|step| begins(step.kind)) {
        replay.step(step)?;
    }
    let facts = format!("{{\"status\":{status}}}");
    let is_json = body.trim_ascii_start().starts_with(b"{");
    let kind = match status {
        200..300 if is_json => StepKind::Whole,
        200..300 => StepKind::Piece,
        _ => StepKind::Refusal,
    };
    replay.step(&RecordedStep { kind, at: 0, bytes: body, facts: &facts })?;
    if kind == StepKind::Piece {
        replay.step(&RecordedStep { kind, at: 0, bytes: &[], facts: "" })?;
    }
    // No search is made for an answer that is only compared.
    replay.end();
    if let Some(run) = &mut replay.run
        && run.stream.take_searches().is_some()
    {
        run.emit(|stream, emit| stream.end_searches(false, emit));
    }
    if let Some(error) = replay.failure.clone() {
        let is_event = replay.run.as_ref().is_some_and(|run| run.is_streamed && run.stream.started());
        replay.fail(&error, is_event);
    }
    replay.finish()
}

/// The translation of a recorded answer.
struct Replay<'r> {
    row: &'r RecordingRow,
    /// The upstream of the last try.
    target: Option<RecordedTarget>,
    run: Option<ReplayRun>,
    /// The error that the upstream's bytes give.
    failure: Option<Error>,
    /// True once the upstream has said that its answer is complete, or has ended it.
    is_done: bool,
    /// The whole answer, if it is decided already.
    body: Option<Vec<u8>>,
}

/// One message on its way to the client.
struct ReplayRun {
    stream: MessageStream,
    asked: Asked,
    is_streamed: bool,
    decoder: Decoder,
    parser: Parser,
    fold: MessageFold,
    out: Vec<u8>,
}

impl Replay<'_> {
    fn step(&mut self, step: &RecordedStep<'_>) -> Result<(), String> {
        let mut text = step.facts.as_bytes().to_vec();
        let facts = json::parse(&mut text).unwrap_or(Value::Null);
        match step.kind {
            StepKind::Request | StepKind::Hooked | StepKind::Answer | StepKind::Head => {}
            StepKind::Sent => self.failure = None,
            StepKind::Target => {
                let other = "another version of sparkgap has made this recording, so it cannot be replayed";
                self.target = Some(read_target(&facts).ok_or(other)?);
                (self.failure, self.is_done) = (None, false);
            }
            StepKind::Expect => self.expect(&facts)?,
            StepKind::Limits => {
                if let Some(run) = &mut self.run {
                    run.asked = read_asked(&facts);
                    run.stream.set_limits(&run.asked);
                }
            }
            StepKind::Refusal => self.refuse(&facts, step.bytes),
            StepKind::Piece => self.piece(step.bytes),
            StepKind::Whole => self.whole(step.bytes),
            StepKind::Open => self.emit(MessageStream::open),
            StepKind::Ping => self.emit(|_, emit| emit(&Event::Ping)),
            StepKind::Usage => self.emit(MessageStream::tell_usage),
            StepKind::Search => {
                self.end();
                self.emit(|stream, emit| stream.search_block(&facts, emit));
            }
            StepKind::Round => {
                let goes_on = facts.get("goes_on").and_then(Value::as_bool).unwrap_or_default();
                if let Some(run) = &mut self.run
                    && !run.emit(|stream, emit| stream.end_searches(goes_on, emit))
                {
                    run.stream.next_round(&run.asked);
                    run.decoder = Decoder::default();
                }
            }
            StepKind::Failed => {
                self.end();
                let (told, is_event) = read_error(&facts);
                // An error that no bytes of the upstream give, such as that of a lost connection, is the recorded one.
                let error = self.failure.take().unwrap_or(told);
                self.fail(&error, is_event);
            }
        }
        Ok(())
    }

    fn expect(&mut self, facts: &Value<'_>) -> Result<(), String> {
        let asked = read_asked(facts);
        let is_streamed = facts.get("stream").and_then(Value::as_bool).unwrap_or_default();
        let mut plan = match &self.target {
            Some(target) => self.plan(target)?,
            // The beginning of an answer to a request that waits for its place.
            None => Plan::default(),
        };
        (plan.asked, plan.stream) = (asked.clone(), is_streamed);
        let id = facts.get("id").and_then(Value::as_str);
        match (id, &mut self.run) {
            (None, Some(run)) => {
                run.stream.restart(plan);
                (run.asked, run.decoder) = (asked, Decoder::default());
            }
            (id, run) => {
                // Pings may have gone out before the message begins.
                let out = run.take().map(|run| run.out).unwrap_or_default();
                self.run = Some(ReplayRun {
                    stream: MessageStream::new(plan, id.unwrap_or_default().to_owned()),
                    asked,
                    is_streamed,
                    decoder: Decoder::default(),
                    parser: Parser::default(),
                    fold: MessageFold::default(),
                    out,
                });
            }
        }
        Ok(())
    }

    /// The plan for an answer of this upstream to the client's request.
    fn plan(&self, target: &RecordedTarget) -> Result<Plan, String> {
        let [client, hooked, ..] = &self.row.places;
        let mut bytes = if hooked.is_empty() { client.clone() } else { hooked.clone() };
        let unusable = |why: &dyn std::fmt::Display| {
            let cut = if self.row.is_cut { " (a limit has cut the recording)" } else { "" };
            format!("the recorded request cannot be translated{cut}: {why}")
        };
        let body = json::parse(&mut bytes).map_err(|error| unusable(&error))?;
        let request = MessagesRequest::read(&body).map_err(|error| unusable(&error))?;
        let asked = Target {
            model: &target.model,
            flavour: target.flavour,
            window: target.window,
            lessons: Lessons::default(),
            settings: &target.settings,
        };
        let mut plan = chat_request(&request, &asked).map_err(|error| unusable(&error))?.plan;
        plan.context_window_beta = target.context_window_beta;
        Ok(plan)
    }

    fn refuse(&mut self, facts: &Value<'_>, bytes: &[u8]) {
        let status = facts.get("status").and_then(Value::as_u64).and_then(|told| u16::try_from(told).ok());
        let status = status.unwrap_or(500);
        if (200..300).contains(&status) {
            // An error that came with the status of success.
            match bytes.trim_ascii_start().first() {
                Some(b'{' | b'[') => self.whole(bytes),
                _ => self.piece(bytes),
            }
            return;
        }
        let retry_after =
            facts.get("retry_after").and_then(Value::as_u64).and_then(|told| u32::try_from(told).ok());
        let failure = read_failure(status, &mut bytes.to_vec(), retry_after);
        self.failure = Some(self.error_of(failure));
    }

    fn error_of(&self, failure: UpstreamError) -> Error {
        let asked = self.run.as_ref().map(|run| run.asked.clone()).unwrap_or_default();
        failure_error(failure, &asked)
    }

    fn piece(&mut self, bytes: &[u8]) {
        let Some(run) = &mut self.run else { return };
        match bytes.is_empty() {
            true => (_, self.is_done) = (run.decoder.end(), true),
            false => run.decoder.feed(bytes),
        }
        match run.drain() {
            Ok(is_done) => self.is_done |= is_done,
            Err(failure) => self.failure = Some(self.error_of(failure)),
        }
    }

    fn whole(&mut self, bytes: &[u8]) {
        let Some(run) = &mut self.run else { return };
        self.is_done = true;
        if let Err(failure) = run.whole(bytes) {
            self.failure = Some(self.error_of(failure));
        }
    }

    fn emit(&mut self, step: impl FnOnce(&mut MessageStream, &mut crate::translate::Emit<'_>)) {
        if let Some(run) = &mut self.run {
            run.emit(step);
        }
    }

    /// Ends the translation, if the upstream has ended its answer.
    fn end(&mut self) {
        if !std::mem::take(&mut self.is_done) || self.failure.is_some() {
            return;
        }
        if let Some(run) = &mut self.run
            && let Err(error) = run.emit(MessageStream::end)
        {
            self.failure = Some(error);
        }
    }

    fn fail(&mut self, error: &Error, is_event: bool) {
        let id = &self.row.id;
        match &mut self.run {
            Some(run) if is_event => run.emit(|stream, emit| stream.fail(error, id, emit)),
            _ => {
                let mut body = Vec::new();
                error.body(id, &mut body);
                self.body = Some(body);
            }
        }
    }

    fn finish(mut self) -> Result<Vec<u8>, String> {
        self.end();
        if let Some(body) = self.body {
            return Ok(body);
        }
        let Some(run) = self.run else {
            return Err("no upstream was asked, so there is nothing to translate again".to_owned());
        };
        let mut head = self.row.head.as_bytes().to_vec();
        let head = json::parse(&mut head).unwrap_or(Value::Null);
        let status = head.get("record").and_then(|record| record.get("status")).and_then(Value::as_u64);
        let mut out = run.out;
        if !run.is_streamed && status != Some(u64::from(CLIENT_GONE)) {
            run.fold.finish(&mut out);
        }
        Ok(out)
    }
}

impl ReplayRun {
    fn emit<T>(&mut self, step: impl FnOnce(&mut MessageStream, &mut crate::translate::Emit<'_>) -> T) -> T {
        let ReplayRun { stream, is_streamed, fold, out, .. } = self;
        step(stream, &mut |event| if *is_streamed { event.encode(out) } else { fold.event(event) })
    }

    /// Translates the events that have come. Returns true if the upstream has said that the answer is complete.
    fn drain(&mut self) -> Result<bool, UpstreamError> {
        let mut decoder = std::mem::take(&mut self.decoder);
        let mut parser = std::mem::take(&mut self.parser);
        let mut is_done = false;
        let drained = loop {
            match decoder.next_event() {
                Ok(None) => break Ok(()),
                Ok(Some(event)) => {
                    let (data, is_error) = (event.data, event.is_error);
                    match self.emit(|stream, emit| stream.data(&mut parser, data, is_error, emit)) {
                        Ok(Progress::More | Progress::Cancel) => {}
                        Ok(Progress::Done) => {
                            is_done = true;
                            break Ok(());
                        }
                        Err(failure) => break Err(failure),
                    }
                }
                Err(_) => {
                    let error = Error::new(Kind::BadGateway, "the upstream sent an event that is too long");
                    break Err(UpstreamError::Other(error));
                }
            }
        };
        (self.decoder, self.parser) = (decoder, parser);
        drained.map(|()| is_done)
    }

    fn whole(&mut self, bytes: &[u8]) -> Result<Progress, UpstreamError> {
        let mut parser = std::mem::take(&mut self.parser);
        self.emit(|stream, emit| stream.whole(&mut parser, &mut bytes.to_vec(), emit))
    }
}
