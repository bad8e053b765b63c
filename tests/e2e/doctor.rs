//! `sparkgap doctor`, against healthy upstreams and faulty ones.

use serde_json::{Value, json};

use super::server::{output, output_in};
use super::upstream::{Then, Upstream, delta, finish, text_chunks, usage};

const MODELS: &str = r#"{"object":"list","data":[{"id":"qwen3","owned_by":"vllm","max_model_len":131072}]}"#;

/// The exit code and the report of an examination.
fn examined(upstream: &Upstream, arguments: &[&str]) -> (Option<i32>, Value) {
    let url = upstream.url();
    let (code, text, stderr) = output(&[&["doctor", "--json", "--upstream", &url], arguments].concat());
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{stderr}"));
    assert_eq!(report[0]["url"], url);
    (code, report[0]["checks"].clone())
}

fn levels(checks: &Value) -> String {
    let line =
        |check: &Value| format!("{}: {}", check["check"].as_str().unwrap(), check["level"].as_str().unwrap());
    checks.as_array().unwrap().iter().map(line).collect::<Vec<_>>().join(", ")
}

fn call(arguments: &str) -> Vec<Value> {
    let function = json!({"name": "get_weather", "arguments": arguments});
    let call = json!({"tool_calls": [{"id": "a", "type": "function", "index": 0, "function": function}]});
    vec![delta(call), finish("tool_calls"), usage(20, 5)]
}

fn cached(cached: u64) -> Vec<Value> {
    let mut counts = usage(1500, 2);
    counts["usage"]["prompt_tokens_details"] = json!({"cached_tokens": cached});
    vec![delta(json!({"content": "Hello"})), finish("stop"), counts]
}

#[test]
fn a_healthy_server_gets_no_complaint() {
    let upstream = Upstream::start();
    upstream.set_page("/v1/models", 200, MODELS);
    upstream.next_chunks(call(r#"{"city": "Paris"}"#));
    upstream.next_chunks(call(r#"{"city": "Paris"}"#));
    upstream.next_chunks([vec![delta(json!({"reasoning": "Hm."}))], text_chunks("L.")].concat());
    upstream.next_chunks(text_chunks("One two three four."));
    upstream.next_chunks(cached(0));
    upstream.next_chunks(cached(1408));
    for tokens in [260, 60] {
        upstream.next_chunks(vec![delta(json!({"content": "Hello"})), finish("stop"), usage(tokens, 2)]);
    }
    for unit in ["kelvin", "celsius"] {
        upstream.next_chunks(call(&format!(r#"{{"city": "Paris", "unit": "{unit}"}}"#)));
    }
    let (code, checks) = examined(&upstream, &[]);
    assert_eq!(
        levels(&checks),
        "reachable: ok, key: ok, models: ok, window: ok, system prompt: ok, forced tool call: ok, auto tool call: ok, reasoning: ok, speed: ok, auto mode: ok, \
         prefix cache: ok, cached tokens: ok, kept reasoning: ok, strict tools: ok, repairs: ok"
    );
    assert_eq!(code, Some(0));
    // The cache gets the same question twice; thinking is on only for the questions about reasoning.
    let bodies: Vec<Value> = upstream.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies[4], bodies[5]);
    let thinks = |body: &Value| body["chat_template_kwargs"]["enable_thinking"] == true;
    assert_eq!(
        bodies.iter().map(thinks).collect::<Vec<_>>(),
        [false, false, true, false, false, false, true, true, false, false, false, false]
    );
    let strict = |body: &Value| body["tools"][0]["function"]["strict"] == true;
    assert_eq!((strict(&bodies[8]), strict(&bodies[9])), (false, true));
    assert!(checks[13]["text"].as_str().unwrap().contains("strict holds"), "{checks}");
    assert_eq!((&bodies[0]["tool_choice"], &bodies[1]["tool_choice"]), (&json!("required"), &json!("auto")));
}

#[test]
fn a_vllm_without_its_flags() {
    let upstream = Upstream::start();
    // The cache's counter does not grow, so nothing came from the cache, whatever the times say.
    upstream.set_page("/metrics", 200, "vllm:prefix_cache_hits_total{engine=\"0\"} 7.0\n");
    upstream.next_chunks(call(r#"{"city": "Paris"}"#));
    let refusal = r#"{"error":{"message":"\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set","type":"BadRequestError","code":400}}"#;
    upstream.next_answer(400, refusal);
    let markup = "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>";
    upstream.next_chunks(text_chunks(markup));
    upstream.next_chunks(text_chunks("Hm.\n</think>\n\nThe L."));
    upstream.next_chunks(text_chunks("One two."));
    let (code, checks) = examined(&upstream, &[]);
    assert_eq!(
        levels(&checks),
        "reachable: ok, key: ok, models: ok, window: fail, system prompt: ok, forced tool call: ok, auto tool call: warn, reasoning: fail, speed: ok, \
         prefix cache: warn, cached tokens: warn, repairs: ok"
    );
    let fix = |i: usize| checks[i]["fix"].as_str().unwrap();
    assert!(fix(3).contains("--max-model-len"));
    assert!(fix(6).contains("--enable-auto-tool-choice --tool-call-parser qwen3_coder"));
    assert!(fix(7).contains("--reasoning-parser qwen3"));
    assert!(fix(10).contains("--enable-prompt-tokens-details"));
    let text = checks[6]["text"].as_str().unwrap();
    assert!(text.contains("has no tool parser") && text.contains("'qwen3_coder'"), "{text}");
    assert_eq!(upstream.seen()[2].body["tool_choice"], "none");
    assert_eq!(code, Some(1));
}

#[test]
fn a_server_that_asks_for_a_key() {
    let upstream = Upstream::start();
    upstream.set_page("/v1/models", 401, r#"{"error":"Unauthorized"}"#);
    let (code, checks) = examined(&upstream, &[]);
    assert_eq!((code, levels(&checks).as_str()), (Some(1), "reachable: ok, key: fail"));
    assert!(checks[1]["fix"].as_str().unwrap().contains("SPARKGAP_UPSTREAM_KEY"));
    let url = upstream.url();
    let (_, text, _) = output_in(&["doctor", "--upstream", &url], &[("SPARKGAP_UPSTREAM_KEY", "sk-wrong")]);
    assert!(text.contains("does not accept the key") && !text.contains("sk-wrong"), "{text}");
    let lua = format!(
        r#"return {{ upstreams = {{ v = {{ url = "{url}", api_key = env "SPARKGAP_TEST_NO_KEY" }} }} }}"#
    );
    let path = super::server::hooks_file("doctor_no_key", &lua);
    let (_, text, _) = output(&["doctor", "--hooks", &path]);
    assert!(
        text.contains("none is configured") && text.contains("not set here: SPARKGAP_TEST_NO_KEY"),
        "{text}"
    );
}

#[test]
fn an_unreachable_server_is_reported() {
    let (code, text, stderr) = output(&["doctor", "--upstream", "http://127.0.0.1:1/v1"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("fail  reachable") && text.contains("fix: start the server"), "{text}");
    assert!(stderr.contains("checking default: reachable") && stderr.contains("1 check failed"), "{stderr}");
}

#[test]
fn empty_answers_name_no_cause() {
    let upstream = Upstream::start();
    upstream.set_page("/v1/models", 200, MODELS);
    for _ in 0..8 {
        upstream.next(|upstream| {
            upstream.stream_head();
            upstream.done()
        });
    }
    let (code, checks) = examined(&upstream, &[]);
    assert_eq!(
        levels(&checks),
        "reachable: ok, key: ok, models: ok, window: ok, system prompt: ok, forced tool call: fail, auto tool call: warn, \
         reasoning: warn, speed: warn, prefix cache: warn, repairs: warn"
    );
    let text = checks.to_string();
    assert!(!text.contains("parser") && !text.contains("does not think"), "{text}");
    assert!(
        text.contains("has no answer: the answer is empty") && !text.contains("takes requests"),
        "{text}"
    );
    assert_eq!(code, Some(1));
}

#[test]
fn a_refused_listing_is_told_in_the_servers_words() {
    let upstream = Upstream::start();
    upstream.set_page("/v1/models", 400, r#"{"error":{"message":"no tenant for sk-secret-4711"}}"#);
    let url = upstream.url();
    let (code, text, _) =
        output_in(&["doctor", "--upstream", &url], &[("SPARKGAP_UPSTREAM_KEY", "sk-secret-4711")]);
    assert!(text.contains("status 400: no tenant for ***") && !text.contains("4711"), "{text}");
    assert_eq!(code, Some(1));
    // A proxy that refuses, and a name that no name server knows.
    let proxy = Upstream::start();
    let address = proxy.url().replace("/v1", "");
    let lua = format!(
        r#"return {{ upstreams = {{ v = {{ url = "{url}", http_proxy = "{address}" }}, w = {{ url = "http://box.invalid/v1" }} }} }}"#
    );
    let path = super::server::hooks_file("doctor_proxy", &lua);
    let (_, text, _) = output(&["doctor", "--hooks", &path]);
    assert!(
        text.contains(&format!("through the proxy {address}: no connection: the proxy does not connect")),
        "{text}"
    );
    assert!(text.contains(&format!("fix: check that the proxy {address} (http_proxy)")), "{text}");
}

#[test]
fn a_bad_configuration_is_json_where_json_is_wanted() {
    let path = super::server::hooks_file("doctor_bad", "return { upstreams = 7 }");
    for command in ["doctor", "check"] {
        let (code, text, stderr) = output(&[command, "--json", "--hooks", &path]);
        let told: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{stderr}"));
        let error = told["error"].as_str().unwrap();
        assert!(
            error.contains("invalid configuration") && stderr.contains("invalid configuration"),
            "{stderr}"
        );
        assert_eq!(code, Some(1));
        assert_eq!(output(&[command, "--hooks", &path]).1, "");
    }
}

#[test]
fn a_server_that_fails_at_everything() {
    let upstream = Upstream::start();
    upstream.set_page("/v1/models", 200, r#"{"data":[{"id":"a"},{"id":"b"}]}"#);
    for _ in 0..6 {
        upstream.next_answer(500, r#"{"error":{"message":"CUDA out of memory"}}"#);
    }
    let (code, checks) = examined(&upstream, &[]);
    assert_eq!(
        levels(&checks),
        "reachable: ok, key: ok, models: ok, window: warn, system prompt: ok, forced tool call: fail, auto tool call: fail, reasoning: fail, \
         speed: fail, prefix cache: fail, repairs: ok"
    );
    assert!(checks[8]["text"].as_str().unwrap().contains("CUDA out of memory"), "{checks}");
    assert_eq!(code, Some(1));
}

#[test]
fn after_a_question_without_an_answer_no_other_one_is_asked() {
    for after in ["nothing", "head", "piece", "loading"] {
        let upstream = Upstream::start();
        upstream.set_page("/v1/models", 200, MODELS);
        upstream.next_chunks(call(r#"{"city": "Paris"}"#));
        let (held, release) = std::sync::mpsc::channel::<()>();
        upstream.next(move |upstream| {
            match after {
                "head" => upstream.stream_head(),
                "piece" => {
                    upstream.stream_head();
                    upstream.chunk(&delta(json!({"role": "assistant"})));
                }
                "nothing" => {}
                _ => return upstream.whole(503, r#"{"error":{"message":"Loading model"}}"#),
            }
            let _ = release.recv();
            Then::Close
        });
        // The limits of `doctor` are minutes; a timeout of the upstream replaces them.
        let lua =
            format!(r#"return {{ upstreams = {{ v = {{ url = "{}", timeout = 1 }} }} }}"#, upstream.url());
        let path = super::server::hooks_file(&format!("doctor_hangs_{after}"), &lua);
        let (code, text, stderr) = output(&["doctor", "--json", "--hooks", &path]);
        drop(held);
        let report: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{stderr}"));
        let checks = &report[0]["checks"];
        assert_eq!(
            levels(checks),
            "reachable: ok, key: ok, models: ok, window: ok, system prompt: ok, forced tool call: ok, auto tool call: fail, \
             reasoning: warn, speed: warn, prefix cache: warn, repairs: warn",
            "{after}"
        );
        assert_eq!(
            (code, upstream.seen().len()),
            (Some(1), 2),
            "{after}: one failed check, and no further question"
        );
        let fix = checks[6]["fix"].as_str().unwrap();
        assert_eq!(fix.contains("loaded its model, and"), after == "loading", "{fix}");
        assert_eq!(checks[6]["text"].as_str().unwrap().contains("timed out"), after != "loading", "{checks}");
        for check in &checks.as_array().unwrap()[7..] {
            assert_eq!(check["text"], "not asked, since 'auto tool call' had no answer");
        }
    }
}

#[test]
fn two_models_without_an_answer_end_the_examination_of_their_server() {
    let upstream = Upstream::start();
    upstream.set_page("/v1/models", 200, r#"{"data":[{"id":"a"},{"id":"b"},{"id":"c"},{"id":"d"}]}"#);
    for _ in 0..4 {
        upstream.next_answer(503, r#"{"error":{"message":"Loading model"}}"#);
    }
    let url = upstream.url();
    let (code, text, stderr) = output(&["doctor", "--json", "--all", "--upstream", &url]);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{stderr}"));
    assert_eq!((code, report.as_array().unwrap().len(), upstream.seen().len()), (Some(1), 2, 2));
    assert!(stderr.contains("2 more models of default are not examined"), "{stderr}");
}

#[test]
fn each_box_of_an_alias_is_judged_by_the_model_that_it_is_asked_for() {
    let boxes = [(); 3].map(|()| Upstream::start());
    let lines: String = boxes
        .iter()
        .zip(["a", "b", "c"])
        .map(|(one, name)| format!("{name} = {{ url = \"{}\" }},", one.url()))
        .collect();
    let lua = format!(
        r#"return {{ api = 1, upstreams = {{ {lines} }}, aliases = {{
            {{ "*", upstream = {{ "a", {{ "b", model = "other" }} }}, backup = {{ {{ "c", model = "last" }} }} }} }} }}"#
    );
    let path = super::server::hooks_file("doctor_pool", &lua);
    let (code, text, stderr) = output(&["doctor", "--json", "--hooks", &path]);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{stderr}"));
    assert_eq!((code, report.as_array().unwrap().len()), (Some(1), 3));
    let models = |at: usize| {
        let checks = report[at]["checks"].as_array().unwrap();
        checks.iter().find(|check| check["check"] == "models").unwrap().to_string()
    };
    assert!(models(0).contains(r#""level":"ok""#), "{}", models(0));
    assert!(models(1).contains("other") && models(2).contains("last"), "{} {}", models(1), models(2));
}

#[test]
fn the_changes_that_the_server_needs_are_told() {
    let upstream = Upstream::start();
    for _ in 0..6 {
        upstream.next_chunks(text_chunks("Hello."));
    }
    for said in [
        "qwen3 is not a multimodal model",
        "Unexpected role 'user' after role 'tool'",
        "Unknown parameter: 'top_k'.",
    ] {
        upstream.next_answer(400, &json!({"error": {"message": said}}).to_string());
    }
    let (_, checks) = examined(&upstream, &[]);
    let told = checks.as_array().unwrap().last().unwrap();
    let text = told["text"].as_str().unwrap();
    assert_eq!(told["level"], "ok");
    for part in ["takes no images", "user and assistant in turns", "takes no top_k"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_refusal_that_requests_never_meet_fails_no_check() {
    let upstream = Upstream::start();
    upstream.set_page("/v1/models", 200, MODELS);
    let refusal = r#"{"error":{"message":"chat_template is not supported for Mistral tokenizers.","type":"BadRequestError","param":null,"code":400}}"#;
    upstream.next_answer(400, refusal);
    upstream.next_chunks(call(r#"{"city": "Paris"}"#));
    // This one comes within the answer, after status 200.
    upstream.next_chunks(vec![json!({"error": {"message": "xgrammar does not support this", "code": 400}})]);
    upstream.next_chunks(call(r#"{"city": "Paris"}"#));
    let (code, checks) = examined(&upstream, &[]);
    assert!(!levels(&checks).contains("fail"), "{checks}");
    assert_eq!(code, Some(0));
    let asked: Vec<Value> = upstream.seen().into_iter().map(|seen| seen.body).collect();
    let with: Vec<bool> = asked.iter().map(|body| body.get("chat_template_kwargs").is_some()).collect();
    assert!(with[0] && !with[1..].contains(&true), "refused once, and not sent again: {with:?}");
    let told = checks.as_array().unwrap().last().unwrap()["text"].as_str().unwrap();
    assert!(
        told.contains("silently changes what the server refuses: it takes no chat_template_kwargs"),
        "{told}"
    );
}

#[test]
fn what_helped_in_vain_is_told_with_the_refusal() {
    let upstream = Upstream::start();
    for _ in 0..6 {
        upstream.next_chunks(text_chunks("Hello."));
    }
    for _ in 0..2 {
        upstream.next_answer(400, r#"{"error":{"message":"qwen3 is not a multimodal model"}}"#);
    }
    let (_, checks) = examined(&upstream, &[]);
    let told = checks.as_array().unwrap().last().unwrap();
    assert_eq!(told["level"], "warn");
    let text = told["text"].as_str().unwrap();
    assert!(
        text.contains(
            "is refused: status 400: qwen3 is not a multimodal model (after changes: it takes no images"
        ),
        "{text}"
    );
    assert!(!text.contains("silently changes"), "{text}");
}

#[test]
fn a_missing_model_is_reported() {
    let upstream = Upstream::start();
    let file = std::env::temp_dir().join(format!("sparkgap-doctor-{}.lua", std::process::id()));
    let lua = format!(
        "return {{ api = 1, upstreams = {{ spark = {{ url = '{}' }} }}, aliases = {{ {{ '*', upstream = 'spark', model = 'gone' }} }} }}",
        upstream.url()
    );
    std::fs::write(&file, lua).unwrap();
    let (code, text, _) = output(&["doctor", "--hooks", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    assert!(
        text.contains("fail  models") && text.contains("gone is configured, but the server has qwen3"),
        "{text}"
    );
    assert_eq!(code, Some(1));
}

#[test]
fn questions_go_through_the_operators_hooks() {
    let upstream = Upstream::start();
    upstream.set_page("/v1/models", 200, MODELS);
    let lua = format!(
        r#"return {{ upstreams = {{ v = {{ url = "{}" }} }}, on_upstream_request = function(body, req)
            body.chat_template_kwargs = nil
            body.seen = req.upstream
        end }}"#,
        upstream.url()
    );
    let path = super::server::hooks_file("doctor_hooks", &lua);
    output(&["doctor", "--json", "--hooks", &path]);
    let asked = upstream.seen();
    assert!(asked.len() >= 8);
    for seen in asked {
        assert_eq!((seen.body.get("chat_template_kwargs"), &seen.body["seen"]), (None, &json!("v")));
    }
    // A hook of policy closed that fails stops each request, and so each question.
    let closed = lua
        .replace("return {", "return { policy = 'closed',")
        .replace("body.seen = req.upstream", "error('no')");
    let path = super::server::hooks_file("doctor_closed", &closed);
    let (code, text, _) = output(&["doctor", "--hooks", &path]);
    assert!(code == Some(1) && text.contains("not sent: "), "{text}");
}

#[test]
fn the_examined_model_is_named_and_can_be_chosen() {
    let listing = r#"{"data":[{"id":"embed"},{"id":"a"},{"id":"b"}]}"#;
    let report = |arguments: &[&str]| {
        let upstream = Upstream::start();
        upstream.set_page("/v1/models", 200, listing);
        let url = upstream.url();
        let (_, text, _) = output(&[&["doctor", "--json", "--upstream", &url], arguments].concat());
        let report: Value = serde_json::from_str(&text).unwrap();
        let models: Vec<String> =
            upstream.seen().into_iter().map(|seen| seen.body["model"].as_str().unwrap().to_owned()).collect();
        (report, models)
    };
    let (told, asked) = report(&[]);
    assert!(asked.iter().all(|model| model == "a"), "{asked:?}");
    let text = told[0]["checks"][2]["text"].as_str().unwrap();
    assert!(text.contains("examined: a; --model NAME examines another one"), "{text}");
    let (told, asked) = report(&["--model", "b"]);
    assert!(asked.iter().all(|model| model == "b") && told[0]["model"] == "b", "{asked:?}");
    let (told, asked) = report(&["--all"]);
    assert_eq!(told.as_array().unwrap().len(), 2, "{told}");
    assert!(
        asked.contains(&"a".to_owned())
            && asked.contains(&"b".to_owned())
            && !asked.contains(&"embed".to_owned())
    );
    let (told, _) = report(&["--model", "c"]);
    assert_eq!(told[0]["checks"][2]["level"], "fail");
    assert!(told[0]["checks"][2]["text"].as_str().unwrap().contains("c is to be examined"), "{told}");
}

#[test]
fn answers_in_odd_forms_are_read_as_requests_read_them() {
    let function = json!({"name": "get_weather", "arguments": r#"{"city": "Paris"}"#});
    let calls = json!([{"id": "a", "type": "function", "function": function}]);
    let whole = json!({"choices": [{"index": 0, "finish_reason": "tool_calls", "message": {"content": null, "tool_calls": calls}}]});
    let upstream = Upstream::start();
    upstream.set_page("/v1/models", 200, MODELS);
    // One object of JSON; then a stream that stays open behind its end.
    upstream.next_answer(200, &whole.to_string());
    let (held, release) = std::sync::mpsc::channel::<()>();
    upstream.next(move |upstream| {
        upstream.stream_head();
        call(r#"{"city": "Paris"}"#).iter().for_each(|chunk| upstream.chunk(chunk));
        let _ = release.recv();
        Then::Close
    });
    // A page for people; then a stream that never ends.
    upstream.next(|upstream| {
        upstream.whole_with(200, "content-type: text/html\r\n", "<html><body>Sign in</body></html>")
    });
    upstream.next(|upstream| {
        upstream.stream_head();
        let piece = format!("data: {}\n\n", delta(json!({"content": "x".repeat(10_000)})));
        while upstream.try_piece(&piece).is_ok() {}
        Then::Close
    });
    let (_, checks) = examined(&upstream, &[]);
    drop(held);
    assert!(levels(&checks).contains("forced tool call: ok, auto tool call: ok"), "{checks}");
    let text = checks.to_string();
    assert!(text.contains("a page in place of an answer, check the address: Sign in"), "{checks}");
    assert!(text.contains("it does not end"), "{checks}");
}

/// An answer of which the server has counted so many tokens and shown nothing.
fn dropped(tokens: u64) -> Vec<Value> {
    vec![delta(json!({"content": ""})), finish("stop"), usage(300, tokens)]
}

const MARKUP: &str =
    "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>";

#[test]
fn a_parser_that_drops_calls_is_found_out() {
    for (rescue, level, words) in
        [("", "warn", "sparkgap notices it"), ("rescue_tool_calls = false", "fail", "drops")]
    {
        let upstream = Upstream::start();
        upstream.set_page("/v1/models", 200, MODELS);
        upstream.next_chunks(call(r#"{"city": "Paris"}"#));
        upstream.next_chunks(dropped(22));
        upstream.next_chunks(text_chunks(MARKUP));
        let lua = format!(
            r#"return {{ api = 1, upstreams = {{ box = {{ url = "{}", {rescue} }} }},
                aliases = {{ {{ "claude-sonnet-4-5", upstream = "box" }}, {{ "mine", upstream = "box" }}, {{ "*", upstream = "box" }} }} }}"#,
            upstream.url()
        );
        let path = super::server::hooks_file(&format!("doctor_dropped_{level}"), &lua);
        let (_, text, stderr) = output(&["doctor", "--json", "--hooks", &path]);
        let report: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{stderr}"));
        let check = |name: &str| {
            report[0]["checks"]
                .as_array()
                .unwrap()
                .iter()
                .find(|check| check["check"] == name)
                .unwrap()
                .clone()
        };
        let told = check("auto tool call");
        assert_eq!(told["level"], level, "{told}");
        assert!(told["text"].as_str().unwrap().contains(words), "{told}");
        assert!(told["fix"].as_str().unwrap().contains("--tool-call-parser qwen3_coder"), "{told}");
        assert_eq!(upstream.seen()[2].body["tool_choice"], "none");
        let prompt = check("system prompt");
        let text = prompt["text"].as_str().unwrap();
        assert!(text.starts_with("lean, about 1700 tokens, for qwen3, mine; full, about 7000"), "{prompt}");
        assert!(prompt["fix"].as_str().unwrap().contains("--prompt lean"), "{prompt}");
    }
}

#[test]
fn a_full_cache_of_vllm_is_told() {
    let upstream = Upstream::start();
    upstream.set_page("/v1/models", 200, MODELS);
    upstream.set_page("/metrics", 200, "vllm:num_preemptions_total{engine=\"0\"} 3.0\n");
    let (_, checks) = examined(&upstream, &[]);
    let told = checks.as_array().unwrap().iter().find(|check| check["check"] == "full cache").unwrap();
    assert!(told["fix"].as_str().unwrap().contains("--kv-cache-dtype fp8"), "{told}");
}
