//! The files in `hooks/`: each is loaded and run. None of the addresses in them is ever contacted.

use super::super::load::{FILE_KEYS, UPSTREAM_KEYS};
use super::*;
use crate::dialect::ServerKind;

fn shipped(path: &str) -> Loaded {
    Hooks::load(&[crate_file(path)], vec![upstream("main")], options())
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn example(name: &str) -> Loaded {
    shipped(&format!("hooks/examples/{name}.lua"))
}

/// The upstream and the model that a name is mapped to.
fn mapped<'c>(config: &'c Loaded, model: &str) -> (&'c str, Option<&'c str>) {
    let alias = crate::route::find(&config.config.aliases, model).unwrap();
    (config.config.upstream_of(alias).unwrap(), alias.model.as_deref())
}

/// Runs `on_request` on this body and returns the decision and the changed body.
fn request_through(loaded: &Loaded, change: impl FnOnce(&mut HookRequest), body: &str) -> (Decision, String) {
    let mut request = request();
    change(&mut request);
    let mut bytes = body.as_bytes().to_vec();
    let mut body = json::parse(&mut bytes).unwrap();
    let decision = loaded.hooks.on_request(&mut request, &mut body, &|model| model).unwrap();
    assert_eq!(loaded.hooks.failures(Hook::Request), 0);
    (decision, body.to_json())
}

fn to(upstream: &str) -> Decision {
    Decision::Route { model: None, upstreams: vec![upstream.to_owned()], lane: None, record: None }
}

#[test]
fn the_embedded_default_sends_every_name_to_the_first_upstream() {
    let loaded = Hooks::load(&[], vec![upstream("main"), upstream("other")], options()).unwrap();
    assert_eq!(loaded.config.upstreams[0].name, "main");
    assert_eq!(mapped(&loaded, "claude-anything"), ("main", None));
    assert!(Hook::ALL.iter().all(|hook| !loaded.hooks.defines(*hook)));
}

#[test]
fn every_line_that_the_default_shows_in_a_comment_works() {
    let text = std::fs::read_to_string(crate_file("hooks/default.lua")).unwrap();
    let mut shown = String::new();
    for line in text.lines() {
        let inner = line.trim_start().strip_prefix("-- ").unwrap_or(line);
        let is_code = ["    --", "    },", "    { "].iter().any(|start| line.starts_with(start));
        shown.push_str(if is_code { inner } else { line });
        shown.push('\n');
    }
    let shown = shown.replace("upstream = \"small\"", "upstream = \"spark\"");
    let loaded = load(&shown).unwrap_or_else(|error| panic!("{shown}\n{error}"));
    let spark = loaded.config.upstreams.iter().find(|upstream| upstream.name == "spark").unwrap();
    assert_eq!((spark.max_in_flight, spark.settings.window), (Some(8), Some(131_072)));
    assert_eq!(mapped(&loaded, "claude-3-haiku").0, "spark");
}

#[test]
fn the_article_s_three_aliases() {
    let loaded = Hooks::load(&[crate_file("hooks/litellm-article.lua")], Vec::new(), options()).unwrap();
    const MOE: &str = "Intel/Qwen3.6-35B-A3B-int4-AutoRound";
    const DENSE: &str = "Intel/Qwen3.5-27B-int4-AutoRound";
    for (name, upstream_name, model) in [
        ("claude-sonnet-4-20250514", "moe", MOE),
        ("claude-3-5-sonnet-20241022", "moe", MOE),
        ("claude-3-opus-20240229", "dense", DENSE),
    ] {
        assert_eq!(mapped(&loaded, name), (upstream_name, Some(model)));
    }
    assert_eq!(loaded.config.upstreams[0].name, "moe");
    for upstream in &loaded.config.upstreams {
        assert_eq!(upstream.url, "http://192.168.68.155:8888/v1");
        assert_eq!(upstream.api_key, None);
    }
}

#[test]
fn every_example_is_short_and_is_run_here() {
    let mut names: Vec<String> = std::fs::read_dir(crate_file("hooks/examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    let here = include_str!("shipped.rs");
    for name in &names {
        let text = std::fs::read_to_string(crate_file(&format!("hooks/examples/{name}.lua"))).unwrap();
        assert!((10..=40).contains(&text.lines().count()), "{name}");
        assert!(here.contains(&format!("example(\"{name}\")")), "{name}");
    }
    assert_eq!(names.len(), 13);
}

#[test]
fn haiku_to_the_small_box() {
    let loaded = example("haiku-to-the-small-box");
    assert_eq!(mapped(&loaded, "claude-haiku-4-5").0, "small");
    assert_eq!(mapped(&loaded, "claude-opus-4-5").0, "big");
    let small = loaded.config.upstreams.iter().find(|upstream| upstream.name == "small").unwrap();
    assert_eq!(small.settings.thinking, crate::settings::ThinkingMode::Off);
    assert_eq!(small.settings.max_tokens, Some(8192));
}

#[test]
fn long_context_to_the_big_box() {
    let loaded = example("long-context-to-the-big-box");
    assert_eq!(request_through(&loaded, |r| r.tokens_est = 100_001, "{}").0, to("large"));
    assert_eq!(request_through(&loaded, |r| r.tokens_est = 100_000, "{}").0, Decision::Continue);
}

#[test]
fn thinking_off_for_one_alias() {
    let loaded = example("thinking-off-for-one-alias");
    let thinking = |model: &str| {
        let (name, _) = mapped(&loaded, model);
        loaded.config.upstreams.iter().find(|upstream| upstream.name == name).unwrap().settings.thinking
    };
    assert_eq!(thinking("quick"), crate::settings::ThinkingMode::Off);
    assert_eq!(thinking("claude-opus-4-5"), crate::settings::ThinkingMode::Auto);
}

#[test]
fn cooler_with_tools() {
    let loaded = example("cooler-with-tools");
    let run = |has_tools: bool, body: &str| {
        let mut bytes = body.as_bytes().to_vec();
        let mut body = json::parse(&mut bytes).unwrap();
        loaded.hooks.on_upstream_request(&mut body, &mut HookRequest { has_tools, ..request() }).unwrap();
        body.to_json()
    };
    assert_eq!(run(true, r#"{"temperature":1.0}"#), r#"{"temperature":0.3}"#);
    assert_eq!(run(true, r#"{"temperature":0.1}"#), r#"{"temperature":0.1}"#);
    assert_eq!(run(true, "{}"), r#"{"temperature":0.3}"#);
    assert_eq!(run(false, "{}"), "{}");
}

#[test]
fn without_one_tool() {
    let loaded = example("without-one-tool");
    let run = |body: &str| request_through(&loaded, |_| {}, body).1;
    assert_eq!(
        run(r#"{"tools":[{"name":"A"},{"name":"WebSearch"},{"name":"B"}]}"#),
        r#"{"tools":[{"name":"A"},{"name":"B"}]}"#
    );
    assert_eq!(run(r#"{"tools":[{"name":"WebSearch"}]}"#), "{}");
    assert_eq!(run("{}"), "{}");
}

#[test]
fn without_unused_tools() {
    let loaded = example("without-unused-tools");
    let run = |count: usize, more: &str| {
        let call = r#"{"role":"assistant","content":[{"type":"text","text":"x"},{"type":"tool_use","name":"Skill"}]}"#;
        let late = r#"{"role":"assistant","content":[{"type":"tool_use","name":"Late"}]}"#;
        let other = r#"{"role":"user","content":"x"}"#;
        let mut messages = vec![other; count];
        messages[1] = call;
        messages[count - 1] = late;
        let tools = r#"[{"name":"Cron"},{"name":"Bash"},{"name":"Late"},{"name":"Skill"}]"#;
        let body = format!(r#"{{"tools":{tools},"messages":[{}]{more}}}"#, messages.join(","));
        let after = request_through(&loaded, |_| {}, &body).1;
        after.split(r#","messages""#).next().unwrap().replace(r#"{"name":"#, "").replace('}', "")
    };
    let all = r#"{"tools":["Cron","Bash","Late","Skill"]"#;
    assert_eq!(run(20, ""), all);
    for count in [21, 60] {
        assert_eq!(run(count, ""), r#"{"tools":["Bash","Skill"]"#);
    }
    assert_eq!(
        run(21, r#","tool_choice":{"type":"tool","name":"Cron"}"#),
        r#"{"tools":["Cron","Bash","Skill"]"#
    );
    assert_eq!(request_through(&loaded, |_| {}, "{}").1, "{}");
}

#[test]
fn house_rules() {
    let loaded = example("house-rules");
    let run = |body: &str| request_through(&loaded, |_| {}, body).1;
    const RULES: &str = "House rules: answer in British English. Never push to main.";
    for (body, expected) in [
        ("{}", format!(r#"{{"system":"{RULES}"}}"#)),
        (r#"{"system":"Be."}"#, format!(r#"{{"system":"Be.\n\n{RULES}"}}"#)),
        (
            r#"{"system":[{"type":"text","text":"Be."}]}"#,
            format!(r#"{{"system":[{{"type":"text","text":"Be."}},{{"text":"{RULES}","type":"text"}}]}}"#),
        ),
    ] {
        assert_eq!(run(body), expected);
        assert_eq!(run(&expected), expected, "once only");
    }
}

#[test]
fn deny_list() {
    let loaded = example("deny-list");
    let status = |change: &dyn Fn(&mut HookRequest)| match request_through(&loaded, |r| change(r), "{}").0 {
        Decision::Reject(error) => error.kind.status(),
        _ => 200,
    };
    assert_eq!(status(&|_| {}), 200);
    assert_eq!(status(&|r| r.client_ip = "192.168.68.99".to_owned()), 403);
    assert_eq!(status(&|r| r.model = "gpt-5".to_owned()), 404);
    assert_eq!(status(&|r| r.model = "claude-opus-4-5".to_owned()), 404);
    assert!(loaded.hooks.places().iter().all(|place| place.closed));
}

#[test]
fn fix_arguments() {
    let loaded = example("fix-arguments");
    let mut bytes = br#"{"id":"t","name":"Read","input":{"path":"/a","offset":"5"}}"#.to_vec();
    let mut call = json::parse(&mut bytes).unwrap();
    loaded.hooks.on_tool_call(&mut call, &mut request()).unwrap();
    assert_eq!(call.get("input").unwrap().to_json(), r#"{"offset":5,"file_path":"/a"}"#);
    let mut bytes = br#"{"id":"t","name":"Read","input":{"file_path":"/a"}}"#.to_vec();
    let mut call = json::parse(&mut bytes).unwrap();
    loaded.hooks.on_tool_call(&mut call, &mut request()).unwrap();
    assert_eq!(call.get("input").unwrap().to_json(), r#"{"file_path":"/a"}"#);
    assert_eq!(loaded.hooks.failures(Hook::ToolCall), 0);
}

#[test]
fn reword_an_error() {
    let loaded = example("reword-an-error");
    let run = |kind| loaded.hooks.on_error(&Error::new(kind, "x"), "spark", &mut request()).unwrap();
    let reworded = Error::new(Kind::Overloaded, "The box spark is off or starting: wait a minute.");
    assert_eq!(run(Kind::BadGateway), ErrorDecision::Replace(reworded));
    assert_eq!(run(Kind::RateLimit), ErrorDecision::Continue);
}

#[test]
fn tokens_per_client() {
    let dictionary = Shared::default();
    let path = crate_file("hooks/examples/tokens-per-client.lua");
    let options = LoadOptions { shared: dictionary.clone(), ..options() };
    let hooks = Hooks::load(&[path], vec![upstream("main")], options).unwrap().hooks;
    for _ in 0..3 {
        hooks.on_log(&mut Value::object([("output_tokens", 5u64.into())]), &mut request());
    }
    assert_eq!(hooks.failures(Hook::Log), 0);
    let total = dictionary.get("tokens 192.168.68.20", Instant::now()).unwrap();
    assert_eq!(total.as_u64(), Some(15));
    drop(example("tokens-per-client"));
}

#[test]
fn ab_split() {
    let loaded = example("ab-split");
    let group = |n: usize| {
        let change = |request: &mut HookRequest| request.client_ip = format!("192.168.68.{n}");
        let first = request_through(&loaded, change, "{}").0;
        assert_eq!(request_through(&loaded, change, "{}").0, first, "a client stays where it is");
        first
    };
    let new = (1..=100).filter(|n| group(*n) == to("new")).count();
    assert!((30..=70).contains(&new), "{new}");
}

/// Every Lua block of the manual, and true if it is an example of a mistake.
fn manual_blocks() -> Vec<(bool, String)> {
    let manual = std::fs::read_to_string(crate_file("hooks/README.md")).unwrap();
    let mut blocks = Vec::new();
    let mut block: Option<(bool, String)> = None;
    for line in manual.lines() {
        match (&mut block, line) {
            (None, "```lua") => block = Some((false, String::new())),
            (None, "```lua wrong") => block = Some((true, String::new())),
            (Some(_), "```") => blocks.extend(block.take()),
            (Some((_, text)), line) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, line) => assert!(!line.starts_with("```lua"), "{line}"),
        }
    }
    blocks
}

/// Calls every hook twice with likely arguments, since some mistakes show only at the second request.
fn call_every_hook(hooks: &Hooks) {
    let body = r#"{"model":"m","metadata":{"user_id":"u"},"messages":[{"role":"user","content":"ping"},{"role":"user","content":""}]}"#;
    for _ in 0..2 {
        let mut request = request();
        let mut bytes = body.as_bytes().to_vec();
        let mut body = json::parse(&mut bytes).unwrap();
        hooks.on_request(&mut request, &mut body, &|model| model).unwrap();
        hooks.on_upstream_request(&mut Value::object([]), &mut request).unwrap();
        let mut event = Value::object([("type", "text".into()), ("text", "colour".into())]);
        hooks.on_event(&mut event, &mut request).unwrap();
        let input = Value::object([("path", "/a".into())]);
        let mut call = Value::object([("id", "t".into()), ("name", "Read".into()), ("input", input)]);
        hooks.on_tool_call(&mut call, &mut request).unwrap();
        hooks.on_search("the intranet", &mut request).unwrap();
        hooks.on_error(&Error::new(Kind::BadGateway, "x"), "spark", &mut request).unwrap();
        hooks.on_log(&mut Value::object([("output_tokens", 5u64.into())]), &mut request);
        hooks.on_upstream_state("spark", "out", "connection refused");
    }
}

#[test]
fn every_code_block_of_the_manual_works_or_fails_as_it_says() {
    let blocks = manual_blocks();
    assert_eq!(blocks.iter().filter(|(wrong, _)| *wrong).count(), 4);
    assert!(blocks.len() >= 15, "{}", blocks.len());
    for (wrong, text) in blocks {
        let hooks = load(&text).unwrap_or_else(|error| panic!("{text}\n{error}")).hooks;
        call_every_hook(&hooks);
        let failures: u64 = Hook::ALL.iter().map(|hook| hooks.failures(*hook)).sum();
        assert_eq!(failures > 0, wrong, "{text}");
    }
}

#[test]
fn the_types_may_lie_beside_the_hooks() {
    let types = std::fs::read_to_string(crate_file("hooks/types.lua")).unwrap();
    let loaded = load_files(&[("10.lua", "return { on_log = print }"), ("types.lua", &types)]).unwrap();
    assert_eq!(loaded.hooks.places().len(), 1);
}

#[test]
fn the_manual_and_the_types_name_every_hook_and_field() {
    for file in ["hooks/README.md", "hooks/types.lua"] {
        let text = std::fs::read_to_string(crate_file(file)).unwrap();
        let hooks = Hook::ALL.map(Hook::name);
        for name in hooks.iter().chain(&HookRequest::FIELDS).chain(&UPSTREAM_KEYS) {
            assert!(text.contains(name), "{file}: {name}");
        }
    }
}

#[test]
fn the_manual_the_types_and_the_default_file_name_every_kind_of_server() {
    for file in ["hooks/README.md", "hooks/types.lua", "hooks/default.lua"] {
        let text = std::fs::read_to_string(crate_file(file)).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("flavour")).collect();
        for (_, name) in ServerKind::NAMES {
            assert!(lines.iter().any(|line| line.contains(name)), "{file}, flavour: {name}");
        }
    }
}

/// The keys that a file's table may have: its own, and the hooks.
fn file_keys() -> impl Iterator<Item = &'static str> {
    FILE_KEYS.into_iter().chain(Hook::ALL.map(Hook::name))
}

#[test]
fn the_default_file_lists_every_key() {
    let text = std::fs::read_to_string(crate_file("hooks/default.lua")).unwrap();
    let sets = |line: &str, key: &str| {
        let code = line.trim_start().trim_start_matches("--").trim_start();
        code.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = "))
    };
    for key in file_keys().chain(UPSTREAM_KEYS) {
        assert!(text.lines().any(|line| sets(line, key)), "hooks/default.lua does not show `{key} = …`");
    }
}

#[test]
fn the_types_and_the_tables_of_the_manual_list_every_key() {
    let types = std::fs::read_to_string(crate_file("hooks/types.lua")).unwrap();
    let manual = std::fs::read_to_string(crate_file("hooks/README.md")).unwrap();
    // The part of the types that describes one table.
    let fields = |class: &str| {
        let (_, after) = types.split_once(&format!("---@class {class}\n")).unwrap();
        after.split("\n\n").next().unwrap().to_owned()
    };
    let (file, upstream) = (fields("Hooks"), fields("Upstream"));
    for key in file_keys() {
        assert!(file.contains(&format!("---@field {key} ")), "hooks/types.lua, Hooks: {key}");
        let has_row = manual.lines().any(|line| {
            let first = line.strip_prefix("| `").and_then(|cells| cells.split(['`', '(']).next());
            first == Some(key)
        });
        assert!(has_row, "hooks/README.md: no table has a row for `{key}`");
    }
    for key in UPSTREAM_KEYS {
        assert!(upstream.contains(&format!("---@field {key} ")), "hooks/types.lua, Upstream: {key}");
        assert!(
            manual.contains(&format!("| `{key}` |")),
            "hooks/README.md: no row for `{key}` of an upstream"
        );
    }
}

#[test]
fn ccr() {
    let loaded = example("ccr");
    let ask = |model: &str, tokens: u64, body: &str| {
        let change = |request: &mut HookRequest| {
            request.model = model.to_owned();
            request.tokens_est = tokens;
        };
        let (decision, body) = request_through(&loaded, change, body);
        let Decision::Route { model, upstreams, lane: None, record: None } = decision else {
            panic!("{decision:?}")
        };
        (format!("{} {}", upstreams.join(" "), model.unwrap()), body)
    };
    const PLAIN: &str = r#"{"messages":[{"role":"user","content":"hi"}]}"#;
    const THINKS: &str = r#"{"messages":[{"role":"user","content":"hi"}],"thinking":{"type":"adaptive"}}"#;
    const IMAGE: &str = r#"{"messages":[{"role":"user","content":[{"type":"tool_result","content":[{"type":"image"}]}]}],"thinking":{"type":"enabled"}}"#;
    const TAGGED: &str = r#"{"system":[{"type":"text","text":"a"},{"type":"text","text":"<CCR-SUBAGENT-MODEL>Small,qwen3:32b</CCR-SUBAGENT-MODEL>Go."}],"messages":[{"role":"user","content":"hi"}]}"#;
    for (model, tokens, body, to) in [
        ("claude-sonnet-5", 100, PLAIN, "spark qwen3-coder"),
        ("claude-haiku-4-5", 100, PLAIN, "small qwen3:8b"),
        ("claude-haiku-4-5", 100, THINKS, "small qwen3:8b"),
        ("claude-sonnet-5", 100, THINKS, "spark qwen3-thinking"),
        ("claude-sonnet-5", 100, &THINKS.replace("adaptive", "disabled"), "spark qwen3-coder"),
        ("claude-haiku-4-5", 60_001, THINKS, "spark qwen3-1m"),
        ("claude-sonnet-5", 60_001, IMAGE, "small qwen3-vl"),
        ("small,other:7b", 60_001, THINKS, "small other:7b"),
        ("SPARK,other", 1, PLAIN, "spark other"),
        ("nobody,other", 1, PLAIN, "spark qwen3-coder"),
        ("claude-haiku-4-5", 1, TAGGED, "small qwen3:32b"),
        ("claude-sonnet-5", 1, &TAGGED.replace("Small,", "nobody/"), "spark qwen3-coder"),
    ] {
        let (found, after) = ask(model, tokens, body);
        assert_eq!(found, to, "{model} {tokens} {body}");
        assert!(!after.contains("SUBAGENT"), "{after}");
    }
    assert!(ask("x", 1, TAGGED).1.contains(r#""text":"Go.""#));
    // A tag in a plain text, in the system prompt or the first message, is removed as well.
    const TAG: &str = "<CCR-SUBAGENT-MODEL>small,tagged</CCR-SUBAGENT-MODEL>";
    for body in [
        format!(r#"{{"system":"{TAG}Go.","messages":[{{"role":"user","content":"hi"}}]}}"#),
        format!(r#"{{"system":"Hi.","messages":[{{"role":"user","content":"{TAG}Go."}}]}}"#),
    ] {
        let (found, after) = ask("claude-sonnet-5", 1, &body);
        assert_eq!(found, "small tagged");
        assert!(after.contains("\"Go.\"") && !after.contains("SUBAGENT"), "{after}");
    }
    // The other paths of OpenAI's protocol have no messages.
    for body in [
        r#"{"input":"hi"}"#,
        r#"{"prompt":"hi","messages":[]}"#,
        r#"{"input":[{"role":"user","content":"hi"}],"messages":"hi"}"#,
        r#"{"messages":["hi",7]}"#,
        r#"{"messages":[7]}"#,
    ] {
        assert_eq!(ask("claude-sonnet-5", 1, body).0, "spark qwen3-coder", "{body}");
        assert_eq!(ask("small,other", 1, body).0, "small other", "{body}");
    }
    assert_eq!(mapped(&loaded, "anything"), ("spark", Some("qwen3-coder")));
}
