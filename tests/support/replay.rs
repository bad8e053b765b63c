//! Runs one exchange through the translation as the proxy does, but without sockets.

use sparkgap::anthropic::{
    Event, MessagesRequest, SearchFailure, SearchOutcome, WebSearchTool, search_call, search_result,
    search_text,
};
use sparkgap::error::{Error, Kind};
use sparkgap::json;
use sparkgap::openai::{UpstreamError, read_failure};
use sparkgap::search::{check_query, read_hits};
use sparkgap::sse::Decoder;
use sparkgap::translate::{
    ChatRequest, MessageFold, MessageStream, Plan, Progress, SearchRound, Target, chat_request, failure_error,
};

/// 24 characters behind the prefix, as `ids` makes them.
pub const MESSAGE_ID: &str = "msg_golden0000000000000001";
pub const REQUEST_ID: &str = "req_golden0000000000000001";

/// The answer that the client gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// An HTTP error.
    Refused(Box<Error>),
    /// A stream of events, or a whole Message.
    Told(Vec<u8>),
}

/// The result of translating an upstream's bytes.
#[derive(Clone, Debug)]
pub struct Replayed {
    pub answer: Answer,
    /// The number of pieces that had been used when a stop sequence ended the reading, if one did.
    pub cancelled_after: Option<usize>,
}

/// The upstream's body and the plan of its request.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub plan: Plan,
    pub window: Option<u64>,
    pub status: u16,
    pub retry_after: Option<u32>,
    /// Events of the upstream before which it was silent for long, once for each silence.
    pub silences: Vec<usize>,
    pub is_sse: bool,
    pub body: Vec<u8>,
    /// The answers to the searches of the model. `None`: none can be made, and the message ends with them.
    pub search: Option<SearchScript>,
}

/// The page of a search engine for each search of the first round, and the upstream's events of the next round.
#[derive(Clone, Debug)]
pub struct SearchScript {
    pub page: Vec<u8>,
    pub next: Vec<u8>,
}

impl SearchScript {
    fn outcome(&self, query: &str, tool: &WebSearchTool) -> SearchOutcome {
        check_query(query)?;
        read_hits(&mut self.page.clone(), tool).ok_or(SearchFailure::Unavailable)
    }
}

/// The chat completion's body, compact, and the plan.
pub fn request(messages: &[u8], target: &Target<'_>) -> Result<(String, Plan), Error> {
    let mut bytes = messages.to_vec();
    let body = json::parse(&mut bytes).map_err(|error| Error::invalid(error.to_string()))?;
    let request = MessagesRequest::read(&body)?;
    let ChatRequest { body, plan, .. } = chat_request(&request, target)?;
    Ok((body.to_json(), plan))
}

impl Exchange {
    /// The client's answer if the upstream's body comes in these pieces.
    pub fn replay<'b>(&self, pieces: impl IntoIterator<Item = &'b [u8]>) -> Replayed {
        let refused = |failure| Replayed {
            answer: Answer::Refused(Box::new(failure_error(failure, &self.plan.asked))),
            cancelled_after: None,
        };
        if self.status != 200 {
            let mut body: Vec<u8> = pieces.into_iter().flatten().copied().collect();
            return refused(read_failure(self.status, &mut body, self.retry_after));
        }
        let mut run = Run::new(self.plan.clone(), self.silences.clone());
        let mut cancelled_after = None;
        let read = if self.is_sse {
            run.events(pieces, &mut cancelled_after)
        } else {
            let mut body: Vec<u8> = pieces.into_iter().flatten().copied().collect();
            run.whole(&mut body).map(|_| ())
        };
        let error = match read.map(|()| run.end().and_then(|()| run.rounds(self))) {
            Ok(Ok(())) => return Replayed { answer: Answer::Told(run.finish()), cancelled_after },
            Ok(Err(error)) => error,
            Err(failure) => failure_error(failure, &self.plan.asked),
        };
        if !run.stream.started() || !self.plan.stream {
            return Replayed { answer: Answer::Refused(Box::new(error)), cancelled_after };
        }
        let out = &mut run.out;
        run.stream.fail(&error, REQUEST_ID, &mut |event| event.encode(out));
        Replayed { answer: Answer::Told(run.out), cancelled_after }
    }

    pub fn whole(&self) -> Replayed {
        self.replay([self.body.as_slice()])
    }

    /// The searches of the first round, and their results as texts for the model. `None`: no further round follows.
    pub fn searches(&self) -> Option<(SearchRound, Vec<String>)> {
        let script = self.search.as_ref()?;
        let mut run = Run::new(self.plan.clone(), Vec::new());
        run.events([self.body.as_slice()], &mut None).ok()?;
        run.end().ok()?;
        let round = run.stream.take_searches()?;
        if run.stream.end_searches(true, &mut |_| {}) {
            return None;
        }
        let tool = self.plan.search.clone().unwrap_or_default();
        let text = |query: &str| search_text(query, &script.outcome(query, &tool));
        let texts = round.calls.iter().map(|call| text(&call.query)).collect();
        Some((round, texts))
    }
}

struct Run {
    stream: MessageStream,
    decoder: Decoder,
    is_stream: bool,
    fold: MessageFold,
    out: Vec<u8>,
    silences: Vec<usize>,
    events: usize,
}

impl Run {
    fn new(plan: Plan, silences: Vec<usize>) -> Self {
        Run {
            silences,
            events: 0,
            is_stream: plan.stream,
            stream: MessageStream::new(plan, MESSAGE_ID.to_string()),
            decoder: Decoder::default(),
            fold: MessageFold::default(),
            out: Vec::new(),
        }
    }

    fn events<'b>(
        &mut self,
        pieces: impl IntoIterator<Item = &'b [u8]>,
        cancelled_after: &mut Option<usize>,
    ) -> Result<(), UpstreamError> {
        for (at, piece) in pieces.into_iter().enumerate() {
            self.decoder.feed(piece);
            if self.drain()? == Progress::Cancel {
                *cancelled_after = Some(at + 1);
                return Ok(());
            }
        }
        self.decoder.end();
        self.drain().map(|_| ())
    }

    fn drain(&mut self) -> Result<Progress, UpstreamError> {
        let mut progress = Progress::More;
        let mut decoder = std::mem::take(&mut self.decoder);
        while progress != Progress::Cancel {
            let too_long = |_| UpstreamError::Other(Error::new(Kind::BadGateway, "too long"));
            let Some(event) = decoder.next_event().map_err(too_long)? else { break };
            self.silence();
            progress = self.data(event.data, event.is_error)?;
        }
        self.decoder = decoder;
        Ok(progress)
    }

    /// Sends the client the events for the silence before the next event.
    fn silence(&mut self) {
        let Run { stream, fold, out, is_stream, silences, events, .. } = self;
        for _ in silences.iter().filter(|before| **before == *events) {
            let emit = &mut |event: &Event<'_>| tell(event, *is_stream, fold, out);
            if stream.started() { stream.tell_usage(emit) } else { stream.open(emit) }
        }
        *events += 1;
    }

    fn data(&mut self, data: &mut [u8], is_error: bool) -> Result<Progress, UpstreamError> {
        let Run { stream, fold, out, is_stream, .. } = self;
        stream.data(&mut json::Parser::default(), data, is_error, &mut |event| {
            tell(event, *is_stream, fold, out)
        })
    }

    fn whole(&mut self, body: &mut [u8]) -> Result<Progress, UpstreamError> {
        let Run { stream, fold, out, is_stream, .. } = self;
        stream.whole(&mut json::Parser::default(), body, &mut |event| tell(event, *is_stream, fold, out))
    }

    fn end(&mut self) -> Result<(), Error> {
        let Run { stream, fold, out, is_stream, .. } = self;
        stream.end(&mut |event| tell(event, *is_stream, fold, out))
    }

    /// Makes the searches of the model, and goes on with the next round.
    fn rounds(&mut self, exchange: &Exchange) -> Result<(), Error> {
        let Some(round) = self.stream.take_searches() else { return Ok(()) };
        let tool = exchange.plan.search.clone().unwrap_or_default();
        let Run { stream, fold, out, is_stream, .. } = self;
        let mut emit = |event: &Event<'_>| tell(event, *is_stream, fold, out);
        for (i, call) in round.calls.iter().enumerate() {
            let id = format!("srvtoolu_golden{i:018}");
            let outcome = match &exchange.search {
                Some(script) => script.outcome(&call.query, &tool),
                None => Err(SearchFailure::Unavailable),
            };
            stream.search_block(&search_call(&id, &call.query), &mut emit);
            stream.search_block(&search_result(&id, &outcome), &mut emit);
        }
        if stream.end_searches(exchange.search.is_some(), &mut emit) {
            return Ok(());
        }
        stream.next_round(&exchange.plan.asked);
        let next = exchange.search.as_ref().map(|script| script.next.as_slice()).unwrap_or_default();
        self.decoder = Decoder::default();
        self.silences.clear();
        self.events([next], &mut None).map_err(|failure| failure_error(failure, &exchange.plan.asked))?;
        self.end()
    }

    fn finish(mut self) -> Vec<u8> {
        if !self.is_stream {
            self.fold.finish(&mut self.out);
        }
        self.out
    }
}

fn tell(event: &Event<'_>, is_stream: bool, fold: &mut MessageFold, out: &mut Vec<u8>) {
    if is_stream { event.encode(out) } else { fold.event(event) }
}
