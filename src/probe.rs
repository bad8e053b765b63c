//! Asks a model one question and measures the times of its answer: the common part of `doctor` and `bench`.
//!
//! Reads both wire formats, as far as an answer needs it. The callers judge the answer.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::json::{self, Parser, Tape, Value};
use crate::openai::{AnswerForm, Chunk, Counts, page_words};
use crate::shown::ShownText;
use crate::sse::Decoder;
use crate::transport::{Endpoint, Failure, Path, Response, Wait};

/// The number of bytes of an error's body that are read at most.
const ERROR_SIZE_MAX: usize = 64 * 1024;

/// The most bytes of an answer. The questions want short ones, so a model that writes more does not end.
const ANSWER_SIZE_MAX: usize = 16 * 1024 * 1024;

/// How long to wait for the counts and the end of a stream whose model has finished.
const REST_TIME: Duration = Duration::from_secs(2);

/// The format of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Chunks of a chat completion.
    Chat,
    /// Events of the Messages API.
    Messages,
}

/// A model's answer, until its end or until the caller had enough.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// The reasoning, if it came in a field of its own.
    pub reasoning: String,
    /// The names and arguments of the tool calls.
    pub calls: Vec<(String, String)>,
    /// The token counts; 0 where the server sent none.
    pub counts: Counts,
    /// The time from the question to the first piece of the answer.
    pub first: Option<Duration>,
    /// The time from the question to the last event.
    pub last: Duration,
    /// True once the server has told how the answer ended.
    pub is_finished: bool,
}

impl Answer {
    /// True if it has neither text nor reasoning nor a call, whatever was counted.
    pub fn is_blank(&self) -> bool {
        self.calls.is_empty() && self.text.trim().is_empty() && self.reasoning.is_empty()
    }

    /// True if nothing came at all: neither content, nor the reason of its end, nor a count.
    pub fn is_nothing(&self) -> bool {
        self.is_blank() && !self.is_finished && self.counts.completion == 0
    }

    /// Tokens a second after the first one. `None` if there were too few tokens to measure, or if they came in one
    /// piece, since a busy server collects a short answer before it sends it.
    pub fn tokens_per_second(&self) -> Option<f64> {
        const TOKENS_MIN: u64 = 4;
        const TIME_MIN: Duration = Duration::from_millis(1);
        let time = self.last.saturating_sub(self.first?);
        let tokens = u32::try_from(self.counts.completion.saturating_sub(1)).ok()?;
        (self.counts.completion >= TOKENS_MIN && time >= TIME_MIN)
            .then(|| f64::from(tokens) / time.as_secs_f64())
    }
}

/// The error text of a refusal: its message, if it is JSON of a usual form, otherwise the whole body.
pub fn refusal_words(body: &mut [u8]) -> String {
    let text = String::from_utf8_lossy(body).into_owned();
    let words = json::parse(body).ok().and_then(|value| {
        let error = value.get("error").unwrap_or(&value);
        error.get("message").unwrap_or(error).as_str().map(str::to_string)
    });
    words.unwrap_or(text)
}

/// The reason why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The call failed.
    Failure(Failure),
    /// The server refused the question, with this status and error text.
    Refused(u16, String),
    /// The answer is an error, or cannot be read.
    Broken(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Failure(failure) => failure.fmt(f),
            Trouble::Refused(status, words) => write!(f, "status {status}: {words}"),
            Trouble::Broken(words) => f.write_str(words),
        }
    }
}

/// Asks, and reads the answer until its end or until `enough` is true. Dropping the rest makes the server stop. `time` is the
/// most from the head of the answer to its end; `wait` is called while nothing comes.
///
/// # Errors
/// [`Trouble`]: the call failed, the server refused, or the answer is broken, too long, or not whole in time.
pub fn ask(
    server: &Endpoint,
    path: Path<'_>,
    format: Format,
    body: &Value<'_>,
    (time, enough): (Duration, impl Fn(&Answer) -> bool),
    wait: &Rc<dyn Wait>,
) -> Result<Answer, Trouble> {
    let began = Instant::now();
    let response = server.post(path, body.to_json().as_bytes(), wait).map_err(Trouble::Failure)?;
    let answer = match response.status {
        200 => {
            response.limit_rest(time);
            match AnswerForm::of(response.content_type(), response.beginning()) {
                AnswerForm::Whole => read_whole(response, format, began),
                AnswerForm::Events => read(response, format, began, enough),
                AnswerForm::Page => Err(read_page(response)),
            }
        }
        _ => Err(read_refusal(response)),
    };
    answer.map_err(|mut trouble| {
        if let Trouble::Refused(_, words) | Trouble::Broken(words) = &mut trouble {
            server.hide_keys(words);
            *words = ShownText::new(words.trim()).to_string();
        }
        trouble
    })
}

fn read_refusal(response: Response) -> Trouble {
    let status = response.status;
    Trouble::Refused(status, refusal_words(&mut response.read_some(ERROR_SIZE_MAX)))
}

fn read_page(response: Response) -> Trouble {
    let text = page_words(&response.read_some(ERROR_SIZE_MAX));
    Trouble::Broken(format!("a page in place of an answer, check the address: {text}"))
}

/// Reads an answer that did not come as a stream.
fn read_whole(response: Response, format: Format, began: Instant) -> Result<Answer, Trouble> {
    let mut body = response.read_all(ANSWER_SIZE_MAX).map_err(Trouble::Failure)?;
    let mut answer = Answer::default();
    answer.take(&mut body, format, &mut Parser::default())?;
    answer.last = began.elapsed();
    answer.first = Some(answer.last);
    Ok(answer)
}

fn read(
    mut response: Response,
    format: Format,
    began: Instant,
    enough: impl Fn(&Answer) -> bool,
) -> Result<Answer, Trouble> {
    let (mut answer, mut decoder, mut parser) = (Answer::default(), Decoder::default(), Parser::default());
    let (mut received, mut is_limited) = (0, false);
    loop {
        let count = match response.read(decoder.space()) {
            Ok(count) => count,
            // It is whole: only the end of its stream did not come.
            Err(_) if answer.is_finished => return Ok(answer),
            Err(failure) => return Err(Trouble::Failure(failure)),
        };
        let at = began.elapsed();
        if count == 0 {
            decoder.end();
        } else {
            decoder.advance(count);
        }
        received += count;
        if received > ANSWER_SIZE_MAX {
            return Err(Trouble::Broken(format!(
                "the answer has more than {ANSWER_SIZE_MAX} bytes: it does not end"
            )));
        }
        while let Some(event) = decoder.next_event().map_err(|error| Trouble::Broken(error.to_string()))? {
            if event.data == b"[DONE]" {
                continue;
            }
            let size = answer.size();
            answer.take(event.data, format, &mut parser)?;
            if answer.size() > size {
                answer.first.get_or_insert(at);
            }
            // Some tokens bring no text: a model that must go on after its answer sends end marks. So the last event
            // counts, not the last text.
            answer.last = at;
        }
        if count == 0 || enough(&answer) {
            return Ok(answer);
        }
        if answer.is_finished && !is_limited {
            response.limit_rest(REST_TIME);
            is_limited = true;
        }
    }
}

impl Answer {
    /// The number of bytes of text, reasoning and calls. It grows with every piece.
    fn size(&self) -> usize {
        let calls: usize = self.calls.iter().map(|(name, arguments)| 1 + name.len() + arguments.len()).sum();
        self.text.len() + self.reasoning.len() + calls
    }

    /// Takes one event, or a whole answer.
    fn take(&mut self, json: &mut [u8], format: Format, parser: &mut Parser) -> Result<(), Trouble> {
        let taken = parser.read(json, |tape| match format {
            Format::Chat => self.take_chunk(tape),
            Format::Messages => self.take_event(&Value::from_tape(tape)),
        });
        taken.map_err(|error| Trouble::Broken(format!("the answer is not valid JSON: {error}")))?
    }

    fn take_chunk(&mut self, tape: Tape<'_, '_>) -> Result<(), Trouble> {
        let chunk = Chunk::read(tape);
        if let Some(error) = chunk.error {
            return Err(Trouble::Broken(Value::from_tape(error).to_json()));
        }
        self.counts = chunk.counts.map_or(self.counts, |counts| self.counts.merge(counts));
        let Some(choice) = chunk.choice else { return Ok(()) };
        self.is_finished |= choice.finish_reason.is_some();
        let piece = choice.message().filter(|_| choice.is_whole).unwrap_or(choice.delta);
        piece.reasonings().for_each(|text| self.reasoning.push_str(text));
        piece.texts().for_each(|text| self.text.push_str(text));
        for call in piece.tool_calls() {
            if let Some(name) = call.name {
                self.calls.push((name.to_string(), String::new()));
            }
            if let Some((_, arguments)) = self.calls.last_mut() {
                call.arguments(|text| arguments.push_str(text));
            }
        }
        Ok(())
    }

    fn take_event(&mut self, event: &Value<'_>) -> Result<(), Trouble> {
        let text = |value: Option<&Value<'_>>| value.and_then(Value::as_str).unwrap_or_default().to_string();
        match text(event.get("type")).as_str() {
            "error" => return Err(Trouble::Broken(event.to_json())),
            "message_start" => self.take_usage(event.get("message").and_then(|message| message.get("usage"))),
            "message_delta" => {
                self.is_finished = true;
                self.take_usage(event.get("usage"));
            }
            "content_block_start" => {
                let block = event.get("content_block");
                if block.is_some_and(|block| text(block.get("type")) == "tool_use") {
                    self.calls.push((text(block.and_then(|block| block.get("name"))), String::new()));
                }
            }
            "content_block_delta" => {
                let delta = |key: &str| text(event.get("delta").and_then(|delta| delta.get(key)));
                self.text.push_str(&delta("text"));
                self.reasoning.push_str(&delta("thinking"));
                if let Some((_, arguments)) = self.calls.last_mut() {
                    arguments.push_str(&delta("partial_json"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The Messages API reports the cached part of a prompt beside the rest; their sum is the prompt.
    fn take_usage(&mut self, usage: Option<&Value<'_>>) {
        let number = |key: &str| usage.and_then(|usage| usage.get(key)?.as_u64()).unwrap_or(0);
        let cached = number("cache_read_input_tokens");
        let prompt = number("input_tokens") + cached + number("cache_creation_input_tokens");
        let is_cache_told = usage.is_some_and(|usage| usage.get("cache_read_input_tokens").is_some());
        let completion = number("output_tokens");
        let told = Counts { prompt, completion, cached, is_cache_told, ..Counts::default() };
        self.counts = self.counts.merge(told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(format: Format, events: &[&str]) -> Result<Answer, Trouble> {
        let mut answer = Answer::default();
        for event in events {
            let mut bytes = event.as_bytes().to_vec();
            let mut parser = Parser::default();
            parser
                .read(&mut bytes, |tape| match format {
                    Format::Chat => answer.take_chunk(tape),
                    Format::Messages => answer.take_event(&Value::from_tape(tape)),
                })
                .unwrap()?;
        }
        Ok(answer)
    }

    #[test]
    fn tokens_in_one_piece_have_no_rate() {
        let rate = |completion, last_us| {
            let counts = Counts { completion, ..Counts::default() };
            let (first, last) = (Some(Duration::from_millis(10)), Duration::from_micros(last_us));
            Answer { counts, first, last, ..Answer::default() }.tokens_per_second()
        };
        assert_eq!(rate(11, 20_000), Some(1000.0));
        assert_eq!((rate(3, 20_000), rate(11, 10_900), rate(11, 10_000)), (None, None, None));
    }

    #[test]
    fn an_answer_is_read_from_either_format() {
        let chat = taken(
            Format::Chat,
            &[
                r#"{"choices":[{"index":0,"delta":{"reasoning":"Hm."}}]}"#,
                r#"{"choices":[{"index":0,"delta":{"content":"Yes"}}]}"#,
                r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f"}}]}}]}"#,
                r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":1}"}}]}}]}"#,
                r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#,
                r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4}}}"#,
            ],
        );
        let messages = taken(
            Format::Messages,
            &[
                r#"{"type":"message_start","message":{"usage":{"input_tokens":5,"cache_read_input_tokens":4,"output_tokens":0}}}"#,
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm."}}"#,
                r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Yes"}}"#,
                r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","name":"f"}}"#,
                r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"a\":1}"}}"#,
                r#"{"type":"ping"}"#,
                r#"{"type":"message_delta","usage":{"output_tokens":5}}"#,
            ],
        );
        let messages = messages.unwrap();
        assert_eq!(chat.unwrap(), messages);
        assert_eq!((messages.counts.prompt, messages.counts.cached), (9, 4));
        assert_eq!(messages.calls, [("f".to_string(), r#"{"a":1}"#.to_string())]);
    }

    #[test]
    fn an_error_is_not_taken_for_an_answer() {
        for (format, event) in [
            (Format::Chat, r#"{"error":{"message":"EngineCore"}}"#),
            (Format::Messages, r#"{"type":"error","error":{"message":"EngineCore"}}"#),
        ] {
            let trouble = taken(format, &[event]).unwrap_err();
            assert!(trouble.to_string().contains("EngineCore"), "{trouble}");
        }
    }

    #[test]
    fn the_rate_counts_from_the_first_token() {
        let counts = Counts { completion: 11, ..Counts::default() };
        let first = Some(Duration::from_secs(3));
        let answer = Answer { counts, first, last: Duration::from_secs(5), ..Answer::default() };
        assert_eq!(answer.tokens_per_second(), Some(5.0));
        let cut = Answer { counts: Counts { completion: 2, ..counts }, ..answer };
        assert_eq!(cut.tokens_per_second(), None);
    }
}
