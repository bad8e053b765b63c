//! The functions that the owner may define, and where one is defined.

/// A function that the owner may define.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `on_load(cfg)`
    Load,
    /// `on_request(req)`
    Request,
    /// `on_upstream_request(body, req)`
    UpstreamRequest,
    /// `on_event(ev, req)`
    Event,
    /// `on_tool_call(call, req)`
    ToolCall,
    /// `on_search(query, req)`
    Search,
    /// `on_error(err, req)`
    Error,
    /// `on_log(rec, req)`
    Log,
    /// `on_upstream_state(name, state, why)`
    UpstreamState,
}

impl Hook {
    /// All hooks, in the order in which they run for a request; last the one that belongs to no request.
    pub const ALL: [Hook; 9] = [
        Hook::Load,
        Hook::Request,
        Hook::UpstreamRequest,
        Hook::Event,
        Hook::ToolCall,
        Hook::Search,
        Hook::Error,
        Hook::Log,
        Hook::UpstreamState,
    ];

    /// Its name in Lua.
    pub fn name(self) -> &'static str {
        match self {
            Hook::Load => "on_load",
            Hook::Request => "on_request",
            Hook::UpstreamRequest => "on_upstream_request",
            Hook::Event => "on_event",
            Hook::ToolCall => "on_tool_call",
            Hook::Search => "on_search",
            Hook::Error => "on_error",
            Hook::Log => "on_log",
            Hook::UpstreamState => "on_upstream_state",
        }
    }

    /// True if it runs for requests.
    pub fn sees_requests(self) -> bool {
        !matches!(self, Hook::Load | Hook::UpstreamState)
    }
}

/// One hook that a file defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Defined {
    pub(super) hook: Hook,
    /// Index of the file.
    pub(super) file: usize,
    pub(super) line: Option<u32>,
    /// True if a failure refuses the request (policy closed).
    pub(super) closed: bool,
    /// The types of events that `on_event` is called for; `None` for all.
    pub(super) event_types: Option<Vec<String>>,
}

/// Where a hook is defined, for `sparkgap check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookPlace {
    /// The hook.
    pub hook: Hook,
    /// The file as it was given.
    pub file: String,
    /// The line of the function.
    pub line: Option<u32>,
    /// True if its failure refuses the request (policy closed).
    pub closed: bool,
}

impl Defined {
    pub(super) fn wants_event(&self, event_type: &str) -> bool {
        self.hook == Hook::Event
            && self.event_types.as_ref().is_none_or(|types| types.iter().any(|t| t == event_type))
    }
}
