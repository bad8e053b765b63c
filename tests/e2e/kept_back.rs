//! Requests that `never_to` keeps from an upstream: the bytes that would go out count, in whatever way they came about. And
//! sparkgap's own keys, which go to no upstream and no hook wherever a client puts them.

use serde_json::{Value, json};

use super::client::{Answer, hello, post_to, post_with};
use super::messages_api::MessagesApi;
use super::server::{Server, hooks_file, output};
use super::upstream::{TOKENS, Upstream};

const CLIENT_KEY: &str = "x-api-key: sk-ant-client-0123456789\r\n";

const RULES: &str = r#"{ match = { "BEGIN PRIVATE KEY" }, header = { ["x-project"] = "secret*" } }"#;

/// A box without rules; an upstream with a chat completions API and one with the Messages API, both with rules.
struct Site {
    api: MessagesApi,
    ext: Upstream,
    boxed: Upstream,
    server: Server,
}

impl Site {
    fn start(name: &str, more: &str, arguments: &[&str]) -> Site {
        let (api, ext, boxed) = (MessagesApi::start(), Upstream::start(), Upstream::start());
        let lua = format!(
            r#"return {{ api = 1,
                upstreams = {{
                  cloud = {{ url = "{}", protocol = "messages", auth = "client" }},
                  ext = {{ url = "{}" }},
                  box = {{ url = "{}" }},
                }},
                aliases = {{
                  {{ "claude-opus-*", upstream = "cloud" }},
                  {{ "ext", upstream = "ext" }},
                  {{ "pool", upstream = {{ "ext", "box" }} }},
                  {{ "backed", upstream = "cloud", backup = {{ "box" }} }},
                  {{ "*", upstream = "box" }},
                }},
                never_to = {{ cloud = {RULES}, ext = {RULES} }},
                {more} }}"#,
            api.url(),
            ext.url(),
            boxed.url()
        );
        let file = hooks_file(&format!("kept-{name}"), &lua);
        let server = Server::run(&[&["serve", "--hooks", &file], arguments].concat(), &[]);
        server.wait_for("upstream ext: ");
        server.wait_for("upstream box: ");
        Site { api, ext, boxed, server }
    }

    fn ask(&self, path: &str, headers: &str, body: &Value) -> Answer {
        let request = String::from_utf8(post_with(headers, body.to_string().as_bytes())).unwrap();
        self.server.connect().ask(request.replacen("/v1/messages", path, 1).as_bytes())
    }

    /// The requests that the upstreams with rules got.
    fn left(&self) -> usize {
        self.api.got().len() + self.ext.seen().len()
    }
}

fn with_model(model: &str, mut body: Value) -> Value {
    body["model"] = model.into();
    body
}

const MESSAGES: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";
const CHAT: &str = "/v1/chat/completions";

#[test]
fn a_text_that_a_hook_adds_does_not_leave() {
    let hook = r#"on_upstream_request = function(body, req)
          if req.headers["x-add"] and req.upstream ~= "box" then
            body.messages[#body.messages + 1] = { role = "user", content = "begin private" .. " KEY" }
          end
        end,"#;
    let site = Site::start("hook", hook, &[]);
    let add = format!("{CLIENT_KEY}x-add: 1\r\n");
    for (path, model) in
        [(MESSAGES, "ext"), (MESSAGES, "claude-opus-5"), (COUNT, "claude-opus-5"), (CHAT, "ext")]
    {
        for stream in [false, true] {
            let mut body = with_model(model, hello());
            body["stream"] = stream.into();
            let answer = site.ask(path, &add, &body);
            assert_eq!(answer.status, 403, "{path} {model}: {}", answer.text());
            assert!(
                answer.text().contains("`match`") && !answer.text().contains("private"),
                "{}",
                answer.text()
            );
        }
    }
    // The box's own count is not asked for; the client gets an estimate.
    let counted =
        |headers: &str| site.ask(COUNT, headers, &with_model("ext", hello())).json()["input_tokens"].clone();
    assert_eq!(counted(CLIENT_KEY), TOKENS);
    assert_ne!(counted(&add), TOKENS);
    assert_eq!(site.left(), 0);
    // Another upstream of the alias answers.
    for (path, model) in
        [(MESSAGES, "pool"), (MESSAGES, "pool"), (MESSAGES, "backed"), (CHAT, "pool"), (CHAT, "pool")]
    {
        let answer = site.ask(path, &add, &with_model(model, hello()));
        assert_eq!(answer.status, 200, "{path} {model}: {}", answer.text());
    }
    assert_eq!((site.left(), site.boxed.seen().len()), (0, 5));
    // Nothing of this counts against the upstreams.
    let health = site.server.health().to_string();
    assert!(!health.contains("\"out\""), "{health}");
    for (path, model) in [(MESSAGES, "ext"), (MESSAGES, "claude-opus-5"), (CHAT, "ext")] {
        assert_eq!(site.ask(path, CLIENT_KEY, &with_model(model, hello())).status, 200);
    }
    assert_eq!(site.left(), 3);
}

#[test]
fn a_text_that_sparkgap_joins_does_not_leave() {
    let site = Site::start("joined", "", &[]);
    let said = |between: Value| {
        let content =
            json!([{"type": "text", "text": "BEGIN PRI"}, between, {"type": "text", "text": "VATE KEY"}]);
        let mut body = hello();
        body["messages"] = json!([body["messages"][0], {"role": "assistant", "content": content}, {"role": "user", "content": "y"}]);
        body
    };
    let thought = json!({"type": "thinking", "thinking": "hm", "signature": "sg1.6c815185108c77bd"});
    let mut system = hello();
    system["system"] = json!([{"type": "text", "text": "BEGIN PRIVATE"},
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=1"}, {"type": "text", "text": "KEY"}]);
    let mut found = hello();
    found["messages"][0]["content"] = json!([{"type": "search_result", "source": "KEY", "title": "BEGIN PRIVATE",
        "content": [{"type": "text", "text": "b"}]}]);
    for (model, body) in [
        ("ext", said(thought.clone())),
        ("claude-opus-5", said(thought)),
        ("ext", said(json!({"type": "redacted_thinking", "data": "x"}))),
        ("ext", system),
        ("ext", found),
    ] {
        let answer = site.ask(MESSAGES, CLIENT_KEY, &with_model(model, body.clone()));
        assert_eq!(answer.status, 403, "{model} {body}: {}", answer.text());
        let answer = site.ask(COUNT, CLIENT_KEY, &with_model(model, body.clone()));
        assert!(answer.status == 403 || answer.json()["input_tokens"] != TOKENS, "{body}: {}", answer.text());
        assert_eq!(site.ask(MESSAGES, CLIENT_KEY, &with_model("local", body)).status, 200);
    }
    assert_eq!(site.left(), 0);
}

#[test]
fn each_value_of_a_header_counts() {
    let site = Site::start("header", "", &[]);
    for (headers, status) in [
        ("x-project: open\r\nx-project: secret1\r\n", 403),
        ("x-project: secret1\r\nx-project: open\r\n", 403),
        ("x-project: Secret1\r\n", 403),
        ("x-project: open, SECRET\r\n", 403),
        ("x-project: secr\u{e9}t\r\n", 200),
        ("x-project: secret\u{e9}\r\n", 403),
        ("x-project: open\r\n", 200),
    ] {
        let answer =
            site.ask(MESSAGES, &format!("{CLIENT_KEY}{headers}"), &with_model("claude-opus-5", hello()));
        assert_eq!(answer.status, status, "{headers}: {}", answer.text());
    }
}

#[test]
fn files_that_hide_their_words_stay() {
    let site = Site::start("files", "", &[]);
    // "%PDF-1.4\n<424547494e>Tj" and "RIFF....WAVEfmt ", in ASCII.
    let (pdf, wave) = ("JVBERi0xLjQKPDQyNDU0NzQ5NGU+VGo=", "UklGRi4uLi5XQVZFZm10IA==");
    let document = |kind: &str, label: &str| json!([{"type": "document", "source": {"type": kind, "media_type": label, "data": pdf}}]);
    for content in [
        document("base64", "application/pdf"),
        document("base64", "text/plain"),
        document("text", "application/pdf"),
        json!([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": pdf}}]),
        json!([{"type": "tool_result", "tool_use_id": "t", "content": document("base64", "text/plain")}]),
    ] {
        let mut body = with_model("claude-opus-5", hello());
        body["messages"][0]["content"] = content;
        for path in [MESSAGES, COUNT] {
            let answer = site.ask(path, CLIENT_KEY, &body);
            assert!(
                answer.status == 403 && answer.text().contains("cannot be searched"),
                "{body}: {}",
                answer.text()
            );
        }
    }
    const AUDIO: &str = "/v1/audio/transcriptions";
    let field = |name: &str, head: &str, value: &str| {
        format!("--x\r\ncontent-disposition: form-data; name=\"{name}\"{head}\r\n\r\n{value}\r\n")
    };
    let model = field("model", "", "ext");
    let file = |head: &str, value: &str| format!("{model}{}--x--\r\n", field("file", head, value));
    let json = json!({"model": "ext", "file": wave}).to_string();
    let (form, odd) =
        ("multipart/form-data; boundary=x", "multipart/form-data; boundary=x; y=\"BEGIN PRIVATE KEY\"");
    let split = format!("{model}{}{}--x--\r\n", field("a", "", "BEGIN PRI"), field("b", "", "VATE KEY"));
    for (kind, body, expected) in [
        ("application/json", json, "cannot be searched"),
        (form, file("; filename=\"a.wav\"", "RIFF....WAVEfmt "), "cannot be searched"),
        (form, file("\r\ncontent-type: audio/wav", "plain"), "cannot be searched"),
        (form, split, "`match`"),
        (odd, file("", "plain"), "`match`"),
    ] {
        let request = format!(
            "POST {AUDIO} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = site.server.connect().ask(request.as_bytes());
        assert!(answer.status == 403 && answer.text().contains(expected), "{body}: {}", answer.text());
    }
    assert_eq!(site.left(), 0);
    site.ext.next_answer(200, "{}");
    let plain = file("; filename=\"a.txt\"\r\ncontent-type: text/plain", "plain");
    let request = format!(
        "POST {AUDIO} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {form}\r\ncontent-length: {}\r\n\r\n{plain}",
        plain.len()
    );
    assert_eq!(site.server.connect().ask(request.as_bytes()).status, 200);
}

#[test]
fn sparkgap_s_own_keys_go_to_no_upstream_and_no_hook() {
    const OWN: &str = "sk-sparkgap-0123456789";
    let keys = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("kept-keys");
    std::fs::write(&keys, format!("{OWN} anna\n")).unwrap();
    let hook = r#"on_request = function(req)
          for name, value in pairs(req.headers) do
            if value:find("sk%-sparkgap") then return { reject = { status = 400, message = "seen in " .. name } } end
          end
        end,"#;
    let arguments = ["--api-key-file", keys.to_str().unwrap()];
    let site = Site::start("keys", hook, &arguments);
    let own = format!("x-sparkgap-key: {OWN}\r\n");
    // The base64 of "u:sk-sparkgap-0123456789".
    let basic = "authorization: Basic dTpzay1zcGFya2dhcC0wMTIzNDU2Nzg5\r\n";
    for header in [
        format!("authorization: Bearer\t{OWN}\r\n"),
        format!("authorization: {OWN}\r\n"),
        format!("x-api-key: Bearer {OWN}\r\n"),
        format!("x-api-key: \"{OWN}\"\r\n"),
        format!("x-api-key: {OWN},sk-ant-client-0123456789\r\n"),
        basic.to_owned(),
    ] {
        // It is not a key for the upstream either.
        let answer = site.ask(MESSAGES, &format!("{own}{header}"), &with_model("claude-opus-5", hello()));
        assert_eq!(answer.status, 401, "{header}: {}", answer.text());
        assert!(answer.text().contains("send your own Anthropic key"), "{}", answer.text());
    }
    let percent: String = OWN.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let places = [
        ("", format!("x-claude-k: {OWN}\r\n")),
        ("", format!("anthropic-k: a{OWN}b\r\n")),
        ("", format!("user-agent: me {OWN}\r\n")),
        ("", format!("x-claude-code-session-id: {OWN}\r\n")),
        ("", format!("x-other: {OWN}\r\n")),
        (&*format!("?key={OWN}&a=b"), String::new()),
        (&*format!("?a=b&key={percent}"), String::new()),
    ];
    for (query, header) in &places {
        let headers = format!("{own}{CLIENT_KEY}{header}");
        for (path, model) in
            [(MESSAGES, "claude-opus-5"), (MESSAGES, "ext"), (COUNT, "claude-opus-5"), (CHAT, "ext")]
        {
            let answer = site.ask(&format!("{path}{query}"), &headers, &with_model(model, hello()));
            assert_eq!(answer.status, 200, "{header}{query}: {}", answer.text());
        }
    }
    let heads: Vec<String> = site.api.got().into_iter().map(|got| got.head).collect();
    let heads: Vec<String> = site.ext.seen().into_iter().map(|seen| seen.head).chain(heads).collect();
    assert_eq!(heads.len(), 4 * places.len());
    for head in &heads {
        assert!(!head.contains(OWN) && !head.contains(&percent) && head.contains(" HTTP/1.1"), "{head}");
    }
    assert!(heads.iter().any(|head| head.contains("?a=b ")), "{heads:?}");
    // The error says where the key belongs.
    let wrong = "x-sparkgap-key: sk-wrong-0123456789\r\n";
    for (headers, expected) in [
        (wrong.to_owned(), "invalid x-sparkgap-key"),
        (format!("{wrong}{CLIENT_KEY}"), "invalid x-sparkgap-key"),
        (CLIENT_KEY.to_owned(), "send sparkgap's key as x-sparkgap-key"),
        (String::new(), "send sparkgap's key as x-sparkgap-key"),
    ] {
        let answer = site.ask(MESSAGES, &headers, &with_model("claude-opus-5", hello()));
        assert!(answer.status == 401 && answer.text().contains(expected), "{headers}: {}", answer.text());
    }
}

#[test]
fn mistakes_in_rules_are_named_and_check_shows_them() {
    let check = |name: &str, rules: &str, more: &[&str]| {
        let lua = format!(
            r#"return {{ api = 1, upstreams = {{ c = {{ url = "http://127.0.0.1:9/v1" }} }}, never_to = {{ c = {rules} }} }}"#
        );
        let file = hooks_file(&format!("kept-check-{name}"), &lua);
        let (code, out, error) = output(&[&["check", "--hooks", &file], more].concat());
        (code == Some(0), format!("{out}{error}"))
    };
    for (name, rules, expected) in [
        (
            "percent",
            r#"{ match = { { pattern = "%" } } }"#,
            "never_to.c.match: the pattern '%': malformed pattern (ends with '%')",
        ),
        ("set", r#"{ match = { { pattern = "[a" } } }"#, "missing ']'"),
        ("all", r#"{ match = { { pattern = ".*" } } }"#, "matches an empty text"),
        ("header", r#"{ header = { ["X Project"] = "a" } }"#, "'x project' is not a valid header name"),
        ("star", r#"{ paths = { "/srv/*" } }"#, "'/srv/*': a path has no wildcards"),
    ] {
        let (is_ok, text) = check(name, rules, &[]);
        assert!(!is_ok && text.contains(expected), "{name}: {text}");
    }
    let rules = r#"{ paths = { "/srv/a" }, match = { "B C", { pattern = "D%d" } }, keys = { "e-*" }, header = { ["X-F"] = "g" } }"#;
    let (is_ok, text) = check("good", rules, &[]);
    assert!(
        is_ok && text.contains("never_to: /srv/a, \"B C\", pattern D%d, key e-*, header x-f: g"),
        "{text}"
    );
    let (is_ok, text) = check("json", rules, &["--json"]);
    let shown: Value = serde_json::from_str(&text).unwrap();
    let expected = json!([{"upstream": "c", "paths": ["/srv/a"], "match": ["B C"], "patterns": ["D%d"], "keys": ["e-*"], "header": ["x-f: g"]}]);
    assert!(is_ok && shown["never_to"] == expected, "{text}");
}

#[test]
fn a_slow_pattern_is_named() {
    let boxed = Upstream::start();
    let lua = format!(
        r#"return {{ api = 1, upstreams = {{ c = {{ url = "{}" }} }}, never_to = {{ c = {{ match = {{ {{ pattern = ".-.-.-.-b" }} }} }} }} }}"#,
        boxed.url()
    );
    let server = Server::run(&["serve", "--hooks", &hooks_file("kept-slow", &lua)], &[]);
    server.wait_for("upstream c: ");
    let mut body = hello();
    body["messages"][0]["content"] = "a".repeat(2000).into();
    let answer = server.connect().ask(&post_to(MESSAGES, &body));
    assert!(answer.status == 403 && answer.text().contains("the pattern '.-.-.-.-b'"), "{}", answer.text());
    assert!(boxed.seen().is_empty());
}
