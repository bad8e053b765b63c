//! `policy = "closed"`: each hook fails in each way at each kind of event, on every way to the client. Neither that event
//! nor a later one may reach the client, and the answer ends with an error. With policy open the same answer is whole.

use std::fmt;

use serde_json::{Value, json};

use super::client::{Answer, hello, hello_stream, post_with};
use super::server::{Server, hooks_file};
use super::upstream::{Gate, Then, Upstream, delta, finish, usage};
use super::validator::Ended;

/// Hooks that fail where the request's headers say so, in the way that they say.
const FAILING: &str = r#"
local ways = {
  error = function() error("on purpose") end,
  later = function(ev) if not ev.text:find("Before") then error("on purpose") end end,
  time = function() while true do end end,
  caught_time = function() while true do pcall(function() while true do end end) end end,
  memory = function() local s = ("x"):rep(1 << 20) while true do s = s .. s end end,
  number = function() return 5 end,
  truth = function() return true end,
  list = function() return { 1, 2 } end,
  no_json = function() return { f = print } end,
  nonsense = function() return { nonsense = 1 } end,
  text_as_number = function(ev) ev.text = 5 end,
  no_text = function(ev) ev.text = nil end,
  other_type = function(ev) ev.type = "other" end,
  dropped = function() return false end,
  renamed = function(ev) ev.name = "Other" ev.stop_reason = "refusal" end,
  name_as_number = function(call) call.name = 5 end,
  no_name = function() return { name = "" } end,
  input_as_text = function(call) call.input = "ls" end,
  input_as_list = function() return { input = { 1 } } end,
  no_input = function(call) call.input = nil end,
}
local function at(req, hook, kind, ...)
  if req.headers["x-hook"] == hook and (kind == nil or req.headers["x-kind"] == kind) then
    return ways[req.headers["x-way"]](...)
  end
end
return {
  api = 1, policy = "POLICY",
  upstreams = { spark = { url = "URL" } },
  aliases = { { "*", upstream = "spark" } },
  on_request = function(req)
    if req.headers["x-respond"] then
      return { respond = { content = {
        { type = "text", text = "UTTERED" },
        { type = "tool_use", id = "c1", name = "Shell", input = { command = "DESTROY" } },
      } } }
    end
    return at(req, "on_request")
  end,
  on_upstream_request = function(body, req) return at(req, "on_upstream_request", nil, body) end,
  on_event = function(ev, req) return at(req, "on_event", ev.type, ev) end,
  on_tool_call = function(call, req) return at(req, "on_tool_call", nil, call) end,
  on_error = function(err, req) return at(req, "on_error", nil, err) end,
  on_log = function(rec, req)
    local function has(value) return type(value) == "string" end
    log.info("told", rec.request_id, rec.status, has(rec.stop_reason), rec.output_tokens, has(rec.error))
    return at(req, "on_log")
  end,
}
"#;

fn serve(name: &str, policy: &str, upstream: &Upstream) -> Server {
    let lua = FAILING.replace("POLICY", policy).replace("URL", &upstream.url());
    let server = Server::run(&["serve", "--hooks", &hooks_file(&format!("{name}-{policy}"), &lua)], &[]);
    server.wait_for("upstream spark: ");
    server
}

/// Ways to fail that every hook has, and those of single ones.
const ANY: [&str; 8] = ["error", "time", "caught_time", "memory", "number", "truth", "list", "no_json"];
const OF_TEXT: [&str; 4] = ["nonsense", "text_as_number", "no_text", "other_type"];
const OF_LOOKING: [&str; 4] = ["nonsense", "other_type", "dropped", "renamed"];
const OF_CALLS: [&str; 7] =
    ["nonsense", "dropped", "name_as_number", "no_name", "input_as_text", "input_as_list", "no_input"];

/// One request: which hook is to fail, at which kind of event, how.
#[derive(Clone, Copy)]
struct Row<'r> {
    hook: &'r str,
    kind: &'r str,
    way: &'r str,
    is_streamed: bool,
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} by {}, streamed: {}", self.hook, self.kind, self.way, self.is_streamed)
    }
}

impl Row<'_> {
    fn ask(&self, server: &Server, given: &Given) -> Answer {
        let Row { hook, kind, way, is_streamed } = self;
        let respond = if given.is_respond { "x-respond: 1\r\n" } else { "" };
        let headers = format!("x-hook: {hook}\r\nx-kind: {kind}\r\nx-way: {way}\r\n{respond}");
        let mut body = if *is_streamed { hello_stream() } else { hello() };
        body["tools"] = json!([{"name": "Shell", "input_schema": {"type": "object"}}]);
        body["stop_sequences"] = json!(["UTTERED!"]);
        if given.is_omitted {
            body["thinking"] = json!({"type": "adaptive", "display": "omitted"});
        }
        server.connect().ask(&post_with(&headers, body.to_string().as_bytes()))
    }
}

/// An answer, and the kinds of its events in the order in which they come.
struct Given {
    name: &'static str,
    chunks: Vec<Value>,
    whole: Option<Value>,
    is_respond: bool,
    is_omitted: bool,
    kinds: &'static [&'static str],
}

fn thinking() -> Value {
    delta(json!({"reasoning_content": "MUSING"}))
}

fn text(text: &str) -> Value {
    delta(json!({"content": text}))
}

fn call(arguments: &str) -> Value {
    let function = json!({"name": "Shell", "arguments": arguments});
    delta(json!({"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": function}]}))
}

fn more_of_call(arguments: &str) -> Value {
    delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]}))
}

const COMMAND: &str = r#"{"command":"DESTROY"}"#;

impl Given {
    fn new(name: &'static str, kinds: &'static [&'static str], chunks: Vec<Value>) -> Given {
        Given { name, chunks, whole: None, is_respond: false, is_omitted: false, kinds }
    }

    /// Has the upstream answer with it next.
    fn give(&self, upstream: &Upstream) {
        match &self.whole {
            _ if self.is_respond => {}
            Some(whole) => upstream.next_answer(200, &whole.to_string()),
            None => upstream.next_chunks(self.chunks.clone()),
        }
    }

    /// The texts that a client would see of an event of this kind. `TVVTSU5H` is the reasoning as a signature carries
    /// it.
    fn signs(&self, kind: &str) -> &'static [&'static str] {
        match kind {
            "thinking" if self.is_omitted => &["TVVTSU5H"],
            "thinking" => &["MUSING"],
            "text" => &["UTTERED"],
            "tool_use" => &["Shell", "DESTROY", r#""type":"tool_use""#],
            _ => &[r#""stop_reason":""#],
        }
    }
}

/// Every way to the client: events at once, held back by a stop sequence or within a tool call, only at the end, out of a
/// whole answer, out of marks, in a signature, from a hook.
fn answers() -> Vec<Given> {
    let ended = || [finish("tool_calls"), usage(20, 5)];
    let all = vec![thinking(), text("UTTERED, then"), call(COMMAND)];
    let message = json!({"role": "assistant", "reasoning_content": "MUSING", "content": "UTTERED", "tool_calls":
        [{"id": "c1", "type": "function", "function": {"name": "Shell", "arguments": COMMAND}}]});
    let choice = json!({"index": 0, "message": message, "finish_reason": "tool_calls"});
    let whole = json!({"id": "1", "object": "chat.completion", "choices": [choice],
        "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}});
    let every = &["thinking", "text", "tool_use", "end"][..];
    let respond = Given::new("respond", &["text", "tool_use", "end"], Vec::new());
    let omitted = vec![thinking(), text("UTTERED, then"), finish("stop")];
    let omitted = Given::new("omitted thinking", &["thinking", "text", "end"], omitted);
    let within = vec![call(r#"{"command":"#), text("UTTERED, then"), more_of_call(r#""DESTROY"}"#)];
    vec![
        Given::new("all", every, [all, ended().into()].concat()),
        Given::new("only a call", &["tool_use", "end"], [vec![call(COMMAND)], ended().into()].concat()),
        Given::new("held text", &["text", "end"], vec![text("UTTERED"), finish("stop"), usage(20, 5)]),
        Given::new("text in a call", &["tool_use", "text", "end"], [within, ended().into()].concat()),
        Given::new(
            "marks",
            &["thinking", "text", "end"],
            vec![text("<think>MUSING</think>UTTERED, then"), finish("stop")],
        ),
        Given { whole: Some(whole), ..Given::new("whole", every, Vec::new()) },
        Given { is_omitted: true, ..omitted },
        Given { is_respond: true, ..respond },
    ]
}

/// The rows that an answer is tried with: all of them for one from an upstream and one from a hook, else an error.
fn rows(given: &Given) -> Vec<Row<'static>> {
    let mut rows = Vec::new();
    for kind in given.kinds {
        let of_kind: &[&str] = if matches!(*kind, "text" | "thinking") { &OF_TEXT } else { &OF_LOOKING };
        let hooks = [("on_event", of_kind), ("on_tool_call", &OF_CALLS[..])];
        for (hook, own) in hooks.into_iter().filter(|(hook, _)| *hook == "on_event" || *kind == "tool_use") {
            let all = ANY
                .iter()
                .chain(own)
                .filter(|way| **way == "error" || given.name == "all" || given.is_respond);
            for way in all {
                rows.extend([true, false].map(|is_streamed| Row { hook, kind, way, is_streamed }));
            }
        }
    }
    rows
}

/// The error that ended an answer: as a status, or as the last event.
fn refusal(answer: &Answer) -> String {
    if answer.status == 403 {
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        return answer.error().1;
    }
    let (ended, _) = answer.events();
    assert_eq!(ended, Ended::Failed, "{}", answer.text());
    answer.data("error")[0]["error"]["message"].as_str().unwrap().to_owned()
}

/// Asks for an answer at which a closed hook fails: nothing from that event on may be in what the client gets.
fn check_refused(server: &Server, upstream: &Upstream, given: &Given, row: &Row<'_>) {
    given.give(upstream);
    let answer = row.ask(server, given);
    let said = refusal(&answer);
    assert!(said.contains("policy is closed"), "{}, {row}: {said}", given.name);
    assert!(row.is_streamed || answer.status == 403, "{}, {row}", given.name);
    let failed = given.kinds.iter().position(|kind| *kind == row.kind).unwrap();
    for sign in given.kinds[failed..].iter().flat_map(|kind| given.signs(kind)) {
        assert!(!answer.text().contains(sign), "{}, {row}: {}", given.name, answer.text());
    }
}

#[test]
fn what_a_closed_hook_fails_at_never_reaches_the_client() {
    let upstream = Upstream::start();
    let server = serve("table", "closed", &upstream);
    for given in answers() {
        for row in rows(&given) {
            check_refused(&server, &upstream, &given, &row);
        }
    }
    // No line tells a stop reason.
    let log = server.terminate_and_log();
    for reason in ["tool_use in ", "end_turn in "] {
        assert!(!log.contains(reason), "{log}");
    }
}

// A tool call is gathered only where on_tool_call is defined.
#[test]
fn a_closed_hook_that_is_alone_stops_the_answer_as_well() {
    for other in ["  on_tool_call = ", "  on_event = "] {
        let upstream = Upstream::start();
        let without: Vec<&str> = FAILING.lines().filter(|line| !line.starts_with(other)).collect();
        let lua = without.join("\n").replace("POLICY", "closed").replace("URL", &upstream.url());
        let path = hooks_file(&format!("alone-without{}", other.trim().len()), &lua);
        let server = Server::run(&["serve", "--hooks", &path], &[]);
        server.wait_for("upstream spark: ");
        for given in answers() {
            for row in rows(&given).iter().filter(|row| row.way == "error" && !other.contains(row.hook)) {
                check_refused(&server, &upstream, &given, row);
            }
        }
    }
}

#[test]
fn tokens_are_not_counted_where_a_closed_hook_fails() {
    let upstream = Upstream::start();
    let server = serve("count", "closed", &upstream);
    let body = hello().to_string();
    for hook in ["on_request", "on_upstream_request"] {
        let head = format!(
            "POST /v1/messages/count_tokens HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             x-hook: {hook}\r\nx-way: error\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = server.connect().ask(head.as_bytes());
        assert_eq!(answer.status, 403, "{hook}: {}", answer.text());
    }
}

#[test]
fn what_an_open_hook_fails_at_reaches_the_client() {
    let upstream = Upstream::start();
    let server = serve("table", "open", &upstream);
    for given in answers() {
        for row in rows(&given) {
            given.give(&upstream);
            let answer = row.ask(&server, &given);
            if row.is_streamed {
                answer.whole_events()
            } else {
                answer.message()
            };
            for sign in given.kinds.iter().flat_map(|kind| given.signs(kind)) {
                assert!(answer.text().contains(sign), "{}, {row}: {}", given.name, answer.text());
            }
        }
    }
}

#[test]
fn hooks_before_and_after_the_answer() {
    for policy in ["closed", "open"] {
        let upstream = Upstream::start();
        let server = serve("around", policy, &upstream);
        let given = &answers()[0];
        for hook in ["on_request", "on_upstream_request", "on_error", "on_log"] {
            for (way, is_streamed) in ANY.iter().flat_map(|way| [(*way, true), (*way, false)]) {
                let row = Row { hook, kind: "", way, is_streamed };
                let is_closed = policy == "closed" && hook != "on_log";
                let asked = upstream.seen().len();
                match hook {
                    "on_error" => upstream.next_answer(500, r#"{"error":{"message":"engine died"}}"#),
                    _ if is_closed => {}
                    _ => given.give(&upstream),
                }
                let answer = row.ask(&server, given);
                if is_closed {
                    let said = refusal(&answer);
                    assert_eq!(answer.status, 403, "{row}");
                    assert!(said.contains(hook) && said.contains("policy is closed"), "{row}: {said}");
                    let more = usize::from(hook == "on_error");
                    assert_eq!(upstream.seen().len(), asked + more, "{row}: the upstream was asked");
                } else if hook == "on_error" {
                    assert_eq!((answer.status, answer.error().1), (500, "engine died".to_owned()), "{row}");
                } else if is_streamed {
                    answer.whole_events();
                } else {
                    answer.message();
                }
            }
        }
    }
}

#[test]
fn an_answer_that_has_begun_ends_with_an_error_and_its_upstream_is_cancelled() {
    let upstream = Upstream::start();
    let server = serve("begun", "closed", &upstream);
    for (kind, shown, refused) in [
        ("text", text("Before, "), text("UTTERED, then")),
        ("thinking", delta(json!({"reasoning_content": "Before, "})), thinking()),
        ("tool_use", text("Before, "), call(COMMAND)),
    ] {
        let gate = Gate::default();
        let opened = gate.clone();
        upstream.next(move |call| {
            call.stream_head();
            call.chunk(&shown);
            opened.wait();
            call.chunk(&refused);
            call.chunk(&text("LATER"));
            // No end: only the refusal can have closed the connection.
            call.wait_for_close();
            Then::Close
        });
        // Both pieces are of one kind: the hook knows the second one by its text.
        let way = if kind == "tool_use" { "error" } else { "later" };
        let headers = format!("x-hook: on_event\r\nx-kind: {kind}\r\nx-way: {way}\r\n");
        let mut client = server.connect();
        client.send(&post_with(&headers, hello_stream().to_string().as_bytes()));
        let head = client.head();
        assert_eq!(head.status, 200);
        let before = client.read_until("Before, ");
        gate.open();
        let mut rest = String::new();
        while let Some(piece) = client.piece() {
            rest.push_str(std::str::from_utf8(&piece).unwrap());
        }
        let answer = Answer { body: (before + &rest).into_bytes(), ..head };
        assert!(refusal(&answer).contains("on_event failed and its policy is closed"), "{kind}");
        for sign in ["UTTERED", "MUSING", "Shell", "DESTROY", "LATER"] {
            assert!(!answer.text().contains(sign), "{kind}: {}", answer.text());
        }
        let id = answer.header("request-id").unwrap();
        // A status, no stop reason, no tokens, an error.
        server.wait_for(&format!("told {id} 200 false 0 true"));
    }
}

/// Hooks with `on_event` and `on_tool_call` of these Lua bodies.
fn serve_hooks(name: &str, policy: &str, on_event: &str, on_tool_call: &str, upstream: &Upstream) -> Server {
    let lua = format!(
        r#"return {{ api = 1, policy = "{policy}", upstreams = {{ spark = {{ url = "{}" }} }},
        on_request = function(req)
            if req.headers["x-respond"] then
                return {{ respond = {{ content = {{
                    "UTTERED", {{ type = "tool_use", id = "c1", name = "Shell", input = {{ command = "DESTROY" }} }},
                }} }} }}
            end
        end,
        on_event = function(ev) {on_event} end,
        on_tool_call = function(call) {on_tool_call} end }}"#,
        upstream.url()
    );
    let server = Server::run(&["serve", "--hooks", &hooks_file(&format!("{name}-{policy}"), &lua)], &[]);
    server.wait_for("upstream spark: ");
    server
}

// No byte of the answer was written yet: a status tells more than an event.
#[test]
fn a_refusal_of_the_first_piece_is_a_status() {
    let upstream = Upstream::start();
    let server = serve("first", "closed", &upstream);
    let given = &answers()[2];
    for is_streamed in [true, false] {
        given.give(&upstream);
        let row = Row { hook: "on_event", kind: "text", way: "error", is_streamed };
        assert_eq!(row.ask(&server, given).status, 403, "{row}");
    }
    for line in [server.wait_for(" stream 403 "), server.wait_for(" whole 403 ")] {
        assert!(!line.contains("end_turn") && line.contains("policy is closed"), "{line}");
    }
}

#[test]
fn a_cut_call_that_a_closed_hook_cannot_check_is_refused() {
    const LOOK: &str = "log.info('asked about', call.name)";
    let chunks = || vec![text("Before, "), call(r#"{"command":"DESTR"#), finish("length"), usage(20, 5)];
    for policy in ["closed", "open"] {
        let upstream = Upstream::start();
        let server = serve_hooks("cut", policy, "", LOOK, &upstream);
        for body in [hello_stream(), hello()] {
            upstream.next_chunks(chunks());
            let answer = server.connect().post(&body);
            if policy == "closed" {
                assert!(refusal(&answer).contains("a larger max_tokens may help"), "{}", answer.text());
                assert!(!answer.text().contains("DESTR"), "{}", answer.text());
                assert!(!answer.text().contains("Shell"), "{}", answer.text());
            } else {
                assert!(answer.text().contains(r#""stop_reason":"max_tokens""#), "{}", answer.text());
            }
        }
        let log = server.terminate_and_log();
        assert!(!log.contains("asked about"), "{log}");
    }
}

#[test]
fn a_call_that_breaks_off_is_neither_asked_about_nor_shown() {
    for (policy, arguments) in ["closed", "open"]
        .iter()
        .flat_map(|policy| ["", r#"{"command":"DESTR"#, COMMAND].map(|a| (*policy, a)))
    {
        let upstream = Upstream::start();
        let server = serve_hooks("broken", policy, "", "log.info('asked about', call.name)", &upstream);
        let arguments = arguments.to_owned();
        upstream.next(move |scripted| {
            scripted.stream_head();
            scripted.chunk(&text("Before, "));
            scripted.chunk(&call(&arguments));
            Then::Close
        });
        let answer = server.connect().post(&hello_stream());
        let (ended, content) = answer.events();
        assert_eq!((ended, content.len()), (Ended::Failed, 1), "{}", answer.text());
        assert!(!answer.text().contains("Shell"), "{}", answer.text());
        let log = server.terminate_and_log();
        assert!(!log.contains("asked about"), "{log}");
    }
}

#[test]
fn hooks_see_and_change_the_answer_of_a_hook() {
    let upstream = Upstream::start();
    let on_event = "if ev.type == 'text' then ev.text = ev.text:lower() end";
    let server = serve_hooks("respond", "closed", on_event, "call.input.command = 'ls'", &upstream);
    for body in [hello(), hello_stream()] {
        let answer = server.connect().ask(&post_with("x-respond: 1\r\n", body.to_string().as_bytes()));
        let content = if body["stream"] == true { answer.whole_events() } else { answer.message() };
        assert_eq!(
            (&content[0]["text"], &content[1]["input"]),
            (&json!("uttered"), &json!({"command": "ls"}))
        );
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn text_that_a_hook_takes_out_stays_out() {
    let upstream = Upstream::start();
    let on_event = "if ev.type == 'thinking' then return false end \
        if ev.type == 'text' then ev.text = ev.text:gsub('UTTERED', '') end";
    let server = serve_hooks("redacted", "closed", on_event, "", &upstream);
    let refused = || vec![thinking(), delta(json!({"refusal": "UTTERED, no"})), finish("stop"), usage(20, 5)];
    let mut omitted = hello_stream();
    omitted["thinking"] = json!({"type": "adaptive", "display": "omitted"});
    for body in [hello_stream(), hello(), omitted] {
        upstream.next_chunks(refused());
        let answer = server.connect().post(&body);
        if body["stream"] == true {
            answer.whole_events()
        } else {
            answer.message()
        };
        assert!(answer.text().contains(r#""stop_reason":"refusal""#), "{}", answer.text());
        for taken in ["UTTERED", "MUSING", "TVVTSU5H"] {
            assert!(!answer.text().contains(taken), "{}", answer.text());
        }
    }
}
