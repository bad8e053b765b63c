//! The client and the conversation of a request: for the choice of an upstream, and for the headers that the
//! upstream gets.

use crate::activity::{Caller, RequestDetails, kept_name};
use crate::cluster::{ClusterHints, ClusterKind};
use crate::hash::Fnv;
use crate::http::Request;
use crate::json::Value;
use crate::lane::Lane;
use crate::translate::estimate;
use crate::transport::{ExtraHeaders, passes};

/// The header by which Claude Code names its session.
pub(super) const SESSION: &str = "x-claude-code-session-id";

/// The header by which Claude Code names a sub-agent within the session.
const AGENT: &str = "x-claude-code-agent-id";

/// The header by which Claude Code names the agent that has started this one.
const PARENT: &str = "x-claude-code-parent-agent-id";

/// Notes the names of session and agent and the lane, by the headers.
pub(super) fn describe(request: &Request, details: &mut RequestDetails) {
    details.session = kept_name(request.header(SESSION));
    details.agent = kept_name(request.header(AGENT));
    details.lane = lane(request);
}

/// The lane that the headers name.
fn lane(request: &Request) -> Lane {
    let class = |name| request.header(name);
    Lane::of(class("x-claude-code-request-class"), class("x-claude-1p-request-class"))
}

/// A request as far as it tells whose it is.
#[derive(Clone, Copy)]
pub(super) struct Identity<'r> {
    pub(super) request: &'r Request,
    pub(super) caller: &'r Caller,
    /// The Messages request.
    pub(super) body: &'r Value<'r>,
}

impl Identity<'_> {
    /// The hash of the beginning that the request shares with other conversations, tools and system prompt, and its tokens.
    pub(super) fn head(&self) -> (Fnv, u64) {
        let tools = self.body.get("tools").and_then(Value::as_array).unwrap_or_default();
        let names = tools.iter().filter_map(|tool| tool.get("name")?.as_str());
        let hash = names.fold(Fnv::EMPTY, |hash, name| hash.push(name.as_bytes()).push(b"\n"));
        let mut system = Vec::new();
        if let Some(value) = self.body.get("system") {
            value.write(&mut system);
        }
        (hash.push(&system), estimate::head_tokens(self.body))
    }

    /// The hash of the conversation: Claude Code names its session and, for a conversation of its own, its agent. Other clients
    /// are known by what stays the same: the beginning, with this hash, and the first message.
    pub(super) fn conversation(&self, head: Fnv) -> Fnv {
        if let Some(session) = self.session() {
            return session;
        }
        let mut first = Vec::new();
        let messages = self.body.get("messages").and_then(Value::as_array).unwrap_or_default();
        if let Some(message) = messages.first() {
            message.write(&mut first);
        }
        head.push(&first)
    }

    /// The hash of the session and its agent, the same as [`Identity::conversation`]; `None` if the client names no session.
    pub(super) fn session(&self) -> Option<Fnv> {
        let session = self.request.header(SESSION)?;
        let agent = self.request.header(AGENT).unwrap_or_default();
        Some(Fnv::EMPTY.push(session.as_bytes()).push(b"\n").push(agent.as_bytes()))
    }

    /// The hash of the client: of the owner of its key, otherwise of its address.
    pub(super) fn client(&self) -> Fnv {
        match self.caller.user.as_deref() {
            Some(user) => Fnv::EMPTY.push(user.as_bytes()),
            None => Fnv::EMPTY.push(self.caller.address.to_string().as_bytes()),
        }
    }

    /// The headers that the upstream of this request gets beside the usual ones: Claude Code's own names of session and agents,
    /// and those of its cluster, which are told the lane.
    pub(super) fn headers(&self, cluster: Option<ClusterKind>, lane: Lane) -> ExtraHeaders {
        let mut headers = ExtraHeaders::default();
        for name in [SESSION, AGENT, PARENT] {
            if let Some(value) = self.request.header(name) {
                headers.push(name, value);
            }
        }
        if let Some(cluster) = cluster {
            for (name, value) in cluster.headers(&self.hints(lane)) {
                headers.push(name, value);
            }
        }
        headers
    }

    fn hints(&self, lane: Lane) -> ClusterHints {
        let named = |name| self.request.header(name).filter(|value| passes(value));
        let (session, agent) = (named(SESSION), named(AGENT));
        let conversation = match (session, agent) {
            (Some(session), Some(agent)) => Some(format!("{session}:{agent}")),
            (Some(session), None) => Some(session.to_string()),
            (None, _) => None,
        };
        // Two long names together may be too long for a header.
        let conversation = conversation.filter(|name| passes(name));
        let conversation = conversation.unwrap_or_else(|| self.conversation(self.head().0).hex());
        let parent = session.filter(|_| agent.is_some()).map(|session| match named(PARENT) {
            Some(parent) => format!("{session}:{parent}"),
            None => session.to_string(),
        });
        ClusterHints { conversation, parent, client: self.client().hex(), lane }
    }
}
