//! `GET /env.sh`, `/env.fish`, `/env.ps1` and `/env.json` on a machine that has no sparkgap: in real shells.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::client::Answer;
use super::evaluation::{run, shells};
use super::server::{Server, hooks_file};
use super::upstream::Upstream;

const KEY: &str = "sk-0123456789abcdef";

/// A server whose file of keys has this one.
fn server_with_key(upstream: &Upstream, name: &str, key: &str) -> Server {
    let keys = hooks_file(name, &format!("{key} anna\n"));
    Server::start_with(upstream, &["--api-key-file", &keys])
}

fn get(server: &Server, path: &str, headers: &str) -> Answer {
    let host = server.address;
    server.connect().ask(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n").as_bytes())
}

fn text(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).unwrap()
}

/// The path for a shell.
fn path_of(shell: &str) -> &'static str {
    if shell.ends_with("fish") { "/env.fish" } else { "/env.sh" }
}

/// A script that evaluates a text.
fn eval(text: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let file = format!("{}/form-{number}", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&file, text).unwrap();
    format!("eval \"$(cat {file})\"")
}

/// Evaluates a text in a shell, then prints these variables, each on a line.
fn evaluate(shell: &str, text: &str, names: &[&str]) -> (String, Option<i32>) {
    let print: String = names.iter().map(|name| format!(" && printf '%s\\n' \"${name}\"")).collect();
    run(shell, &(eval(text) + &print))
}

#[test]
fn each_shell_gets_the_environment_with_the_key_that_was_sent() {
    let upstream = Upstream::start();
    let server = server_with_key(&upstream, "forms-keys", KEY);
    let names = [
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_MODEL",
        "CLAUDE_CODE_USE_BEDROCK",
    ];
    let expected = format!("http://{}\n{KEY}\n\nqwen3\n\n", server.address);
    for headers in [format!("x-api-key: {KEY}\r\n"), format!("authorization: Bearer {KEY}\r\n")] {
        for shell in shells() {
            let path = path_of(&shell);
            let answer = get(&server, path, &headers);
            assert_eq!(answer.status, 200, "{}", text(&answer));
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert_eq!(evaluate(&shell, text(&answer), &names), (expected.clone(), Some(0)), "{shell}");
        }
    }
    let answer = get(&server, "/env.json", &format!("x-api-key: {KEY}\r\n")).json();
    assert_eq!(answer["env"]["ANTHROPIC_AUTH_TOKEN"], KEY);
    assert_eq!((&answer["skipWebFetchPreflight"], &answer["apiKeyHelper"]), (&json!(true), &json!("")));
    assert_eq!(answer["env"]["CLAUDE_CODE_USE_BEDROCK"], "");
    let script = get(&server, "/env.ps1", &format!("x-api-key: {KEY}\r\n"));
    assert!(text(&script).contains(&format!("\n$env:ANTHROPIC_AUTH_TOKEN = '{KEY}'\n")), "{}", text(&script));
}

#[test]
fn a_server_without_keys_gives_any_key() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    // The client's own key may be one of another server, so it is not repeated.
    let answer = get(&server, "/env.json", "x-api-key: sk-of-somebody-else\r\n");
    assert!(!text(&answer).contains("somebody"), "{}", text(&answer));
    assert_eq!(answer.json()["env"]["ANTHROPIC_AUTH_TOKEN"], "local");
}

#[test]
fn odd_names_of_models_stay_values_in_every_shell() {
    let name = r#"a'; echo BAD; '$(echo BAD)`echo BAD`\' "é’;echo BAD"#;
    let lua = format!(
        "return {{ api = 1, upstreams = {{ box = {{ url = 'http://127.0.0.1:1/v1', model = {name:?}, window = 65536 }} }}, aliases = {{ {{ '*', upstream = 'box' }} }} }}"
    );
    let server = Server::run(&["serve", "--hooks", &hooks_file("forms-odd", &lua)], &[]);
    for shell in shells() {
        let path = path_of(&shell);
        let answer = get(&server, path, "");
        let expected = format!("{name}\n");
        assert_eq!(evaluate(&shell, text(&answer), &["ANTHROPIC_MODEL"]), (expected, Some(0)), "{shell}");
    }
    assert_eq!(get(&server, "/env.json", "").json()["env"]["ANTHROPIC_MODEL"], name);
    let script = get(&server, "/env.ps1", "");
    let line = text(&script).lines().find(|line| line.starts_with("$env:ANTHROPIC_MODEL ")).unwrap();
    assert_eq!(line, r#"$env:ANTHROPIC_MODEL = 'a''; echo BAD; ''$(echo BAD)`echo BAD`\'' "é’’;echo BAD'"#);
}

/// Every answer that is an error fails in every shell, says why, and leaves an address that leads nowhere: neither
/// `eval … && claude` nor `eval …; claude` reaches the cloud.
fn leads_nowhere(server: &Server, headers: &str, status: u16, reason: &str) {
    for shell in shells() {
        let path = path_of(&shell);
        let answer = get(server, path, headers);
        assert_eq!(answer.status, status, "{}", text(&answer));
        assert!(text(&answer).contains(reason), "{}", text(&answer));
        assert_eq!(evaluate(&shell, text(&answer), &["HOME"]).0, "", "{shell}: a command behind && ran");
        let script = eval(text(&answer)) + " 2>&1; echo $ANTHROPIC_BASE_URL";
        let (said, _) = run(&shell, &script);
        assert!(said.starts_with("sparkgap: ") && said.contains(reason), "{shell}: {said}");
        assert!(said.ends_with("\nhttps://sparkgap-gave-no-environment.invalid\n"), "{shell}: {said}");
    }
    let answer: Value = get(server, "/env.json", headers).json();
    assert_eq!(answer["env"]["ANTHROPIC_BASE_URL"], "https://sparkgap-gave-no-environment.invalid");
    assert!(answer["error"]["message"].as_str().unwrap().contains(reason), "{answer}");
    let script = get(server, "/env.ps1", headers);
    assert!(
        text(&script).contains("\nthrow 'sparkgap: ") && text(&script).contains(reason),
        "{}",
        text(&script)
    );
}

#[test]
fn a_wrong_key_leads_nowhere() {
    let upstream = Upstream::start();
    let server = server_with_key(&upstream, "forms-wrong", KEY);
    leads_nowhere(&server, "", 401, "the key is missing or wrong");
}

#[test]
fn a_host_that_cannot_stand_in_a_url_leads_nowhere() {
    let upstream = Upstream::start();
    let server = server_with_key(&upstream, "forms-host", KEY);
    for host in ["a'b", "a$(b)", ""] {
        let request = format!("GET /env.sh HTTP/1.1\r\nhost: {host}\r\nx-api-key: {KEY}\r\n\r\n");
        let answer = server.connect().ask(request.as_bytes());
        assert_eq!(answer.status, 400, "{host}");
        assert!(text(&answer).ends_with("\nfalse\n") && text(&answer).contains("host: the header"), "{host}");
    }
    // Without keys, a name that a web page could have bound to this address is refused.
    let open = Server::start(&upstream);
    let answer = open.connect().ask(b"GET /env.sh HTTP/1.1\r\nhost: evil.example\r\n\r\n");
    assert_eq!(answer.status, 403);
    assert!(text(&answer).ends_with("\nfalse\n"), "{}", text(&answer));
    let answer = open.connect().ask(b"POST /env.sh HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn a_model_server_that_is_down_leads_nowhere() {
    let server = Server::run(&["serve", "--upstream", "http://127.0.0.1:1/v1"], &[]);
    leads_nowhere(&server, "", 502, "cannot be reached, so its model");
}

#[test]
fn a_model_whose_name_commands_a_terminal_leads_nowhere() {
    let lua = "return { api = 1, upstreams = { box = { url = 'http://127.0.0.1:1/v1', model = 'a\\027[2J', window = 65536 } }, aliases = { { '*', upstream = 'box' } } }";
    let server = Server::run(&["serve", "--hooks", &hooks_file("forms-command", lua)], &[]);
    leads_nowhere(&server, "", 502, "a plain name for its model");
}

#[test]
fn other_endings_are_unknown() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for path in ["/env.", "/env.bat", "/env.sh.txt", "/env.SH", "/envsh"] {
        assert_eq!(get(&server, path, "").status, 404, "{path}");
    }
}

const OPENAI: [&str; 3] = ["OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_API_KEY"];

#[test]
fn clients_of_openai_s_protocol_have_their_own_variables() {
    let upstream = Upstream::start();
    let server = server_with_key(&upstream, "forms-openai", KEY);
    let url = format!("http://{}", server.address);
    let expected = format!("{url}/v1\n{url}/v1\n{KEY}\n");
    for shell in shells() {
        let answer = get(&server, &format!("{}?openai", path_of(&shell)), &format!("x-api-key: {KEY}\r\n"));
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
        assert_eq!(evaluate(&shell, text(&answer), &OPENAI), (expected.clone(), Some(0)), "{shell}");
        assert!(!text(&answer).contains("ANTHROPIC"), "{}", text(&answer));
        let options = ["env", "--openai", "--remote", &url, "--api-key", KEY];
        let (code, script, stderr) = super::server::output(&options);
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(evaluate(&shell, &script, &OPENAI), (expected.clone(), Some(0)), "{shell}");
    }
    let answer = get(&server, "/env.json?openai", &format!("x-api-key: {KEY}\r\n")).json();
    assert_eq!(
        answer,
        json!({"env": {OPENAI[0]: format!("{url}/v1"), OPENAI[1]: format!("{url}/v1"), OPENAI[2]: KEY}})
    );
    // A wrong key leaves addresses that lead nowhere.
    for shell in shells() {
        let answer = get(&server, &format!("{}?openai", path_of(&shell)), "");
        assert_eq!(answer.status, 401);
        let script = eval(text(&answer)) + " 2>/dev/null; echo $OPENAI_BASE_URL $OPENAI_API_BASE";
        let nowhere = "https://sparkgap-gave-no-environment.invalid";
        assert_eq!(run(&shell, &script).0, format!("{nowhere} {nowhere}\n"), "{shell}");
    }
}

#[test]
fn a_browser_gets_a_page_with_the_lines() {
    let upstream = Upstream::start();
    let server = server_with_key(&upstream, "forms-page", KEY);
    let browser = "accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\n";
    let page = get(&server, "/", browser);
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'; "));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let url = format!("http://{}", server.address);
    assert!(text(&page).contains(&format!("<pre>{url}/v1</pre>")), "{}", text(&page));
    assert!(text(&page).contains(&format!("'{url}/env.sh?openai'")), "{}", text(&page));
    // The page needs no key, so it tells neither a key nor a model.
    assert!(!text(&page).contains(KEY) && !text(&page).contains("qwen3"), "{}", text(&page));
    // Programs get what they always got.
    for headers in ["", "accept: */*\r\n", "accept: application/json\r\n"] {
        assert_eq!(text(&get(&server, "/", headers)), r#"{"name":"sparkgap"}"#);
    }
    assert_eq!(text(&get(&server, "/api/hello", browser)), r#"{"name":"sparkgap"}"#);
    // A host that cannot stand in a URL gets no page.
    for host in ["<b>", "a'b", "a\"b"] {
        let answer =
            server.connect().ask(format!("GET / HTTP/1.1\r\nhost: {host}\r\n{browser}\r\n").as_bytes());
        assert_eq!(answer.status, 400, "{host}");
        assert!(!text(&answer).contains("<b>"), "{}", text(&answer));
    }
    // The lines work as they stand.
    let first = text(&page).lines().find(|line| line.contains("/env.sh'")).unwrap();
    let line = first.split("<pre>").nth(1).unwrap().split("</pre>").next().unwrap();
    let line = line.replace("&amp;", "&").replace("KEY", KEY).replace("claude", "echo $ANTHROPIC_AUTH_TOKEN");
    if std::path::Path::new("/usr/bin/curl").exists() {
        for shell in shells().iter().filter(|shell| !shell.ends_with("fish")) {
            assert_eq!(run(shell, &line).0, format!("{KEY}\n"), "{shell}: {line}");
        }
    }
}
