//! The data that all hooks of one request share: the plain fields of `req`, and `ctx`.
//!
//! Plain data, filled in by the owner of the request. Does not know Lua.

use crate::http::Socket;
use crate::json::Value;

/// `req` in the hooks. Without `Debug`, since headers may hold secrets that cannot be recognised by their names.
#[derive(Clone, Default)]
pub struct HookRequest {
    /// The model's name as the alias table will look it up.
    pub model: String,
    /// True if the client asks for a stream.
    pub stream: bool,
    /// The client's `max_tokens`.
    pub max_tokens: Option<u64>,
    /// The path without the query.
    pub path: String,
    /// The HTTP method.
    pub method: String,
    /// The headers, except for those that carry keys. The case of names does not matter.
    pub headers: Vec<(String, String)>,
    /// The client's address without the port.
    pub client_ip: String,
    /// The owner's name of the key that let the request in.
    pub user: Option<String>,
    /// The id of the client's session, if the client sends one.
    pub session: Option<String>,
    /// The id of the agent within the session, if the client sends one.
    pub agent: Option<String>,
    /// The estimated size of the input, in tokens.
    pub tokens_est: u64,
    /// True if the request offers tools.
    pub has_tools: bool,
    /// True if the request has an image anywhere.
    pub has_images: bool,
    /// True if the client asks for thinking.
    pub thinking: bool,
    /// The names of the tools that the request offers.
    pub tool_names: Vec<String>,
    /// The upstream that the request goes to; `None` before routing.
    pub upstream: Option<String>,
    /// The client's socket. A call that waits for a VM ends when the client hangs up.
    pub client: Option<Socket>,
    /// The contents of `req.ctx`, kept from one call to the next.
    pub context: Context,
}

/// `req.ctx` between two calls: plain data, since the next call may run in another VM.
#[derive(Clone)]
pub struct Context(pub(super) Value<'static>);

impl Default for Context {
    fn default() -> Self {
        Context(Value::object([]))
    }
}

impl HookRequest {
    /// Every field that Lua sees.
    pub(super) const FIELDS: [&'static str; 18] = [
        "model",
        "stream",
        "max_tokens",
        "path",
        "method",
        "headers",
        "client_ip",
        "user",
        "session",
        "agent",
        "tokens_est",
        "has_tools",
        "has_images",
        "thinking",
        "tool_names",
        "ctx",
        "body",
        "upstream",
    ];

    /// A plain field by its name in Lua; `Null` if the name is known but the field is not set.
    pub(super) fn field(&self, name: &str) -> Option<Value<'_>> {
        let text = |text: &Option<String>| text.clone().map_or(Value::Null, Value::from);
        Some(match name {
            "model" => self.model.as_str().into(),
            "stream" => self.stream.into(),
            "max_tokens" => self.max_tokens.map_or(Value::Null, Value::from),
            "path" => self.path.as_str().into(),
            "method" => self.method.as_str().into(),
            "client_ip" => self.client_ip.as_str().into(),
            "user" => text(&self.user),
            "session" => text(&self.session),
            "agent" => text(&self.agent),
            "tokens_est" => self.tokens_est.into(),
            "has_tools" => self.has_tools.into(),
            "has_images" => self.has_images.into(),
            "thinking" => self.thinking.into(),
            "upstream" => text(&self.upstream),
            _ => return None,
        })
    }

    /// A header's value; the first value if the header is repeated, as everywhere else.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}
