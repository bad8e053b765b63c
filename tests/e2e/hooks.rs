//! Lua: aliases to several upstreams, hooks that change, refuse and answer, and their reload.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::client::{hello, hello_stream};
use super::server::{Server, hooks_file, output};
use super::upstream::{MODEL, Upstream};

/// A file of this test's own.
fn file(name: &str, lua: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.lua"));
    fs::write(&path, lua).unwrap();
    path
}

fn serve(path: &Path) -> Server {
    Server::run(&["serve", "--hooks", path.to_str().unwrap()], &[("SMALL_KEY", "sk-small")])
}

/// The table of the LiteLLM article, with two upstreams in place of its own.
fn aliases(spark: &Upstream, small: &Upstream) -> String {
    format!(
        r#"return {{
            api = 1,
            upstreams = {{
                spark = {{ url = "{}" }},
                small = {{ url = "{}", api_key = env "SMALL_KEY", max_tokens = 50 }},
            }},
            aliases = {{
                {{ "claude-sonnet-4-20250514", upstream = "spark", model = "Intel/Qwen3.6-35B-A3B-int4-AutoRound" }},
                {{ "claude-3-opus-*", upstream = "small", model = "Intel/Qwen3.5-27B-int4-AutoRound" }},
                {{ "*haiku*", upstream = "small" }},
            }},
        }}"#,
        spark.url(),
        small.url()
    )
}

#[test]
fn names_lead_to_upstreams_and_models() {
    let (spark, small) = (Upstream::start(), Upstream::start());
    let server = serve(&file("aliases", &aliases(&spark, &small)));
    server.wait_for("upstream spark: ");
    server.wait_for("upstream small: ");
    let ask = |model: &str| {
        let mut body = hello();
        body["model"] = model.into();
        server.connect().post(&body)
    };
    assert_eq!(ask("claude-sonnet-4-20250514").json()["model"], "claude-sonnet-4-20250514");
    assert_eq!(spark.only_seen().body["model"], "Intel/Qwen3.6-35B-A3B-int4-AutoRound");
    assert!(!spark.only_seen().head.contains("sk-small"));
    ask("claude-3-opus-20240229").message();
    ask("claude-haiku-5-5").message();
    let seen = small.seen();
    assert_eq!(seen[0].body["model"], "Intel/Qwen3.5-27B-int4-AutoRound");
    assert_eq!((&seen[1].body["model"], &seen[1].body["max_tokens"]), (&json!(MODEL), &json!(50)));
    assert!(seen[1].head.to_ascii_lowercase().contains("authorization: bearer sk-small"), "{}", seen[1].head);
    let answer = ask("gpt-5");
    assert_eq!((answer.status, answer.header("x-should-retry")), (404, Some("false")));
    assert_eq!(answer.error(), ("not_found_error".into(), "model: gpt-5".into()));
}

// covers: 102
#[test]
fn aliases_are_listed_by_names_that_claude_code_shows_and_lead_where_they_lead() {
    let upstream = Upstream::start();
    let lua = format!(
        r#"return {{ api = 1, upstreams = {{ spark = {{ url = "{}" }} }}, aliases = {{
            {{ "fast", upstream = "spark", model = "small" }},
            {{ "claude-big", upstream = "spark", model = "big" }},
            {{ "anthropic/own", upstream = "spark", model = "own" }},
            {{ "*", upstream = "spark" }},
        }} }}"#,
        upstream.url()
    );
    let server = serve(&file("listed", &lua));
    let mut client = server.connect();
    let listing = client.ask(b"GET /v1/models HTTP/1.1\r\nanthropic-version: 2023-06-01\r\n\r\n").json();
    let shown: Vec<(&str, &str)> = listing["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| (model["id"].as_str().unwrap(), model["display_name"].as_str().unwrap()))
        .filter(|(id, _)| id.contains("claude") || id.contains("anthropic"))
        .collect();
    let own = format!("anthropic/{MODEL}");
    let expected = [
        ("anthropic/fast", "fast (small)"),
        ("claude-big", "claude-big (big)"),
        ("anthropic/own", "anthropic/own (own)"),
        (&own, MODEL),
    ];
    assert_eq!(shown, expected);
    for (id, _) in expected {
        let mut body = hello();
        body["model"] = id.into();
        client.post(&body).message();
    }
    let asked: Vec<_> = upstream.seen().into_iter().map(|seen| seen.body["model"].clone()).collect();
    assert_eq!(asked, ["small", "big", "own", MODEL]);
}

/// An upstream that serves these models.
fn serving(models: &[(&str, u64)]) -> Upstream {
    let upstream = Upstream::start();
    let entry = |(id, window): &(&str, u64)| json!({"id": id, "owned_by": "vllm", "max_model_len": window});
    let listing = json!({"object": "list", "data": models.iter().map(entry).collect::<Vec<_>>()});
    upstream.set_page("/v1/models", 200, &listing.to_string());
    upstream
}

// covers: 102
#[test]
fn a_model_is_listed_only_where_its_name_leads_to_it() {
    let moe = serving(&[("moe", 1000), ("both", 1000)]);
    let dense = serving(&[("dense", 2000), ("dense-2", 2000), ("both", 2000)]);
    let list = |name: &str, more: &str| {
        let lua = format!(
            r#"return {{ api = 1, upstreams = {{ moe = {{ url = "{}" }}, dense = {{ url = "{}" }} }}, aliases = {{
                {{ "claude-big", upstream = "dense", model = "dense" }}, {{ "dense-*", upstream = "dense" }}, {more}
            }} }}"#,
            moe.url(),
            dense.url()
        );
        let server = serve(&file(name, &lua));
        let listing = server.connect().ask(b"GET /v1/models HTTP/1.1\r\n\r\n").json();
        let data = listing["data"].as_array().unwrap().clone();
        let told = |model: &Value| {
            (model["id"].as_str().unwrap().to_owned(), model["max_model_len"].as_u64().unwrap())
        };
        (server, data.iter().map(told).collect::<Vec<_>>())
    };
    let of = |names: &[(&str, u64)]| names.iter().map(|(id, n)| (id.to_string(), *n)).collect::<Vec<_>>();
    // Every other name goes to moe, or nowhere.
    let moes = [("anthropic/moe", 1000), ("moe", 1000), ("anthropic/both", 1000), ("both", 1000)];
    let denses = [("claude-big", 2000), ("anthropic/dense-2", 2000), ("dense-2", 2000)];
    let (server, listed) = list("listed-rest", r#"{ "*", upstream = "moe" }"#);
    let (mut found, mut expected) = (listed.clone(), of(&[&moes[..], &denses].concat()));
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(server.connect().ask(b"GET /v1/models/dense HTTP/1.1\r\n\r\n").status, 404);
    for (id, window) in listed {
        let mut body = hello();
        body["model"] = id.clone().into();
        server.connect().post(&body).message();
        let upstream = if window == 1000 { &moe } else { &dense };
        let asked = upstream.seen().last().unwrap().body["model"].clone();
        assert_eq!(asked, if id == "claude-big" { "dense" } else { id.trim_start_matches("anthropic/") });
    }
    let (_server, listed) = list("listed-no-rest", "");
    assert_eq!(listed, of(&denses));
}

#[test]
fn hooks_change_refuse_and_answer() {
    let upstream = Upstream::start();
    let lua = format!(
        r#"return {{
            api = 1,
            upstreams = {{ spark = {{ url = "{}" }} }},
            aliases = {{ {{ "*", upstream = "spark" }} }},
            on_request = function(req)
                if req.model == "forbidden" then return {{ reject = 403, message = "not here" }} end
                if req.model == "broken" then error("on purpose") end
            end,
            on_upstream_request = function(body, req) body.temperature = 0.25 end,
        }}"#,
        upstream.url()
    );
    let server = serve(&file("hooks", &lua));
    server.wait_for("upstream spark: ");
    let ask = |model: &str| {
        let mut body = hello_stream();
        body["model"] = model.into();
        server.connect().post(&body)
    };
    ask("any").whole_events();
    assert_eq!(upstream.only_seen().body["temperature"], 0.25);
    let answer = ask("forbidden");
    assert_eq!((answer.status, answer.error()), (403, ("permission_error".into(), "not here".into())));
    server.wait_for("forbidden -> -/- stream 403 ");
    ask("broken").whole_events();
    server.wait_for("on purpose");
    assert_eq!(upstream.seen().len(), 2);
}

#[test]
fn a_hook_names_upstream_and_model() {
    let (spark, small) = (Upstream::start(), Upstream::start());
    let lua = format!(
        r#"return {{
            api = 1,
            upstreams = {{ spark = {{ url = "{}" }}, small = {{ url = "{}" }} }},
            aliases = {{
                {{ "renamed", upstream = "small", model = "by-its-alias" }},
                {{ "*", upstream = "small", model = "by-the-star" }},
            }},
            on_request = function(req)
                if req.model == "lost" then return {{ upstream = "nowhere" }} end
                if req.model == "plain" then return {{ upstream = "small" }} end
                return {{ upstream = "small", model = req.model }}
            end,
        }}"#,
        spark.url(),
        small.url()
    );
    let server = serve(&file("routes", &lua));
    server.wait_for("upstream small: ");
    for model in ["my-own", "renamed", "plain", "lost"] {
        let mut body = hello();
        body["model"] = model.into();
        assert_eq!(server.connect().post(&body).json()["model"], model);
    }
    let models: Vec<_> = small.seen().iter().map(|seen| seen.body["model"].clone()).collect();
    assert_eq!(models, ["my-own", "by-its-alias", "by-the-star", "by-the-star"]);
    server.wait_for("unknown upstream 'nowhere'");
}

#[test]
fn an_error_at_the_beginning_of_an_answer_is_sent_elsewhere() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let lua = format!(
        r#"return {{
            upstreams = {{ a = {{ url = "{}" }}, b = {{ url = "{}" }} }},
            aliases = {{ {{ "*", upstream = "a" }} }},
            on_error = function(err) if err.message == "engine died" then return {{ retry = "other" }} end end,
        }}"#,
        first.url(),
        second.url()
    );
    let server = serve(&file("elsewhere", &lua));
    server.wait_for("upstream b: ");
    let said = |text: &str| json!({"choices": [{"index": 0, "delta": {"content": text}}]});
    let died = || json!({"error": {"message": "engine died", "code": 500}});
    first.next_chunks(vec![said(""), died()]);
    assert_eq!(server.connect().post(&hello_stream()).whole_events()[0]["text"], "Hello.");
    // A client that does not stream has seen nothing before the end.
    first.next_chunks(vec![said("Half"), died()]);
    assert_eq!(server.connect().post(&hello()).message()[0]["text"], "Hello.");
    assert_eq!((first.seen().len(), second.seen().len()), (2, 2));
    first.next_chunks(vec![said("Half"), died()]);
    let answer = server.connect().post(&hello_stream());
    assert!(answer.text().contains("Half") && answer.text().contains("event: error"), "{}", answer.text());
    assert_eq!(second.seen().len(), 2);
}

#[test]
fn a_name_that_is_listed_leads_to_where_it_is_served() {
    let (first, second) = (Upstream::start(), Upstream::start());
    second.set_page("/v1/models", 200, r#"{"data":[{"id":"org/second","owned_by":"vllm"}]}"#);
    let server = Server::run(&["serve", "--upstream", &first.url(), "--upstream", &second.url()], &[]);
    server.wait_for("serves org/second");
    for model in ["org/second", "anthropic/org/second", "claude-x", "anthropic/qwen3"] {
        let mut body = hello();
        body["model"] = model.into();
        assert_eq!(server.connect().post(&body).json()["model"], model);
    }
    let asked = |upstream: &Upstream| {
        upstream.seen().iter().map(|seen| seen.body["model"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(asked(&second), ["org/second", "org/second"]);
    assert_eq!(asked(&first), [MODEL, MODEL]);
}

#[test]
fn an_answer_is_never_empty_where_the_owner_says_so() {
    let upstream = Upstream::start();
    let lua = format!(
        r#"return {{ api = 1, upstreams = {{ spark = {{ url = "{}", never_empty = true }} }} }}"#,
        upstream.url()
    );
    let server = serve(&file("never_empty", &lua));
    server.wait_for("upstream spark: ");
    let nothing = || vec![json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})];
    upstream.next_chunks(nothing());
    assert_eq!(server.connect().post(&hello()).json()["content"], json!([{"type": "text", "text": ""}]));
    upstream.next_chunks(nothing());
    let answer = server.connect().post(&hello_stream());
    let block = "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n\
        event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}";
    assert!(answer.text().contains(block), "{}", answer.text());
    // A request that only warms the cache asks for no answer.
    let mut body = hello();
    body["max_tokens"] = 0.into();
    upstream.next_chunks(nothing());
    assert_eq!(server.connect().post(&body).json()["content"], json!([]));
}

#[test]
fn a_mistake_stops_the_start_and_spoils_no_reload() {
    let upstream = Upstream::start();
    let lua = |temperature: &str| {
        let url = upstream.url();
        format!(
            "return {{ api = 1, upstreams = {{ spark = {{ url = \"{url}\" }} }}, aliases = {{ {{ \"*\", upstream = \"spark\" }} }},\n  on_upstream_request = function(body) body.temperature = {temperature} end }}"
        )
    };
    let path = file("reload", &lua("nonsense nonsense"));
    let (code, _, stderr) = output(&["serve", "--listen", "127.0.0.1:0", "--hooks", path.to_str().unwrap()]);
    assert!(code == Some(78) && stderr.contains("reload.lua:2"), "{stderr}");

    fs::write(&path, lua("0.1")).unwrap();
    let server = serve(&path);
    server.wait_for("upstream spark: ");
    let sent = || {
        server.connect().post(&hello()).message();
        upstream.seen().pop().unwrap().body["temperature"].clone()
    };
    assert_eq!(sent(), 0.1);
    fs::write(&path, lua("0.2")).unwrap();
    server.hang_up();
    server.wait_for("hooks loaded: ");
    assert_eq!(sent(), 0.2);
    fs::write(&path, "return {").unwrap();
    server.hang_up();
    let line = server.wait_for("reload failed; still running the previous configuration");
    assert!(line.contains("ERROR"), "{line}");
    assert_eq!(sent(), 0.2);
}

#[test]
fn a_reload_that_never_ends_stops_nothing() {
    let upstream = Upstream::start();
    let lua = format!(
        "return {{ api = 1, upstreams = {{ spark = {{ url = \"{}\" }} }}, aliases = {{ {{ \"*\", upstream = \"spark\" }} }} }}",
        upstream.url()
    );
    let path = file("endless", &lua);
    let server = serve(&path);
    server.wait_for("upstream spark: ");
    // Nobody writes into this pipe, so that reading the file never ends.
    fs::remove_file(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    for _ in 0..3 {
        server.hang_up();
    }
    server.connect().post(&hello()).message();
    assert!(server.terminate());
    fs::remove_file(&path).unwrap();
}

#[test]
fn the_hook_command_says_where_a_request_goes_and_why_a_hook_failed() {
    let lua = r#"return {
        upstreams = { spark = { url = "http://127.0.0.1:9/v1" } },
        on_request = function(req) log.info("looks at " .. req.model) error("on purpose") end,
    }"#;
    let hooks = file("command", lua);
    let request = hooks.with_file_name("command.json");
    fs::write(&request, hello().to_string()).unwrap();
    let run =
        |hooks: &Path| output(&["hook", hooks.to_str().unwrap(), "--request", request.to_str().unwrap()]);
    let (code, stdout, stderr) = run(&hooks);
    assert_eq!(code, Some(1));
    assert!(stdout.starts_with("goes to   spark, "), "{stdout}");
    assert!(stderr.contains("looks at claude-sonnet-5") && stderr.contains("on purpose"), "{stderr}");
    // A file without upstreams can be tried, too.
    let (code, stdout, _) = run(&file("command-only", "return { on_request = function() end }"));
    assert!(code == Some(0) && stdout.starts_with("goes to   default, "), "{stdout}");
}

#[test]
fn the_articles_table_is_shipped() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/hooks/litellm-article.lua");
    let (code, text, stderr) = output(&["check", "--hooks", path]);
    assert_eq!(code, Some(0), "{stderr}");
    for (name, model) in [
        ("claude-sonnet-4-20250514", "Intel/Qwen3.6-35B-A3B-int4-AutoRound"),
        ("claude-3-5-sonnet-20241022", "Intel/Qwen3.6-35B-A3B-int4-AutoRound"),
        ("claude-3-opus-20240229", "Intel/Qwen3.5-27B-int4-AutoRound"),
    ] {
        assert!(text.lines().any(|line| line.contains(name) && line.ends_with(model)), "{text}");
    }
}

#[test]
fn check_and_on_load_show_all_members_of_a_pool_and_its_backups() {
    let path = file(
        "pools",
        r#"return {
  upstreams = { one = { url = "http://127.0.0.1:1/v1" }, two = { url = "http://127.0.0.1:2/v1" }, small = { url = "http://127.0.0.1:3/v1", wake = "aa:bb:cc:dd:ee:ff", cluster = "smg" } },
  aliases = {
    { "pool", upstream = { "one", { "two", model = "q4" } }, backup = "small", model = "q8" },
    { "plain", upstream = "one" },
    { "open" },
  },
  on_load = function(cfg)
    local pool, open = cfg.aliases[1], cfg.aliases[3]
    assert(pool.upstream == "one" and pool.model == "q8" and #pool.members == 2 and #pool.backup == 1)
    assert(pool.members[2].upstream == "two" and pool.members[2].model == "q4" and pool.backup[1].model == "q8")
    assert(#open.members == 0 and #open.backup == 0)
  end,
}"#,
    );
    let path = path.to_str().unwrap();
    let (code, text, stderr) = output(&["check", "--hooks", path]);
    assert_eq!(code, Some(0), "{stderr}");
    for line in ["a magic packet to aa:bb:cc:dd:ee:ff by 255.255.255.255:9 wakes it", "it is a cluster: smg"]
    {
        assert!(text.lines().any(|shown| shown.trim() == line), "{text}");
    }
    for end in [
        "-> one q8, two q4; backup small q8",
        "-> one its own model",
        "-> one its own model; all upstreams that list the model share its requests",
    ] {
        assert!(text.lines().any(|line| line.ends_with(end)), "{text}");
    }
    let twice = ["check", "--upstream", "http://127.0.0.1:1/v1", "--upstream", "http://127.0.0.1:1/v1"];
    assert!(output(&twice).1.contains("the address of default as well"), "an address that is given twice");
    for (name, key) in [("ca", r#"ca_file = "/no/such.pem""#), ("head", r#"headers = { ["x a"] = "b" }"#)] {
        let lua =
            format!(r#"return {{ api = 1, upstreams = {{ a = {{ url = "https://a.example", {key} }} }} }}"#);
        let (code, _, stderr) = output(&["check", "--hooks", &hooks_file(&format!("refused-{name}"), &lua)]);
        assert!(code == Some(1) && stderr.contains("upstream 'a': "), "{stderr}");
    }
    let (_, text, _) = output(&["check", "--json", "--hooks", path]);
    let checked: Value = serde_json::from_str(&text).unwrap();
    let upstream = |name: &str| {
        let all = checked["upstreams"].as_array().unwrap();
        all.iter().find(|upstream| upstream["name"] == name).unwrap()
    };
    let (one, small) = (upstream("one"), upstream("small"));
    assert_eq!((&one["wake"], &one["cluster"]), (&Value::Null, &Value::Null));
    assert_eq!(
        (&small["wake"], &small["cluster"]),
        (&json!("aa:bb:cc:dd:ee:ff by 255.255.255.255:9"), &json!("smg"))
    );
    let pool = json!({
        "pattern": "pool", "upstream": "one", "model": "q8",
        "members": [{"upstream": "one", "model": "q8"}, {"upstream": "two", "model": "q4"}],
        "backup": [{"upstream": "small", "model": "q8"}],
    });
    let open = json!({"pattern": "open", "upstream": "one", "model": null, "members": [], "backup": []});
    assert_eq!((&checked["aliases"][0], &checked["aliases"][2]), (&pool, &open));
}

#[test]
fn the_readmes_lua_loads() {
    let readme = include_str!("../../README.md");
    let blocks: Vec<&str> =
        readme.split("```lua\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 2);
    for (i, block) in blocks.iter().enumerate() {
        let path = file(&format!("readme-{i}"), block);
        let arguments = ["check", "--upstream", "http://127.0.0.1:1/v1", "--hooks", path.to_str().unwrap()];
        let (code, text, stderr) = output(&arguments);
        assert_eq!(code, Some(0), "{block}{stderr}");
        assert!(text.contains(if i == 0 { "claude-*opus*" } else { "on_upstream_request" }), "{text}");
    }
}

#[test]
fn newlines_behind_omitted_reasoning_come_back_whatever_on_event_does() {
    let upstream = Upstream::start();
    let on_event = "function(ev) if ev.type == 'thinking' then ev.text = 'changed' end end";
    let lua = format!(
        r#"return {{ api = 1, upstreams = {{ a = {{ url = "{}" }} }}, aliases = {{ {{ "*", upstream = "a" }} }}, on_event = {on_event} }}"#,
        upstream.url()
    );
    let server = serve(&file("newlines", &lua));
    let piece = |delta: Value| json!({"choices": [{"index": 0, "delta": delta}]});
    upstream.next_chunks(vec![
        piece(json!({"reasoning_content": "musing"})),
        piece(json!({"content": "\n\nfound"})),
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
    ]);
    let mut body = hello();
    body["thinking"] = json!({"type": "adaptive", "display": "omitted"});
    let content = server.connect().post(&body).json()["content"].clone();
    assert_eq!(content[1]["text"], "found", "{content}");
    let turns = [json!({"role": "assistant", "content": content}), json!({"role": "user", "content": "on"})];
    body["messages"].as_array_mut().unwrap().extend(turns);
    server.connect().post(&body).message();
    let seen = upstream.seen();
    let told = &seen.last().unwrap().body["messages"][1];
    assert_eq!(told["content"], "\n\nfound", "{told}");
    assert!(told.to_string().contains("changed") && !told.to_string().contains("musing"), "{told}");
}

#[test]
fn the_hook_command_runs_every_hook_on_samples() {
    let lua = r#"return {
        upstreams = { spark = { url = "http://127.0.0.1:9/v1" } },
        on_request = function(req) req.ctx.seen = req.model end,
        on_event = function(ev) if ev.type == "text" then ev.text = ev.text:upper() elseif ev.type == "thinking" then return false end end,
        on_tool_call = function(call, req) call.input.seen = req.ctx.seen end,
        on_error = function(err) if err.status == 503 then return { retry = "other" } end return { status = 529, message = "later" } end,
        on_log = function(rec) if rec.total_ms == 1 then error("on purpose") end end,
        on_upstream_state = function(name, state) log.info(name .. " is " .. state) end,
    }"#;
    let hooks = file("samples", lua);
    let hooks = hooks.to_str().unwrap();
    let (code, stdout, stderr) = output(&["hook", hooks]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    for part in [
        "\ndropped\n",
        "- text: \"Hello.\"\n+ text: \"HELLO.\"\n",
        "+ input.seen: \"claude-sonnet-5\"\n",
        "\nanother upstream is asked\n",
        "\nunchanged\n",
    ] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    assert!(stderr.contains("spark is out"), "{stderr}");

    let sample = |name: &str, text: &str| {
        let path = std::path::Path::new(hooks).with_file_name(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let events = sample(
        "events.jsonl",
        "{\"type\":\"text\",\"text\":\"one\"}\n{\"type\":\"text\",\"text\":\"two\"}\n",
    );
    let error = sample("error.json", r#"{"status":404,"message":"no such model"}"#);
    let (code, stdout, _) = output(&["hook", hooks, "--event", &events, "--error", &error]);
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("+ text: \"ONE\"") && stdout.contains("+ text: \"TWO\""), "{stdout}");
    assert!(stdout.contains("answered  ") && stdout.contains("later"), "{stdout}");
    let record = sample("record.json", r#"{"total_ms":1}"#);
    let (code, stdout, stderr) = output(&["hook", hooks, "--log", &record]);
    assert!(code == Some(1) && stderr.contains("on purpose"), "{stdout}{stderr}");
    for bad in ["", "[]", "7", "{"] {
        let (code, _, stderr) = output(&["hook", hooks, "--log", &sample("bad.json", bad)]);
        assert!(code == Some(1) && stderr.contains("bad.json: "), "{bad}: {stderr}");
    }
    let only = file("samples-none", "return { on_request = function() end }");
    let (code, _, stderr) = output(&["hook", only.to_str().unwrap(), "--event", &events]);
    assert!(code == Some(1) && stderr.contains("no file defines on_event"), "{stderr}");
}

#[test]
fn check_shows_how_connections_are_made_without_any_value_of_a_header() {
    let path = file(
        "connections",
        r#"return { upstreams = { a = { url = "https://127.0.0.1:1/v1", tls_verify = false, http_proxy = "http://127.0.0.1:2",
            headers = { ["x-team"] = "a-secret-value", ["x-key"] = env "SPARKGAP_TEST_NOT_SET" } },
            b = { url = "http://127.0.0.1:1/v1", tls_verify = false } } }"#,
    );
    let (code, text, stderr) = output(&["check", "--hooks", path.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stderr}");
    for line in [
        "it gets the headers x-team",
        "through the proxy http://127.0.0.1:2",
        "its certificate is not checked (tls_verify = false)",
        "ca_file and tls_verify have no effect: its URL begins with http://",
        "environment variables that the Lua asks for and that are not set here: SPARKGAP_TEST_NOT_SET",
    ] {
        assert!(text.lines().any(|shown| shown.trim() == line), "{line}: {text}");
    }
    assert!(!text.contains("a-secret-value"), "{text}");
    let (_, json, _) = output(&["check", "--json", "--hooks", path.to_str().unwrap()]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["unset_variables"], json!(["SPARKGAP_TEST_NOT_SET"]));
    let server = serve(&path);
    server.wait_for("upstream a: tls_verify = false: its certificate is not checked");
}
