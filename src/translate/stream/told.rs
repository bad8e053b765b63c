//! The facts about an answer beside its content: its counts, and how it ended.

use crate::anthropic::{Event, StopReason, Usage};
use crate::openai::{Choice, Counts};

use super::super::estimate;
use super::super::finish::{End, Limits, canonical, stop_reason, usage};
use super::super::plan::Asked;
use super::super::stop::StopMatcher;

/// The tokens of a request and of its answer, counted by the upstream or estimated.
#[derive(Debug)]
pub(super) struct Tokens {
    asked: Asked,
    counts: Counts,
    /// The tokens of the content so far, estimated.
    output: f64,
    /// True if nothing is shown, so that nothing counts as output.
    is_discarded: bool,
    /// Web searches that were made.
    searches: u64,
    /// The usage and the counts of earlier rounds.
    earlier: (Usage, Counts),
}

impl Tokens {
    pub(super) fn new(asked: Asked, is_discarded: bool) -> Self {
        Tokens {
            asked,
            counts: Counts::default(),
            output: 0.0,
            is_discarded,
            searches: 0,
            earlier: Default::default(),
        }
    }

    /// Begins the next round of the answer: from now on this one's usage and counts are those of earlier rounds.
    pub(super) fn next_round(&mut self, asked: &Asked) {
        self.earlier = (self.usage(1), self.total_counts());
        (self.counts, self.output, self.searches) = Default::default();
        self.asked.clone_from(asked);
    }

    /// The counts of all rounds together.
    pub(super) fn total_counts(&self) -> Counts {
        let (earlier, counts) = (self.earlier.1, self.counts);
        Counts {
            prompt: earlier.prompt.saturating_add(counts.prompt),
            completion: earlier.completion.saturating_add(counts.completion),
            cached: earlier.cached.saturating_add(counts.cached),
            is_cache_told: earlier.is_cache_told || counts.is_cache_told,
            cache_created: earlier.cache_created.saturating_add(counts.cache_created),
            reasoning: sum(earlier.reasoning, counts.reasoning),
        }
    }

    /// The model as the client named it.
    pub(super) fn model(&self) -> &str {
        &self.asked.model
    }

    /// Takes the limits of a request that was changed after the stream was made.
    pub(super) fn set_limits(&mut self, asked: &Asked) {
        self.asked.clone_from(asked);
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes counts that the upstream sent.
    pub(super) fn add_counts(&mut self, counts: Counts) {
        self.counts = self.counts.merge(counts);
    }

    /// Takes content that the model wrote, for the case that the upstream does not count it.
    pub(super) fn add_content(&mut self, text: &str) {
        self.output += estimate::text_tokens(text);
    }

    /// Counts a web search.
    pub(super) fn add_search(&mut self) {
        self.searches += 1;
    }

    /// The answer's usage so far. At the end of the answer the output must not be 0: it is at least `output_min`.
    pub(super) fn usage(&self, output_min: u64) -> Usage {
        let estimate = estimate::whole(self.output).max(output_min);
        let mut usage = usage(self.counts, self.asked.prompt_tokens, estimate);
        usage.searches = self.searches;
        if self.is_discarded {
            usage.output = 0;
        }
        let earlier = self.earlier.0;
        Usage {
            input: usage.input.saturating_add(earlier.input),
            cache_read: usage.cache_read.saturating_add(earlier.cache_read),
            cache_creation: usage.cache_creation.saturating_add(earlier.cache_creation),
            output: usage.output.saturating_add(earlier.output),
            thinking: sum(usage.thinking, earlier.thinking),
            searches: usage.searches.saturating_add(earlier.searches),
        }
    }

    /// The tokens of this round's answer.
    pub(super) fn round_output(&self) -> u64 {
        match self.counts.completion {
            0 => estimate::whole(self.output),
            counted => counted,
        }
    }

    /// True if this round has left some of the tokens that the client wants at most.
    pub(super) fn has_room(&self) -> bool {
        self.round_output() < self.asked.wanted_tokens
    }

    /// True if, by the counts, the window ended the answer rather than the client's limit.
    pub(super) fn fill_window(&self) -> bool {
        let Asked { max_tokens, is_clamped_to_window, window, .. } = self.asked;
        let (prompt, completion) = (self.counts.prompt, self.counts.completion);
        let reached = |window: u64| completion > 0 && prompt.saturating_add(completion) >= window;
        let clamped = is_clamped_to_window && completion >= max_tokens;
        clamped || (completion < max_tokens && window.is_some_and(reached))
    }
}

/// The sum of two counts that may be missing.
fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    }
}

/// How the answer ended, as far as it was told.
#[derive(Debug, Default)]
pub(super) struct ToldEnd {
    finish_reason: Option<String>,
    stop_sequence: Option<String>,
    refusal: Option<String>,
    /// The upstream said `[DONE]`.
    is_done: bool,
    /// The upstream sent the whole answer as one JSON object.
    is_whole: bool,
    /// The text was ended because it repeated one line.
    has_looped: bool,
    /// The context window was full before the answer was whole.
    is_window_full: bool,
}

impl ToldEnd {
    /// Takes what a choice says about its end. `stops` are the requested stop sequences.
    /// `is_one_body`: the answer is one JSON object, in which a `message` is all of it.
    pub(super) fn read(&mut self, choice: &Choice<'_, '_>, stops: &StopMatcher, is_one_body: bool) {
        self.is_whole |= choice.is_whole && is_one_body;
        // Once the upstream has said that the answer was cut, a later reason does not replace that.
        if let Some(reason) = choice.finish_reason.filter(|_| self.finish_reason.as_deref() != Some("length"))
        {
            self.finish(canonical(reason));
        }
        let requested = |stop: &&str| stops.knows(stop);
        if let (Some(stop), Some(_)) = (choice.stop.filter(requested), choice.finish_reason) {
            self.stop_sequence = Some(stop.to_string());
        }
    }

    /// The upstream sent the whole answer as one JSON object, though perhaps without a choice.
    pub(super) fn read_whole(&mut self) {
        self.is_whole = true;
    }

    pub(super) fn finish(&mut self, reason: &str) {
        self.finish_reason = Some(reason.to_string());
    }

    /// A stop sequence was met in the text.
    pub(super) fn stop(&mut self, sequence: String) {
        self.stop_sequence = Some(sequence);
        self.finish("stop");
    }

    pub(super) fn has_refused(&self) -> bool {
        self.refusal.is_some()
    }

    pub(super) fn refuse(&mut self, text: &str) {
        self.refusal.get_or_insert_default().push_str(text);
    }

    /// The upstream said that nothing follows.
    pub(super) fn is_done(&mut self) {
        self.is_done = true;
    }

    /// The upstream broke the answer off because its window is full.
    pub(super) fn overflow(&mut self) {
        self.is_window_full = true;
        self.finish("length");
    }

    /// The text repeats one line, so the answer ends here.
    pub(super) fn end_loop(&mut self) {
        self.has_looped = true;
        self.finish("stop");
    }

    /// True if the text was ended because it repeated one line.
    pub(super) fn has_looped(&self) -> bool {
        self.has_looped
    }

    /// True if nothing that the upstream sends from now on is shown.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop_sequence.is_some() || self.has_looped
    }

    /// True if the upstream has told how the answer ended.
    pub(super) fn is_finished(&self) -> bool {
        self.finish_reason.is_some()
    }

    /// The finish reason. `None` if the upstream never said that it had finished: a server that says `[DONE]` after some
    /// content, or sends a whole answer, has finished, even if it gives no reason.
    pub(super) fn reason(&self, has_content: bool) -> Option<&str> {
        let has_finished = self.is_whole || (self.is_done && has_content);
        self.finish_reason.as_deref().or(has_finished.then_some("stop"))
    }

    /// True if there is any evidence that the upstream may have cut the answer.
    pub(super) fn is_cut(&self, tokens: &Tokens) -> bool {
        let limits = Limits {
            finish_reason: self.finish_reason.as_deref(),
            stop_sequence_met: self.stop_sequence.is_some(),
            completion: tokens.counts.completion,
            max_tokens: tokens.asked.max_tokens,
            window_full: self.has_full_window(tokens),
        };
        limits.say_cut()
    }

    /// True if the window ended the answer.
    pub(super) fn has_full_window(&self, tokens: &Tokens) -> bool {
        self.is_window_full || tokens.fill_window()
    }

    /// True if an answer whose calls are whole ends with them: no limit, filter or cut call has ended it.
    pub(super) fn ends_with_calls(&self, end: EndOfContent, tokens: &Tokens) -> bool {
        let end = EndOfContent { has_tool_use: true, ..end };
        matches!(
            self.message_delta(end, tokens),
            Event::MessageDelta { stop_reason: StopReason::ToolUse, .. }
        )
    }

    /// The event that ends the message, for an answer with these calls.
    pub(super) fn message_delta(&self, end: EndOfContent, tokens: &Tokens) -> Event<'_> {
        let EndOfContent { has_content, has_tool_use, has_cut_call, knows_window_reason } = end;
        let end = End {
            finish_reason: self.reason(has_content).unwrap_or("stop"),
            stop_sequence: self.stop_sequence.as_deref(),
            has_tool_use,
            has_cut_call,
            refused: self.refusal.is_some(),
            window_exceeded: knows_window_reason && self.has_full_window(tokens),
        };
        let stop_reason = if tokens.is_discarded { StopReason::MaxTokens } else { stop_reason(&end) };
        Event::MessageDelta {
            stop_reason,
            stop_sequence: end.stop_sequence.filter(|_| stop_reason == StopReason::StopSequence),
            refusal: self.refusal.as_deref(),
            usage: tokens.usage(1),
        }
    }
}

/// The facts about an answer's content that decide its stop reason.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndOfContent {
    pub(super) has_content: bool,
    /// Whether a tool call that is ready to run was passed on.
    pub(super) has_tool_use: bool,
    /// Whether a tool call was cut.
    pub(super) has_cut_call: bool,
    /// Whether the client knows the stop reason for a full window.
    pub(super) knows_window_reason: bool,
}
