//! The rounds of an answer whose model searches the web: each answer of the upstream that asks for searches is followed by
//! their results, and by the model's next answer, all in one message.
//!
//! | the upstream's answer ends with | the message |
//! |---|---|
//! | searches only | their blocks, then the next round |
//! | searches and calls of the client's tools | the blocks of the searches, then the calls; it ends |
//! | a search that was cut, or at a limit | no search is made; it ends |

use super::calls::SearchCall;
use super::marks::ThinkMarks;
use super::told::ToldEnd;
use super::writer::RoundText;
use super::{Asked, Emit, MessageStream};
use crate::json::Value;

/// The searches that the model asks for at the end of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchRound {
    /// The text and the reasoning of this round.
    pub written: RoundText,
    /// The searches in order; at least one.
    pub calls: Vec<SearchCall>,
    /// The tokens of the model's answer in this round, counted by the upstream or estimated.
    pub output: u64,
}

impl MessageStream {
    /// The searches that the model asks for, after [`MessageStream::end`]. Once their blocks are shown, call
    /// [`MessageStream::end_searches`]. `None`: the message has ended.
    pub fn take_searches(&mut self) -> Option<SearchRound> {
        if !self.is_searching {
            return None;
        }
        let (calls, output) = (self.content.calls().searches(), self.tokens.round_output());
        Some(SearchRound { written: self.content.take_round(), calls, output })
    }

    /// Shows a block of a search: its call, or its results.
    pub fn search_block(&mut self, block: &Value<'_>, emit: &mut Emit<'_>) {
        self.with_sink(emit, |content, sink| content.server_block(block, sink));
    }

    /// Ends the searches: shows the calls of the client's tools that came beside them, and ends the message if there are any,
    /// unless it `goes_on`, or if the client's limit of tokens is used up. Returns false if the next round is to follow.
    pub fn end_searches(&mut self, goes_on: bool, emit: &mut Emit<'_>) -> bool {
        self.is_searching = false;
        self.with_sink(emit, |content, sink| content.end(false, sink));
        if goes_on && !self.content.has_tool_use() && !self.content.has_cut_call() {
            if self.tokens.has_room() {
                return false;
            }
            self.told.finish("length");
        }
        self.conclude(true, emit);
        true
    }

    /// Begins the next round: another answer of the same upstream, to a request with these facts, in the same message.
    pub fn next_round(&mut self, asked: &Asked) {
        self.lines.next_round();
        self.marks = ThinkMarks::new(None, self.think_tags);
        self.lost.next_round();
        self.spoken = 0;
        self.content.next_round();
        self.told = ToldEnd::default();
        self.tokens.next_round(asked);
        self.malformed = None;
        self.is_one_body = false;
        self.messages = Default::default();
    }
}
