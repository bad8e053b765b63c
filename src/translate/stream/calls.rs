//! The tool calls of an answer, while their pieces arrive and until each has been shown.

mod resolve;

use crate::anthropic::WEB_SEARCH;
use crate::json::{self, Value};
use crate::openai::ToolCallDelta;
use crate::rescue::{FoundCall, OfferedTools};

use super::super::arguments::{Arguments, Ending, Schema, fit};
use super::super::finish::is_ready;
use super::super::plan::Plan;
use super::super::tool_id::{self, TakenIds};

/// The most tool calls in one answer. The limit stops a runaway model before the memory runs out.
const CALLS_MAX: usize = 256;

/// The namespaces that models put before the names of functions.
const NAMESPACES: [&str; 3] = ["functions.", "function.", "tools."];

#[derive(Debug)]
struct StreamedCall {
    index: Option<u64>,
    /// The id that the upstream gave the call, and by which it names the call in later pieces. Empty until it comes.
    id: String,
    /// The id by which the client knows the call. Empty until the call is shown.
    shown_id: String,
    name: String,
    arguments: Arguments,
    /// JSON that may be sent once it is this call's turn.
    pending: String,
    begun: bool,
    /// True for a call of the web search, which is not shown.
    is_search: bool,
    /// Set while the call may be only an earlier call that was sent again.
    repetition: Option<Repetition>,
}

/// A call that has the name of an earlier one, and its id or its index. It is shown once its arguments differ from the
/// earlier call's, and dropped if they never do.
#[derive(Clone, Copy, Debug)]
struct Repetition {
    /// The earlier call.
    of: usize,
    /// How many bytes of the arguments were found to be the same, so that no byte is compared twice.
    matched: usize,
    /// True if only the name and the index are the earlier call's, with another id. If it gets arguments of its own,
    /// even the same ones, it is a call.
    is_of_head: bool,
}

impl StreamedCall {
    fn new(index: Option<u64>) -> Self {
        StreamedCall {
            index,
            id: String::new(),
            shown_id: String::new(),
            name: String::new(),
            arguments: Arguments::new(None),
            pending: String::new(),
            begun: false,
            is_search: false,
            repetition: None,
        }
    }

    /// Whether the call may be shown as soon as it is its turn. `at_last` is true if no call has come after it so far.
    fn may_begin(&self, at_last: bool) -> bool {
        let has_said = !self.name.is_empty() && (!self.arguments.is_empty() || !at_last);
        has_said && !self.begun && self.repetition.is_none()
    }

    /// True if, at the end of the answer, the call is only an earlier one that was sent again: the same arguments under
    /// the same id, or a name and id without arguments. The beginning of arguments that were cut counts as a call.
    fn only_repeats(&mut self, is_told_cut: bool) -> bool {
        if self.repetition.is_none() {
            return false;
        }
        let ending = self.arguments.ending(is_told_cut, &mut self.pending);
        !self.arguments.raw().starts_with('{') || (!self.id.is_empty() && ending != Ending::Cut)
    }
}

/// All calls of an answer, in the order in which they came.
#[derive(Debug)]
pub(super) struct StreamedCalls {
    list: Vec<StreamedCall>,
    /// The declared tools, sorted by name, so that the tool of a call is found without walking through all tools.
    tools: Vec<(String, Option<Schema>)>,
    /// Tools whose names were shortened, sorted by the name that was sent.
    renamed: Vec<(String, String)>,
    /// The only tool that may be called, if the client named it.
    forced: Option<String>,
    taken_ids: TakenIds,
    /// Whether only the first call is shown.
    is_only_one: bool,
    /// Whether values are given the types of the schema.
    is_coercing: bool,
    /// Whether calls of the web search are answered by sparkgap.
    makes_searches: bool,
    /// True once such a call has come. The calls behind it are shown after its results.
    has_search: bool,
    /// The changes to the arguments of earlier rounds.
    earlier_changes: (usize, usize),
}

/// A call of the web search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchCall {
    /// The id of the call: the upstream's, or one of our own.
    pub id: String,
    /// The query; empty if the arguments name none.
    pub query: String,
    /// The arguments as the text of a JSON object.
    pub arguments: String,
}

/// The fate, at the end of the answer, of a call whose turn has not come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LastTurn<'c> {
    /// It was shown, or says nothing new.
    Nothing,
    /// It is shown now.
    Begin,
    /// It has no name: only its raw text can be shown. `is_ready` is false if it was cut.
    Malformed { raw: &'c str, is_ready: bool },
}

impl StreamedCalls {
    /// Takes what a plan says about calls.
    pub(super) fn new(plan: &mut Plan) -> Self {
        let mut tools = std::mem::take(&mut plan.tools);
        let mut renamed = std::mem::take(&mut plan.renamed);
        // Of tools with the same name the first one stays first.
        tools.sort_by(|(name, _), (other, _)| name.cmp(other));
        renamed.sort_by(|(sent, _), (other, _)| sent.cmp(other));
        let taken_ids = std::mem::take(&mut plan.taken_ids);
        let (is_only_one, is_coercing) = (plan.one_tool_call, plan.coerces);
        let forced = plan.forced_tool.take();
        StreamedCalls {
            list: Vec::new(),
            tools,
            forced,
            renamed,
            taken_ids,
            is_only_one,
            is_coercing,
            makes_searches: plan.search.is_some(),
            has_search: false,
            earlier_changes: (0, 0),
        }
    }

    /// True if the request offers tools.
    pub(super) fn has_tools(&self) -> bool {
        !self.tools.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The bytes of the calls that are held.
    pub(super) fn size(&self) -> usize {
        let size = |call: &StreamedCall| {
            let texts = [&call.id, &call.shown_id, &call.name, &call.pending];
            texts.iter().map(|text| text.len()).sum::<usize>() + call.arguments.size()
        };
        self.list.iter().map(size).sum()
    }

    /// The number of changes to the arguments: values coerced, and repairs.
    pub(super) fn changes(&self) -> (usize, usize) {
        let changes = self.list.iter().map(|call| call.arguments.changes());
        changes.fold(self.earlier_changes, |(coercions, repairs), (c, r)| (coercions + c, repairs + r))
    }

    /// Adds a call that is already complete, and returns its place.
    pub(super) fn push_whole(&mut self, id: &str, name: &str, arguments: &str) -> usize {
        let mut call = StreamedCall::new(None);
        call.id.push_str(id);
        call.name.push_str(name);
        call.arguments.push(arguments, &mut call.pending);
        self.list.push(call);
        self.list.len() - 1
    }

    /// The name of the offered tool that a call in text is for, and its arguments as JSON. `None` if no tool of that name
    /// is offered, if the client chose another one, or if the arguments do not fit its schema.
    pub(super) fn fit(&self, found: &FoundCall) -> Option<(String, String)> {
        let name = offered(&self.tools, &found.name);
        let schema = by_name(&self.tools, name)?;
        if self.forced.as_ref().is_some_and(|forced| forced != name) {
            return None;
        }
        Some((name.to_owned(), fit(&found.arguments, schema.as_ref(), self.is_coercing)?))
    }

    /// Takes a piece. JSON of the open call, which is at the place `open`, is appended to `json`.
    pub(super) fn push(&mut self, delta: &ToolCallDelta<'_, '_>, open: Option<usize>, json: &mut String) {
        let Some(at) = self.resolve(delta) else { return };
        let Some(call) = self.list.get_mut(at) else { return };
        if let Some(name) = delta.name.filter(|name| *name != call.name && !call.begun) {
            // A name that comes in pieces ends where the arguments begin; a repeated name adds nothing.
            let goes_on = call.arguments.is_empty() && delta.id.is_none();
            if call.name.is_empty() || goes_on {
                call.name.push_str(name);
                self.give_schema(at);
            }
        }
        let Some(call) = self.list.get_mut(at) else { return };
        if let (true, Some(id)) = (call.id.is_empty(), delta.id) {
            call.id.push_str(id);
        }
        let StreamedCall { arguments, pending, .. } = call;
        delta.arguments(|text| arguments.push(text, if open == Some(at) { json } else { pending }));
        if call.repetition.is_some() {
            self.compare(at);
        }
    }

    fn give_schema(&mut self, at: usize) {
        let Some(call) = self.list.get_mut(at) else { return };
        let name = offered(&self.tools, &call.name);
        // A server that refused long names was sent short ones, which have no tool of their own.
        let own_name = by_name(&self.renamed, name).map_or(name, String::as_str);
        let tool = by_name(&self.tools, name).or_else(|| by_name(&self.tools, own_name));
        let schema = tool.and_then(Option::clone).filter(|_| self.is_coercing);
        // Arguments that came before the name are read again, this time with the schema.
        let before = std::mem::replace(&mut call.arguments, Arguments::new(schema));
        call.pending.clear();
        before.replay(&mut call.arguments, &mut call.pending);
    }

    /// The next call that may be shown.
    pub(super) fn next(&self) -> Option<usize> {
        if self.has_search {
            return None;
        }
        let last = self.list.len().saturating_sub(1);
        self.list.iter().enumerate().position(|(at, call)| call.may_begin(at == last))
    }

    /// Gives a call its id for the client, and returns the JSON that waits for it. `None`: the call is a search, or the
    /// client wants only one call and has it.
    pub(super) fn begin(&mut self, at: usize, message_id: &str) -> Option<String> {
        let only_first = self.is_only_one && self.list.iter().any(|call| call.begun);
        let id = self.public_id(at, message_id);
        let is_search = self.names_search(at);
        let call = self.list.get_mut(at)?;
        call.begun = true;
        if only_first {
            return None;
        }
        call.shown_id = id;
        call.is_search = is_search;
        if is_search {
            self.has_search = true;
            return None;
        }
        Some(std::mem::take(&mut call.pending))
    }

    fn names_search(&self, at: usize) -> bool {
        self.makes_searches && self.head(at).1 == WEB_SEARCH
    }

    /// True if the answer has calls of the web search.
    pub(super) fn has_search(&self) -> bool {
        self.has_search
    }

    /// Ends the calls of the web search, at the end of the answer. Returns true if one of them was cut.
    pub(super) fn end_searches(&mut self, is_told_cut: bool, message_id: &str) -> bool {
        if !self.makes_searches {
            return false;
        }
        for at in 0..self.list.len() {
            if self.names_search(at) && self.last_turn(at, is_told_cut) == LastTurn::Begin {
                self.begin(at, message_id);
            }
        }
        let mut is_cut = false;
        for call in self.list.iter_mut().filter(|call| call.is_search) {
            let is_call_ready = is_ready(call.arguments.ending(is_told_cut, &mut call.pending), is_told_cut);
            call.arguments.finish(!is_call_ready, &mut call.pending);
            is_cut |= !is_call_ready;
        }
        is_cut
    }

    /// The calls of the web search, after they have ended.
    pub(super) fn searches(&self) -> Vec<SearchCall> {
        let search = |call: &StreamedCall| {
            let mut bytes = call.pending.clone().into_bytes();
            let object = json::parse(&mut bytes).ok().filter(|value| value.as_object().is_some());
            // A model that writes a number means its digits.
            let query = match object.as_ref().and_then(|object| object.get("query")) {
                Some(Value::String(text)) => text.to_string(),
                Some(number @ Value::Number(_)) => number.to_json(),
                _ => String::new(),
            };
            let arguments = if object.is_some() { call.pending.clone() } else { "{}".to_owned() };
            SearchCall { id: call.shown_id.clone(), query, arguments }
        };
        self.list.iter().filter(|call| call.is_search).map(search).collect()
    }

    /// Begins the calls of the next round. A forced choice has been met.
    pub(super) fn next_round(&mut self) {
        self.earlier_changes = self.changes();
        self.list = Vec::new();
        self.has_search = false;
        self.forced = None;
    }

    /// The id and the name by which the client knows a call that was begun.
    pub(super) fn head(&self, at: usize) -> (&str, &str) {
        let Some(call) = self.list.get(at) else { return Default::default() };
        let name = offered(&self.tools, &call.name);
        (&call.shown_id, by_name(&self.renamed, name).map_or(name, String::as_str))
    }

    /// True if the arguments of a call are complete so far.
    pub(super) fn is_complete(&self, at: usize) -> bool {
        self.list.get(at).is_none_or(|call| call.arguments.is_complete())
    }

    /// Ends the JSON of a call. If the call is ready to run, its JSON is completed; otherwise the JSON is left visibly
    /// unfinished. Returns whether it is ready.
    pub(super) fn complete(&mut self, at: usize, is_told_cut: bool, json: &mut String) -> bool {
        let Some(call) = self.list.get_mut(at) else { return true };
        let is_ready = is_ready(call.arguments.ending(is_told_cut, json), is_told_cut);
        call.arguments.finish(!is_ready, json);
        is_ready
    }

    /// Handles an answer that broke off while this call was open: its JSON must not pass for a whole call.
    pub(super) fn abandon(&mut self, at: usize, json: &mut String) {
        if let Some(call) = self.list.get_mut(at) {
            call.arguments.abandon(json);
        }
    }

    /// Decides, at the end of the answer, about a call whose turn has not come.
    pub(super) fn last_turn(&mut self, at: usize, is_told_cut: bool) -> LastTurn<'_> {
        let Some(call) = self.list.get_mut(at) else { return LastTurn::Nothing };
        // Some servers send empty pieces of calls that do not exist.
        let says_something = !call.name.is_empty() || !call.arguments.is_empty();
        if call.begun || !says_something {
            return LastTurn::Nothing;
        }
        if call.only_repeats(is_told_cut) {
            call.arguments = Arguments::new(None);
            return LastTurn::Nothing;
        }
        if let (true, [(name, _)]) = (call.name.is_empty(), self.tools.as_slice()) {
            call.name.clone_from(name);
        }
        if !call.name.is_empty() {
            return LastTurn::Begin;
        }
        call.begun = true;
        let ending = call.arguments.ending(is_told_cut, &mut String::new());
        call.arguments.finish(false, &mut String::new());
        LastTurn::Malformed { raw: call.arguments.raw(), is_ready: is_ready(ending, is_told_cut) }
    }

    /// The id for the client: the upstream's, in the characters that the API allows, and different from all ids that
    /// the client knows from earlier turns. A call without an id, or with the id of another call of this answer, gets
    /// an id made from the message's, which is as unique as the message's.
    fn public_id(&self, at: usize, message_id: &str) -> String {
        let unique = message_id.strip_prefix("msg_").unwrap_or(message_id);
        let told = self.list.get(at).map_or("", |call| call.id.as_str());
        let is_usable = !told.is_empty() && told.len() <= tool_id::SIZE_MAX;
        if is_usable && !self.list.iter().any(|call| call.begun && call.id == told) {
            let id = tool_id::shown(told);
            let is_taken = self.taken_ids.contains(&id) || self.list.iter().any(|c| c.shown_id == id);
            return if is_taken { tool_id::unique(told, unique, at) } else { id.into_owned() };
        }
        let unique = unique.get(..unique.len().saturating_sub(3)).unwrap_or_default();
        format!("toolu_{unique}{at:03}")
    }
}

impl OfferedTools for StreamedCalls {
    fn offers(&self, name: &str) -> bool {
        by_name(&self.tools, offered(&self.tools, name)).is_some()
    }

    fn may_offer(&self, beginning: &str) -> bool {
        let begins_tool = |text: &str| {
            let at = self.tools.partition_point(|(known, _)| known.as_str() < text);
            let is_begun = self.tools.get(at).is_some_and(|(known, _)| known.starts_with(text));
            is_begun || text.rsplit_once(':').is_some_and(|(name, _)| by_name(&self.tools, name).is_some())
        };
        let mut spaces = NAMESPACES.iter();
        begins_tool(beginning)
            || spaces.any(|space| match beginning.strip_prefix(space) {
                Some(local) => begins_tool(local),
                None => space.starts_with(beginning),
            })
    }
}

/// The longest name that is searched for marks around the name of an offered tool, in bytes.
const MARKED_NAME_SIZE_MAX: usize = 512;

/// The name of the offered tool that a model's name for it stands for. Some servers leave control tokens of the model's
/// format in a name (gpt-oss: `Bash<|channel|>commentary`), its namespace (`functions.Bash`), a number (Kimi: `Bash:0`) or
/// blanks. A name that leads to no offered tool is kept as it is.
fn offered<'n>(tools: &[(String, Option<Schema>)], name: &'n str) -> &'n str {
    let is_offered = |name: &&str| by_name(tools, name).is_some();
    // A name may come in many pieces, each of which asks again, so only a short one is taken apart.
    if name.len() > MARKED_NAME_SIZE_MAX || is_offered(&name) {
        return name;
    }
    let bare = name.split("<|").next().unwrap_or(name).trim();
    let numbered = bare.rsplit_once(':').filter(|(_, number)| number.bytes().all(|b| b.is_ascii_digit()));
    let unnumbered = numbered.map_or(bare, |(name, _)| name).trim_end();
    let local = |name: &'n str| NAMESPACES.iter().find_map(|space| name.strip_prefix(space)).unwrap_or(name);
    [bare, local(bare), unnumbered, local(unnumbered)].into_iter().find(is_offered).unwrap_or(name)
}

/// The first entry of that name in a list that is sorted by name.
fn by_name<'l, T>(list: &'l [(String, T)], name: &str) -> Option<&'l T> {
    let at = list.partition_point(|(known, _)| known.as_str() < name);
    list.get(at).filter(|(known, _)| known == name).map(|(_, value)| value)
}
