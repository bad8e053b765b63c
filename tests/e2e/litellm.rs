//! A LiteLLM configuration run as it is, and saved requests through the hooks.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::client::{Answer, hello};
use super::server::{Server, output};
use super::upstream::{Then, Upstream};

/// A file of this test's own.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).unwrap();
    path
}

/// The user's own file, with this upstream's address in place of the real one.
fn users_file(url: &str) -> String {
    let entry = |name: &str, model: &str| {
        format!(
            "  - model_name: {name}\n    litellm_params:\n      model: openai/{model}\n      api_base: {url}\n      api_key: none\n"
        )
    };
    format!(
        "model_list:\n{}{}{}litellm_settings:\n  drop_params: true\n  set_verbose: false\n",
        entry("claude-sonnet-4-20250514", "Intel/Qwen3.6-35B-A3B-int4-AutoRound"),
        entry("claude-3-5-sonnet-20241022", "Intel/Qwen3.6-35B-A3B-int4-AutoRound"),
        entry("claude-3-opus-20240229", "Intel/Qwen3.5-27B-int4-AutoRound"),
    )
}

fn ask(server: &Server, model: &str) -> Answer {
    let mut body = hello();
    body["model"] = model.into();
    server.connect().post(&body)
}

#[test]
fn the_users_file_is_run_as_it_is() {
    let upstream = Upstream::start();
    let path = file("users.yaml", &users_file(&upstream.url()));
    let server = Server::run(&["serve", "--litellm", path.to_str().unwrap()], &[]);
    for (model, expected) in [
        ("claude-sonnet-4-20250514", "Intel/Qwen3.6-35B-A3B-int4-AutoRound"),
        ("claude-3-5-sonnet-20241022", "Intel/Qwen3.6-35B-A3B-int4-AutoRound"),
        ("claude-3-opus-20240229", "Intel/Qwen3.5-27B-int4-AutoRound"),
    ] {
        assert_eq!(ask(&server, model).json()["model"], model);
        let seen = upstream.seen().pop().unwrap();
        assert_eq!(seen.body["model"], expected);
        assert!(!seen.head.to_ascii_lowercase().contains("authorization"), "{}", seen.head);
    }
    let unknown = ask(&server, "gpt-4o");
    assert_eq!((unknown.status, unknown.error().1.as_str()), (404, "model: gpt-4o"));
}

#[test]
fn a_fallback_takes_over_before_the_first_byte() {
    let spare = Upstream::start();
    let yaml = format!(
        "model_list:\n  - model_name: main\n    litellm_params: {{model: openai/m, api_base: 'http://127.0.0.1:9/v1', api_key: none}}\n  \
         - model_name: spare\n    litellm_params: {{model: openai/s, api_base: '{}', api_key: none}}\n\
         litellm_settings:\n  fallbacks: [{{main: [spare]}}]\n",
        spare.url()
    );
    let path = file("fallback.yaml", &yaml);
    let server = Server::run(&["serve", "--litellm", path.to_str().unwrap()], &[]);
    let answer = ask(&server, "main");
    assert_eq!((answer.status, answer.json()["model"].as_str()), (200, Some("main")));
    assert_eq!(spare.only_seen().body["model"], "s");
}

/// A list of entries, each with its name, its server and its model.
fn entries(list: &[(&str, &str, &str)]) -> String {
    let entry = |(name, url, model): &(&str, &str, &str)| {
        format!("  - {{model_name: {name}, litellm_params: {{{model}, api_base: '{url}', api_key: none}}}}\n")
    };
    format!("model_list:\n{}", list.iter().map(entry).collect::<String>())
}

#[test]
fn a_higher_order_gets_requests_only_while_the_lowest_cannot_answer() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let yaml = entries(&[
        ("x", &first.url(), "model: openai/primary, order: 1"),
        ("x", &second.url(), "model: openai/backup, order: 2"),
    ]);
    let path = file("order.yaml", &yaml);
    let server = Server::run(&["serve", "--litellm", path.to_str().unwrap()], &[]);
    for _ in 0..4 {
        assert_eq!(ask(&server, "x").status, 200);
    }
    assert_eq!((first.seen().len(), second.seen().len()), (4, 0));
    first.next_answer(500, r#"{"error":{"message":"engine died"}}"#);
    assert_eq!(ask(&server, "x").status, 200);
    assert_eq!(second.only_seen().body["model"], "backup");
    // A request that is wrong in itself goes nowhere else.
    first.next_answer(400, r#"{"error":{"message":"not to our taste"}}"#);
    assert_eq!(ask(&server, "x").status, 400);
    assert_eq!(second.seen().len(), 1);
}

#[test]
fn the_entries_of_a_name_share_its_conversations() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let yaml =
        entries(&[("x", &first.url(), "model: openai/one"), ("x", &second.url(), "model: openai/two")]);
    let path = file("shared.yaml", &yaml);
    let server = Server::run(&["serve", "--litellm", path.to_str().unwrap()], &[]);
    for i in 0..40 {
        let mut body = hello();
        body["model"] = "x".into();
        body["system"] = format!("conversation {i}").into();
        assert_eq!(server.connect().post(&body).json()["model"], "x");
    }
    for (upstream, model) in [(first, "one"), (second, "two")] {
        let seen = upstream.seen();
        assert!(seen.len() >= 4, "{model}: {} of 40", seen.len());
        assert!(seen.iter().all(|seen| seen.body["model"] == model));
    }
}

#[test]
fn a_prompt_that_is_too_long_goes_to_the_model_that_the_file_names_for_it() {
    let (small, wide) = (Upstream::start(), Upstream::start());
    let list = entries(&[
        ("x", &small.url(), "model: openai/small"),
        ("long", &wide.url(), "model: openai/wide, temperature: 0.25"),
    ]);
    let yaml = format!("{list}litellm_settings: {{context_window_fallbacks: [{{x: [long]}}]}}\n");
    let path = file("too-long.yaml", &yaml);
    let server = Server::run(&["serve", "--litellm", path.to_str().unwrap()], &[]);
    let refusal = r#"{"error":{"message":"This model's maximum context length is 4096 tokens. However, you requested 9000 tokens in the messages"}}"#;
    small.next_answer(400, refusal);
    assert_eq!(ask(&server, "x").json()["model"], "x");
    let seen = wide.only_seen();
    assert_eq!((&seen.body["model"], &seen.body["temperature"]), (&json!("wide"), &json!(0.25)));
    // Where the wider model refuses it, too, the client learns of it.
    small.next_answer(400, refusal);
    wide.next_answer(400, refusal);
    let (kind, message) = ask(&server, "x").error();
    assert!(kind == "invalid_request_error" && message.starts_with("prompt is too long"), "{message}");
}

#[test]
fn a_master_key_lets_its_holders_in() {
    let upstream = Upstream::start();
    let yaml = format!("{}general_settings:\n  master_key: sk-master\n", users_file(&upstream.url()));
    let path = file("master.yaml", &yaml);
    let server = Server::run(&["serve", "--litellm", path.to_str().unwrap()], &[]);
    assert_eq!(ask(&server, "claude-3-opus-20240229").status, 401);
    assert_eq!(upstream.seen().len(), 0);
}

#[test]
fn import_writes_valid_lua_and_reports_on_each_key() {
    let yaml = file("import.yaml", &users_file("http://127.0.0.1:9/v1"));
    let lua = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("imported.lua");
    let _ = fs::remove_file(&lua);
    let (yaml, lua) = (yaml.to_str().unwrap(), lua.to_str().unwrap());
    let (code, stdout, report) = output(&["import", yaml, "--output", lua]);
    assert_eq!((code, stdout.as_str()), (Some(0), ""), "{report}");
    assert!(
        report.contains("3 names") && report.contains("--verbose shows a line for each of 14 keys"),
        "{report}"
    );
    let (_, _, report) = output(&["import", yaml, "--verbose"]);
    assert!(report.contains("litellm_settings.drop_params"), "{report}");
    let (code, said, stderr) = output(&["check", "--hooks", lua]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(said.contains("claude-3-opus-20240229") && said.contains("Qwen3.5-27B"), "{said}");
    let (code, _, stderr) = output(&["import", yaml, "--output", lua]);
    assert!(code == Some(1) && stderr.contains("is there already"), "{stderr}");
    let broken = file("broken.yaml", "model_list: [\n");
    let (code, _, stderr) = output(&["import", broken.to_str().unwrap()]);
    assert!(code == Some(1) && stderr.contains("line "), "{stderr}");
}

#[test]
fn a_file_of_claude_code_router_is_imported_and_its_rules_are_served() {
    let (big, small) = (Upstream::start(), Upstream::start());
    let chat = |upstream: &Upstream| format!("{}/chat/completions", upstream.url());
    let json = format!(
        r#"{{ // my router
  "Providers": [
    {{"name": "big", "api_base_url": "{}", "api_key": "none", "models": ["m"]}},
    {{"name": "small", "api_base_url": "{}", "api_key": "sk-small", "models": ["s"]}},
  ],
  "Router": {{"default": "big,m", "background": "small,s"}}
}}"#,
        chat(&big),
        chat(&small)
    );
    let path = file("ccr.json", &json);
    let lua = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("ccr-imported.lua");
    let _ = fs::remove_file(&lua);
    let (code, _, report) = output(&["import", path.to_str().unwrap(), "--output", lua.to_str().unwrap()]);
    assert!(code == Some(0) && report.contains("2 providers; the default is m of big"), "{report}");
    assert!(report.contains("set the environment variable SMALL_KEY"), "{report}");
    let server = Server::run(&["serve", "--hooks", lua.to_str().unwrap()], &[("SMALL_KEY", "sk-small")]);
    assert_eq!((ask(&server, "claude-sonnet-5").status, ask(&server, "claude-haiku-4-5").status), (200, 200));
    assert_eq!(big.only_seen().body["model"], "m");
    let seen = small.only_seen();
    assert!(
        seen.body["model"] == "s" && seen.head.to_ascii_lowercase().contains("bearer sk-small"),
        "{}",
        seen.head
    );
}

#[test]
fn a_saved_request_shows_the_effect_of_the_hooks() {
    let hooks = file(
        "saved.lua",
        "return { api = 1, on_request = function(req) if req.stream then return { reject = 403, message = 'no streams' } end end,\n\
         on_upstream_request = function(body) body.temperature = 0.1 end }",
    );
    let saved = file("saved.json", &hello().to_string());
    let run = |request: &PathBuf| {
        output(&["hook", hooks.to_str().unwrap(), "--request", request.to_str().unwrap()])
    };
    let (code, said, stderr) = run(&saved);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(said.contains("+ temperature: 0.1") && said.contains("goes to"), "{said}");
    let mut stream = hello();
    stream["stream"] = true.into();
    let (code, said, stderr) = run(&file("saved_stream.json", &stream.to_string()));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(said.contains("refused   403 permission_error: no streams"), "{said}");
    let (code, _, stderr) = run(&PathBuf::from("nowhere.json"));
    assert!(code == Some(1) && stderr.contains("nowhere.json"), "{stderr}");
    let (code, said, _) = run(&file("saved_wrong.json", &json!({"model": "x"}).to_string()));
    assert!(code == Some(1) && said.contains("max_tokens: Field required"), "{said}");
    // The journal cuts long lines.
    let whole = hello().to_string();
    let (code, said, stderr) = run(&file("saved_cut.json", &whole[..whole.len() - 10]));
    assert!(code == Some(1) && said.contains("refused   400"), "{said} {stderr}");
    assert!(stderr.contains("the request would be refused"), "{stderr}");
}

#[test]
fn a_file_that_means_a_box_by_a_variable_goes_there() {
    let upstream = Upstream::start();
    let by_credential = format!(
        "model_list:\n  - model_name: x\n    litellm_params: {{ model: openai/m, litellm_credential_name: box }}\n\
         credential_list:\n  - credential_name: box\n    credential_values: {{ api_key: none, api_base: '{}' }}\n",
        upstream.url()
    );
    let bare = "model_list:\n  - model_name: x\n    litellm_params: { model: openai/m }\n";
    let by_file = format!("{bare}environment_variables: {{ OPENAI_API_BASE: '{}' }}\n", upstream.url());
    for (name, yaml, environment) in [
        ("credential", by_credential.as_str(), None),
        ("file", &by_file, None),
        ("process", bare, Some(("OPENAI_BASE_URL", upstream.url()))),
    ] {
        let path = file(&format!("box-by-{name}.yaml"), yaml);
        let environment: Vec<(&str, &str)> = environment.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let server = Server::run(&["serve", "--litellm", path.to_str().unwrap()], &environment);
        assert_eq!(ask(&server, "x").status, 200, "{name}");
        let log = server.terminate_and_log();
        assert!(!log.contains("leave the LAN"), "{name}: {log}");
    }
    assert_eq!(upstream.seen().len(), 3);
}

#[test]
fn what_leaves_the_lan_is_said_at_the_start_and_by_check_and_import() {
    let path = file(
        "outside.yaml",
        "model_list:\n  - model_name: x\n    litellm_params: { model: openai/m, api_base: 'http://192.0.2.1:9/v1', api_key: none }\n",
    );
    let path = path.to_str().unwrap();
    let words = "192.0.2.1 is outside of this network: conversations that go there leave the LAN";
    let server = Server::run(&["serve", "--litellm", path], &[]);
    let line = server.wait_for(words);
    assert!(line.contains("WARN"), "{line}");
    let (code, said, _) = output(&["check", "--litellm", path]);
    assert!(code == Some(0) && said.contains(words), "{said}");
    let (_, said, _) = output(&["check", "--json", "--litellm", path]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["upstreams"][0]["leaves_the_lan"], true);
    let (_, _, report) = output(&["import", path]);
    assert!(report.contains("192.0.2.1:9/v1, no key: OUTSIDE OF THIS NETWORK"), "{report}");
    let (_, _, report) = output(&["import", "--verbose", path]);
    assert!(report.contains(words), "{report}");
    let (_, said, _) = output(&["check", "--upstream", "http://192.168.68.155:8888/v1"]);
    assert!(!said.contains("leave the LAN"), "{said}");
}

#[test]
fn a_variable_that_refers_to_one_that_is_not_set_does_not_lead_to_the_real_openai() {
    let path = file(
        "dangling.yaml",
        "model_list:\n  - model_name: a\n    litellm_params: { model: openai/m }\nenvironment_variables:\n  OPENAI_BASE_URL: os.environ/BOX_URL\n",
    );
    refused_by_name_and_line(
        &path,
        "environment_variables.OPENAI_BASE_URL is the environment variable BOX_URL, which is not set",
    );
}

#[test]
fn an_address_from_a_variable_that_is_not_set_is_named_with_its_line() {
    let path = file(
        "unset.yaml",
        "model_list:\n  - model_name: a\n    litellm_params:\n      model: openai/m\n      api_base: os.environ/BOX_URL\n      api_key: none\n",
    );
    refused_by_name_and_line(&path, "variable BOX_URL, which is not set");
}

/// Whether `check` and `serve` refuse the file for the variable `BOX_URL` of its line 5, in these words, and `import` leaves
/// the variable to the service.
fn refused_by_name_and_line(path: &Path, words: &str) {
    let path = path.to_str().unwrap();
    for (command, status) in [("check", 1), ("serve", 78)] {
        let (code, _, stderr) = output(&[command, "--litellm", path]);
        assert_eq!(code, Some(status), "{command}: {stderr}");
        assert!(stderr.contains("line 5") && stderr.contains(words), "{stderr}");
    }
    let (code, lua, report) = output(&["import", path]);
    assert_eq!(code, Some(0), "the service may have it: {report}");
    assert!(
        lua.contains("env \"BOX_URL\"") && report.contains("the address in BOX_URL (not set here)"),
        "{report}"
    );
}

#[test]
fn a_reload_reads_the_file_again() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let yaml = |name: &str, upstream: &Upstream, key: &str| {
        format!(
            "model_list:\n  - model_name: {name}\n    litellm_params: {{ model: openai/m, api_base: '{}', api_key: none }}\n\
             general_settings: {{ master_key: {key} }}\n",
            upstream.url()
        )
    };
    let path = file("reloaded.yaml", &yaml("before", &first, "sk-before"));
    let server = Server::run(&["serve", "--litellm", path.to_str().unwrap()], &[]);
    let ask = |key: &str, model: &str| {
        let mut body = hello();
        body["model"] = model.into();
        let keys = format!("x-api-key: {key}\r\n");
        server.connect().ask(&super::client::post_with(&keys, body.to_string().as_bytes())).status
    };
    assert_eq!((ask("sk-before", "before"), ask("sk-after", "before")), (200, 401));
    std::fs::write(&path, yaml("after", &second, "sk-after")).unwrap();
    server.hang_up();
    server.wait_for("hooks loaded: ");
    assert_eq!((ask("sk-after", "after"), ask("sk-before", "after")), (200, 401));
    assert_eq!((first.seen().len(), second.seen().len()), (1, 1));
    // A file that another one includes is read again, too, and the log names both.
    let included = file("reloaded-part.yaml", &yaml("part", &second, "sk-part"));
    std::fs::write(&path, "include: [reloaded-part.yaml]\n").unwrap();
    server.hang_up();
    let line = server.wait_for("reloaded-part.yaml");
    assert!(line.contains("; read: ") && line.contains("reloaded.yaml, "), "{line}");
    assert_eq!(ask("sk-part", "part"), 200);
    std::fs::write(&included, "model_list: 7\n").unwrap();
    server.hang_up();
    let line = server.wait_for("reload failed; still running the previous configuration");
    assert!(line.contains("reloaded-part.yaml: line 1"), "{line}");
    assert_eq!(ask("sk-part", "part"), 200);
}

#[test]
fn an_entry_whose_address_is_not_set_costs_only_itself() {
    let upstream = Upstream::start();
    let yaml = format!(
        "model_list:\n  - model_name: a\n    litellm_params:\n      model: openai/m\n      api_base: os.environ/BOX_URL\n  \
         - {{model_name: b, litellm_params: {{model: openai/m, api_base: '{}', api_key: none}}}}\n\
         litellm_settings: {{ fallbacks: [{{ a: [b] }}], cache: true, callbacks: [langfuse] }}\n",
        upstream.url()
    );
    let path = file("one-unset.yaml", &yaml);
    let (code, said, losses) = output(&["check", "--litellm", path.to_str().unwrap()]);
    assert!(
        code == Some(0)
            && !said.contains("left out: ")
            && losses.contains("left out: model_list[0] (a): line 5"),
        "{losses}"
    );
    let server = Server::run(&["serve", "--litellm", path.to_str().unwrap()], &[]);
    // Its fallback answers for it.
    assert_eq!((ask(&server, "b").status, ask(&server, "a").status), (200, 200));
    server.hang_up();
    server.wait_for("hooks loaded: ");
    let log = server.terminate_and_log();
    let left_out = "left out: model_list[0] (a): line 5, column 1: model_list[0].litellm_params.api_base is the environment variable BOX_URL, which is not set";
    assert!(log.contains("WARN") && log.contains(left_out), "{log}");
    // The summary is logged once, and not again at a reload that changes nothing.
    assert_eq!(log.matches("lost: litellm_settings.callbacks").count(), 1, "{log}");
}

#[test]
fn a_time_limit_of_the_file_ends_a_silent_answer_and_the_next_upstream_gets_the_request() {
    let (silent, other) = (Upstream::start(), Upstream::start());
    let yaml = format!(
        "model_list:\n  - {{model_name: x, litellm_params: {{model: openai/slow, api_base: '{}', api_key: none, timeout: 1}}}}\n  \
         - {{model_name: y, litellm_params: {{model: openai/fast, api_base: '{}', api_key: none}}}}\n\
         litellm_settings: {{ fallbacks: [{{ x: [y] }}] }}\n",
        silent.url(),
        other.url()
    );
    let path = file("time-limit.yaml", &yaml);
    let server = Server::run(&["serve", "--litellm", path.to_str().unwrap()], &[]);
    silent.next(|call| {
        call.wait_for_close();
        Then::Close
    });
    assert_eq!(ask(&server, "x").status, 200);
    assert_eq!(other.only_seen().body["model"], "fast");
}
