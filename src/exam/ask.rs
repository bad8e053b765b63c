//! Asks an upstream for the answer to one request of the Messages API, through the translation that the requests of clients
//! go through, with the repairs that refusals call for.

use std::time::{Duration, Instant};

use crate::anthropic::{Event, MessagesRequest};
use crate::dialect::ServerKind;
use crate::fleet::Upstream;
use crate::ids;
use crate::json::{self, Parser, Value};
use crate::openai::{AnswerForm, Repair, UpstreamError, read_failure};
use crate::rescue::{CallFamily, DROPPED_TOKENS_MIN};
use crate::settings::Settings;
use crate::shown::ShownText;
use crate::sse::Decoder;
use crate::translate::{
    Asked, Lessons, MessageFold, MessageStream, Plan, Progress, Target, chat_request, failure_error,
    make_repair, make_repairs, possible_repairs,
};
use crate::transport::{Failure, Path, Response, nobody};

/// The most repairs of one request.
const REPAIRS_MAX: usize = 6;

/// The largest answer in bytes, and the largest error. The tasks' limits of tokens make answers of some KB.
const ANSWER_SIZE_MAX: usize = 8 * 1024 * 1024;
const ERROR_SIZE_MAX: usize = 64 * 1024;

/// The longest time of one answer, unless the caller says otherwise. A model that takes longer for some words is of no use to a
/// coding agent.
pub const ANSWER_TIME: Duration = Duration::from_secs(300);

/// The least number of tokens from which a speed is computed.
const SPEED_TOKENS_MIN: u64 = 8;

/// The model that is examined.
pub(super) struct Examinee<'u> {
    pub(super) upstream: &'u Upstream,
    /// Its name at the upstream.
    pub(super) model: String,
    pub(super) flavour: ServerKind,
    pub(super) window: Option<u64>,
    /// The settings of the upstream, as the exam wants them.
    pub(super) settings: Settings,
    /// True once the server has recognized a call.
    pub(super) parses_calls: bool,
    /// The longest time of one answer.
    pub(super) time: Duration,
    /// True if refused requests are changed.
    pub(super) may_repair: bool,
    /// The repairs that requests to it need: by its name, and by its refusals so far.
    pub(super) repairs: Vec<Repair>,
}

/// The reason why there is no answer to a task.
#[derive(Debug)]
pub(super) struct NoAnswer {
    /// The words of the error that a client would get.
    pub(super) words: String,
    /// True if no byte of an answer came: the server hangs, or has ended.
    pub(super) is_lost: bool,
}

impl NoAnswer {
    fn of(error: &dyn std::fmt::Display) -> NoAnswer {
        NoAnswer { words: error.to_string(), is_lost: false }
    }
}

/// An answer as a client of sparkgap gets it.
#[derive(Clone, Debug)]
pub(super) struct ExamAnswer {
    /// The Message.
    pub(super) message: Vec<u8>,
    /// The number of calls that were found in the text, and the family of their form.
    pub(super) rescued: (usize, Option<&'static CallFamily>),
    /// The number of values of arguments that were coerced, and of places that were repaired.
    pub(super) changes: (usize, usize),
    /// True if the text was ended because it repeated one line.
    pub(super) has_looped: bool,
    /// The number of calls that the server has recognized.
    pub(super) parsed_calls: usize,
    /// The tokens at the end that were counted and not shown ([`MessageStream::dropped_tokens`]).
    pub(super) dropped_tokens: u64,
    /// Tokens a second from the first piece on.
    pub(super) speed: Option<f64>,
}

impl Examinee<'_> {
    /// Asks for the answer to a request.
    ///
    /// # Errors
    /// The server refuses the request, does not answer, or takes too long.
    pub(super) fn ask(&mut self, mut request: Vec<u8>) -> Result<ExamAnswer, NoAnswer> {
        let body = json::parse(&mut request).map_err(|error| NoAnswer::of(&error))?;
        let messages = MessagesRequest::read(&body).map_err(|error| NoAnswer::of(&error))?;
        let settings = self.settings.clone();
        let model = self.model.clone();
        let (flavour, window) = (self.flavour, self.window);
        let target =
            Target { model: &model, flavour, window, lessons: Lessons::default(), settings: &settings };
        let chat = chat_request(&messages, &target).map_err(|error| NoAnswer::of(&error))?;
        let (mut chat, plan) = (chat.body, chat.plan);
        let mut tried: Vec<Repair> = Vec::new();
        loop {
            make_repairs(self.repairs.iter().chain(&tried), &mut chat);
            let (failure, is_lost) = match self.post(&chat, plan.clone()) {
                Ok(answer) => {
                    self.repairs.extend(tried.into_iter().filter(Repair::is_lasting));
                    self.learn_calls(&answer);
                    return Ok(answer);
                }
                Err(PostFailure::Said(failure)) => (failure, false),
                Err(PostFailure::Lost(failure)) => {
                    (UpstreamError::Other(failure.to_error(self.upstream.name())), true)
                }
                Err(PostFailure::Broken(failure)) => {
                    (UpstreamError::Other(failure.to_error(self.upstream.name())), false)
                }
                Err(PostFailure::Own(words)) => return Err(NoAnswer { words, is_lost: false }),
            };
            let mut named = match &failure {
                UpstreamError::Refused { repairs, .. } if self.may_repair => repairs.clone(),
                _ => Vec::new(),
            };
            named.retain(|repair| settings.rescue_tool_calls || *repair != Repair::CallsAsText);
            let is_made = |repair: &Repair| self.repairs.contains(repair) || tried.contains(repair);
            let possible = possible_repairs(&named, &chat, &is_made);
            let made = possible.into_iter().find(|repair| make_repair(repair, &mut chat));
            match made.filter(|_| tried.len() < REPAIRS_MAX) {
                Some(made) => tried.push(made),
                None => return Err(NoAnswer { words: self.words_of(failure, &plan.asked), is_lost }),
            }
        }
    }

    /// Has the calls of later tasks come as text, as requests do, if the server has dropped the end of an answer and never
    /// recognized a call.
    fn learn_calls(&mut self, answer: &ExamAnswer) {
        self.parses_calls |= answer.parsed_calls > 0;
        let is_dropped = answer.dropped_tokens >= DROPPED_TOKENS_MIN
            && !self.parses_calls
            && self.flavour.dialect().shows_calls_as_text;
        if self.may_repair && is_dropped && !self.repairs.contains(&Repair::CallsAsText) {
            self.repairs.push(Repair::CallsAsText);
        }
    }

    fn words_of(&self, mut failure: UpstreamError, asked: &Asked) -> String {
        self.upstream.hide_keys(&mut failure);
        ShownText::new(&failure_error(failure, asked).to_string()).to_string()
    }

    fn post(&self, chat: &Value<'_>, plan: Plan) -> Result<ExamAnswer, PostFailure> {
        let path = Path::Api("/chat/completions");
        let posted = self.upstream.post(path, chat.to_json().as_bytes(), &nobody());
        let response = posted.map_err(PostFailure::Lost)?;
        if response.status != 200 {
            let status = response.status;
            let failure = read_failure(status, &mut response.read_some(ERROR_SIZE_MAX), None);
            return Err(PostFailure::Said(failure));
        }
        let mut reading = AnswerReading::new(plan);
        if AnswerForm::of(response.content_type(), response.beginning()) == AnswerForm::Whole {
            let mut body = response.read_all(ANSWER_SIZE_MAX).map_err(PostFailure::Broken)?;
            reading.whole(&mut body).map_err(PostFailure::Said)?;
        } else {
            reading.events(response, self.time)?;
        }
        reading.end().map_err(PostFailure::Said)
    }
}

/// The reason why an answer could not be had.
enum PostFailure {
    /// No byte of the answer came.
    Lost(Failure),
    /// The answer broke off.
    Broken(Failure),
    /// The server's error.
    Said(UpstreamError),
    /// The exam has ended the answer, for the reason in these words.
    Own(String),
}

/// An answer on its way from an upstream to a Message.
struct AnswerReading {
    stream: MessageStream,
    fold: MessageFold,
    parser: Parser,
    /// When the first piece of the answer came, and when the last event came.
    times: (Option<Instant>, Instant),
}

impl AnswerReading {
    fn new(plan: Plan) -> AnswerReading {
        AnswerReading {
            stream: MessageStream::new(plan, ids::message_id()),
            fold: MessageFold::default(),
            parser: Parser::default(),
            times: (None, Instant::now()),
        }
    }

    fn whole(&mut self, body: &mut [u8]) -> Result<(), UpstreamError> {
        let AnswerReading { stream, fold, parser, .. } = self;
        stream.whole(parser, body, &mut |event| fold.event(event)).map(|_| ())
    }

    fn events(&mut self, mut response: Response, time: Duration) -> Result<(), PostFailure> {
        let began = Instant::now();
        let mut decoder = Decoder::default();
        let mut size = 0;
        loop {
            let read = response.read(decoder.space());
            let count = read.map_err(if size == 0 { PostFailure::Lost } else { PostFailure::Broken })?;
            size += count;
            if size > ANSWER_SIZE_MAX {
                let words = format!("the answer has more than {ANSWER_SIZE_MAX} bytes");
                return Err(PostFailure::Own(words));
            }
            if began.elapsed() > time {
                let seconds = time.as_secs();
                return Err(PostFailure::Own(format!(
                    "the answer was still coming after {seconds} s, the limit of --timeout"
                )));
            }
            if count == 0 {
                decoder.end();
            } else {
                decoder.advance(count);
            }
            self.times.1 = Instant::now();
            while let Some(event) =
                decoder.next_event().map_err(|error| PostFailure::Own(error.to_string()))?
            {
                let AnswerReading { stream, fold, parser, times } = self;
                let mut emit = |event: &Event<'_>| {
                    if !matches!(event, Event::MessageStart { .. } | Event::Ping) {
                        times.0.get_or_insert(times.1);
                    }
                    fold.event(event);
                };
                match stream.data(parser, event.data, event.is_error, &mut emit).map_err(PostFailure::Said)? {
                    Progress::More => {}
                    // Dropping the response makes the server stop.
                    Progress::Done | Progress::Cancel => return Ok(()),
                }
            }
            if count == 0 {
                return Ok(());
            }
        }
    }

    fn end(mut self) -> Result<ExamAnswer, UpstreamError> {
        let fold = &mut self.fold;
        self.stream.end(&mut |event| fold.event(event)).map_err(UpstreamError::Other)?;
        let mut message = Vec::new();
        self.fold.finish(&mut message);
        let tokens = self.stream.counts().completion;
        let time = self.times.0.map(|first| self.times.1.saturating_duration_since(first).as_secs_f64());
        let measured = time.filter(|time| tokens >= SPEED_TOKENS_MIN && *time > 0.001);
        let speed =
            measured.and_then(|time| Some(f64::from(u32::try_from(tokens).ok()?.saturating_sub(1)) / time));
        Ok(ExamAnswer {
            message,
            rescued: self.stream.rescued(),
            changes: self.stream.changes(),
            has_looped: self.stream.has_looped(),
            parsed_calls: self.stream.parsed_calls(),
            dropped_tokens: self.stream.dropped_tokens(),
            speed,
        })
    }
}
