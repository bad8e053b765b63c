//! What the hooks of one request share: `req`'s plain fields, and `ctx`.
//!
//! Plain data; the owner of the request fills it in. Knows no Lua.

use crate::json::Value;

/// `req` in the hooks. No `Debug`, as headers may hold secrets of the client that we do not know to be any.
#[derive(Clone, Default)]
pub struct Request {
    /// The model's name as the alias table will look it up.
    pub model: String,
    /// Whether the client streams.
    pub stream: bool,
    /// The client's `max_tokens`.
    pub max_tokens: Option<u64>,
    /// The path without the query.
    pub path: String,
    /// The HTTP method.
    pub method: String,
    /// The headers, but for those that carry keys; names in any case.
    pub headers: Vec<(String, String)>,
    /// The client's address without the port.
    pub client_ip: String,
    /// The owner's name of the key that let the request in.
    pub user: Option<String>,
    /// The client's session, if it tells one.
    pub session: Option<String>,
    /// Which agent of the session it is, if the client tells.
    pub agent: Option<String>,
    /// The input in tokens, estimated.
    pub tokens_est: u64,
    /// Whether tools are offered.
    pub has_tools: bool,
    /// Whether there is an image anywhere.
    pub has_images: bool,
    /// Whether the client asks for thinking.
    pub thinking: bool,
    /// The names of the tools offered.
    pub tool_names: Vec<String>,
    /// The upstream it goes to, once routed.
    pub upstream: Option<String>,
    /// What the hooks keep in `req.ctx` from one call to the next.
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

impl Request {
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

    /// A plain field by its name in Lua; `Null`: it is known but not set.
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

    /// A header's value; the first one where it is repeated, as everywhere else.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}
