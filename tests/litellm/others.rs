//! Configurations of claude-code-router and llama-swap: ten and four typical files, and broken ones.

use std::path::PathBuf;

use sparkgap::config::Config;
use sparkgap::hooks::{Hooks, LoadOptions};
use sparkgap::litellm::{self, Import, ImportError};
use sparkgap::route;

fn import(text: &str) -> Result<Import, ImportError> {
    litellm::import_any(text, super::context(&|_| None, &|_| Err("no such file".to_owned())))
}

/// The configuration that sparkgap makes of an import, with the values of its variables.
fn config(import: &Import) -> Config {
    let variables = [("BOX", "http://box:1/v1"), ("KEY", "sk-env")]
        .map(|(name, value)| (name.to_owned(), sparkgap::config::Secret::new(value)));
    let environment = import.environment.iter().cloned().chain(variables).collect();
    let options = LoadOptions {
        texts: vec![("config.json".to_owned(), import.lua.clone())],
        environment: std::sync::Arc::new(environment),
        ..LoadOptions::default()
    };
    Hooks::load(&[] as &[PathBuf], Vec::new(), options)
        .unwrap_or_else(|error| panic!("{error:?}\n{}", import.lua))
        .config
}

/// A file, its upstreams (name and address), and lines of its table of routes.
type CcrFile = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

const CCR: [CcrFile; 10] = [
    // The example of its README, shortened.
    (
        r#"{
  "APIKEY": "your-secret-key",
  "PROXY_URL": "http://127.0.0.1:7890",
  "LOG": true,
  "API_TIMEOUT_MS": 600000,
  "NON_INTERACTIVE_MODE": false,
  "Providers": [
    {
      "name": "openrouter",
      "api_base_url": "https://openrouter.ai/api/v1/chat/completions",
      "api_key": "sk-xxx",
      "models": ["google/gemini-2.5-pro-preview", "anthropic/claude-sonnet-4"],
      "transformer": { "use": ["openrouter"] }
    },
    {
      "name": "deepseek",
      "api_base_url": "https://api.deepseek.com/chat/completions",
      "api_key": "sk-xxx",
      "models": ["deepseek-chat", "deepseek-reasoner"],
      "transformer": { "use": ["deepseek"], "deepseek-chat": { "use": ["tooluse"] } }
    },
    { "name": "ollama", "api_base_url": "http://localhost:11434/v1/chat/completions", "api_key": "ollama", "models": ["qwen2.5-coder:latest"] }
  ],
  "Router": {
    "default": "deepseek,deepseek-chat",
    "background": "ollama,qwen2.5-coder:latest",
    "think": "deepseek,deepseek-reasoner",
    "longContext": "openrouter,google/gemini-2.5-pro-preview",
    "longContextThreshold": 60000,
    "webSearch": "openrouter,google/gemini-2.5-flash"
  }
}"#,
        &[
            ("deepseek", "https://api.deepseek.com/v1"),
            ("ollama", "http://localhost:11434/v1"),
            ("openrouter", "https://openrouter.ai/api/v1"),
        ],
        &[
            "default = { \"deepseek\", \"deepseek-chat\" },",
            "background = { \"ollama\", \"qwen2.5-coder:latest\" },",
            "longContextThreshold = 60000,",
        ],
    ),
    // One box for everything.
    (
        r#"{"Providers":[{"name":"ollama","api_base_url":"http://192.168.1.20:11434/v1/chat/completions","api_key":"ollama","models":["qwen3-coder:30b"]}],
"Router":{"default":"ollama,qwen3-coder:30b","background":"ollama,qwen3-coder:30b","think":"ollama,qwen3-coder:30b","longContext":"ollama,qwen3-coder:30b"}}"#,
        &[("ollama", "http://192.168.1.20:11434/v1")],
        &["think = { \"ollama\", \"qwen3-coder:30b\" },"],
    ),
    // Comments, as its user interface does not write them, but people do.
    (
        "// my router\n{\n\t\"LOG\": false, // no log\n\t\"Providers\": [\n\t\t{\n\t\t\t/* LM Studio\n\t\t\t   on the desk */\n\t\t\t\"name\": \"lmstudio\",\n\t\t\t\"api_base_url\": \"http://desk.lan:1234/v1/chat/completions\",\n\t\t\t\"api_key\": \"lm-studio\",\n\t\t\t\"models\": [\"qwen/qwen3-coder-30b\",],\n\t\t},\n\t],\n\t\"Router\": { \"default\": \"lmstudio,qwen/qwen3-coder-30b\", },\n}\n",
        &[("lmstudio", "http://desk.lan:1234/v1")],
        &["default = { \"lmstudio\", \"qwen/qwen3-coder-30b\" },"],
    ),
    // Values from the environment.
    (
        r#"{"Providers":[{"name":"box","api_base_url":"$BOX","api_key":"${KEY}","models":["m"]}],"Router":{"default":"box,m"}}"#,
        &[("box", "http://box:1/v1")],
        &["default = { \"box\", \"m\" },"],
    ),
    // Lower case, and names that are no words of Lua.
    (
        r#"{"providers":[{"name":"My Box","api_base_url":"http://box:8000/v1/","api_key":"sk-1","models":["m"]},{"name":"end","api_base_url":"http://box:8001","models":["n"]}],
"router":{"default":"my box,m","think":"end, n"}}"#,
        &[("My Box", "http://box:8000/v1"), ("end", "http://box:8001/v1")],
        &["default = { \"My Box\", \"m\" },", "think = { \"end\", \"n\" },"],
    ),
    // Gemini's own API has chat completions beside it.
    (
        r#"{"Providers":[{"name":"gemini","api_base_url":"https://generativelanguage.googleapis.com/v1beta/models/","api_key":"$KEY","models":["gemini-2.5-flash"],"transformer":{"use":["gemini"]}}],
"Router":{"default":"gemini,gemini-2.5-flash"}}"#,
        &[("gemini", "https://generativelanguage.googleapis.com/v1beta/openai")],
        &["default = { \"gemini\", \"gemini-2.5-flash\" },"],
    ),
    // A model for images, and a cap on tokens.
    (
        r#"{"Providers":[{"name":"vllm","api_base_url":"http://spark:8000/v1/chat/completions","api_key":"none","models":["a","vl"],"transformer":{"use":[["maxtoken",{"max_tokens":16384}],"enhancetool"]}}],
"Router":{"default":"vllm,a","image":"vllm,vl","forceUseImageAgent":false}}"#,
        &[("vllm", "http://spark:8000/v1")],
        &["image = { \"vllm\", \"vl\" },"],
    ),
    // Empty routes, as its user interface leaves them.
    (
        r#"{"HOST":"127.0.0.1","PORT":3456,"APIKEY":"","transformers":[],"StatusLine":{"enabled":false},"Providers":[{"name":"spark","api_base_url":"http://spark:8888/v1/chat/completions","api_key":"x","models":["m"]}],
"Router":{"default":"spark,m","background":"","think":"","longContext":"","longContextThreshold":100000,"webSearch":"","image":""},"CUSTOM_ROUTER_PATH":""}"#,
        &[("spark", "http://spark:8888/v1")],
        &["longContextThreshold = 100000,"],
    ),
    // One provider that cannot be asked, one twice, and a default that names nothing.
    (
        r#"{"Providers":[{"name":"a","api_base_url":"spark:8000","models":["m"]},{"name":"b","api_base_url":"http://spark:8000/v1","models":["m"]},{"name":"B","api_base_url":"http://other:8000/v1","models":["m"]},7],
"Router":{"default":"a,m","think":"b,m","background":"b"}}"#,
        &[("b", "http://spark:8000/v1")],
        &["think = { \"b\", \"m\" },", "default = { \"b\", \"m\" },"],
    ),
    // Code of its own and fallbacks, which stay behind.
    (
        r#"{"transformers":[{"path":"/home/u/t.js"}],"CUSTOM_ROUTER_PATH":"/home/u/router.js","fallback":{"default":["two,m"]},
"Providers":[{"name":"one","api_base_url":"http://one:1/v1/chat/completions","api_key":"k1","models":["m"]},{"name":"two","api_base_url":"http://two:1/v1/chat/completions","api_key":"k2","models":["m"]}],
"Router":{"default":"one,m","longContext":"two,m"}}"#,
        &[("one", "http://one:1/v1"), ("two", "http://two:1/v1")],
        &["longContext = { \"two\", \"m\" },"],
    ),
];

#[test]
fn ten_files_of_claude_code_router_fit_the_example() {
    for (text, upstreams, routes) in CCR {
        let import = import(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let config = config(&import);
        let mut found: Vec<_> =
            config.upstreams.iter().map(|it| (it.name.as_str(), it.url.as_str())).collect();
        found.sort_unstable();
        assert_eq!(found, upstreams, "{text}");
        for route in routes {
            assert!(import.lua.contains(route), "{route}\n{}", import.lua);
        }
        assert!(import.summary.len() <= 16, "{:?}", import.summary);
        for secret in ["sk-xxx", "sk-1", "\"k1\"", "your-secret"] {
            assert!(
                !import.lua.contains(secret) && !format!("{:?}", import.report).contains(secret),
                "{secret}"
            );
        }
    }
}

#[test]
fn the_summary_names_lost_rules_first_and_keys_that_are_not_set() {
    let lost: String = (0..9).map(|n| format!(r#","x{n}":1"#)).collect();
    let text = format!(
        r#"{{"Providers":[{{"name":"c","api_base_url":"http://c:1/v1","api_key":"$UNSET_KEY","models":["m"]{lost}}}],"Router":{{"default":"c,m","webSearch":"c,m"}},"CUSTOM_ROUTER_PATH":"/r.js"}}"#
    );
    let summary = import(&text).unwrap().summary;
    assert_eq!(summary[1], "c: http://c:1/v1, gets the key in UNSET_KEY (not set here)");
    let lost: Vec<&String> = summary.iter().filter(|line| line.starts_with("lost: ")).collect();
    assert!(lost[0].contains("Router.webSearch") && lost[1].contains("CUSTOM_ROUTER_PATH"), "{summary:?}");
    assert!(lost.last().unwrap().ends_with("more settings: --verbose shows them"), "{summary:?}");
}

#[test]
fn a_model_for_web_searches_is_replaced_by_an_engine() {
    let import = import(CCR[0].0).unwrap();
    assert!(!import.lua.contains("webSearch"), "{}", import.lua);
    let said = import.summary.join("\n");
    assert!(said.contains("lost: Router.webSearch: ") && said.contains("search = { searxng = "), "{said}");
}

#[test]
fn empty_keys_and_quoted_numbers_are_known() {
    let import = import(
        r#"{"Providers":[{"name":"a","api_base_url":"http://a:1","api_key":"","models":["m"]}],
"Router":{"default":"a,m","longContextThreshold":"70000"}}"#,
    )
    .unwrap();
    assert!(import.lua.contains("longContextThreshold = 70000,"), "{}", import.lua);
    assert_eq!(import.summary, ["1 provider; the default is m of a", "a: http://a:1/v1, no key"]);
}

#[test]
fn a_byte_order_mark_does_not_hide_whose_file_it_is() {
    let commented = format!("// Written by an editor on Windows.\n{}", CCR[0].0);
    for text in [commented.as_str(), "models:\n  a: {cmd: llama-server}\n"] {
        let marked = import(&format!("\u{feff}{text}")).unwrap();
        assert_eq!(marked.lua, import(text).unwrap().lua);
    }
}

#[test]
fn the_report_names_what_stays_behind() {
    let import = import(CCR[9].0).unwrap();
    let said = import.summary.join("\n");
    for key in ["transformers[0].path", "CUSTOM_ROUTER_PATH", "fallback.default[0]"] {
        assert!(said.contains(&format!("lost: {key}: ")), "{said}");
    }
    let import = import_nine();
    assert!(
        import.summary[0].contains("since the Router names none that can be served"),
        "{:?}",
        import.summary
    );
    let left_out =
        import.report.iter().filter(|line| line.note.starts_with("the provider is left out")).count();
    assert_eq!(left_out, 3 + 3 + 1);
}

fn import_nine() -> Import {
    import(CCR[8].0).unwrap()
}

#[test]
fn the_names_of_llama_swap_are_aliases_of_one_upstream() {
    for (text, names, first) in [
        ("models:\n  qwen:\n    cmd: llama-server --port ${PORT}\n", vec!["qwen"], "qwen"),
        (
            "macros:\n  x: y\nmodels:\n  bge-m3:\n    cmd: llama-server --embedding\n  \"big:30b\":\n    cmd: |\n      llama-server\n      -c 4096\n    aliases: [gpt-4o, gpt-4o, '*', ' ']\n    filters:\n      stripParams: temperature\n      setParamsByID:\n        \"${MODEL_ID}:high\": {x: 1}\n",
            vec!["bge-m3", "big:30b", "gpt-4o", "big:30b:high"],
            "big:30b",
        ),
        (
            "apiKeys: [sk-swap, sk-other]\nmodels:\n  a: {proxy: 'http://127.0.0.1:1', unlisted: true}\npeers:\n  far: {proxy: 'http://far:1', models: [b]}\nselectors:\n  s: {strategy: warm, targets: [a]}\n",
            vec!["a", "b", "s"],
            "a",
        ),
        ("peers:\n  far: {proxy: 'http://far:1', models: [b]}\n", vec!["b"], "b"),
        (
            "macros: {e: '${f} -x', f: 'llama-server --embedding ${e}'}\nmodels:\n  vec: {cmd: '${e} -m x'}\n  chat: {cmd: x}\n",
            vec!["vec", "chat"],
            "chat",
        ),
    ] {
        let import = import(text).unwrap();
        let config = config(&import);
        let aliases: Vec<_> = config.aliases.iter().map(|alias| alias.pattern.as_str()).collect();
        assert_eq!(aliases.split_last(), Some((&"*", names.as_slice())), "{}", import.lua);
        for name in names {
            assert_eq!(route::find(&config.aliases, name).unwrap().model.as_deref(), Some(name));
        }
        assert_eq!(route::find(&config.aliases, "claude-x").unwrap().model.as_deref(), Some(first));
        let key = config.upstreams[0].api_key.as_ref().map(|key| key.expose());
        assert_eq!(key, text.contains("sk-swap").then_some("sk-swap"));
        assert!(!import.lua.contains("sk-swap"));
    }
}

#[test]
fn llama_swap_keys_and_aliases_without_effect_are_not_called_mapped() {
    let import = import("apiKeys: [sk-1, sk-2]\nmodels:\n  a: {cmd: x, aliases: [b, 'g*']}\n").unwrap();
    let said: String = import.report.iter().map(|line| format!("{line}\n")).collect();
    for (key, verdict) in [
        ("apiKeys[0]", "mapped"),
        ("apiKeys[1]", "ignored"),
        ("models.a.aliases[0]", "mapped"),
        ("models.a.aliases[1]", "unsupported"),
    ] {
        assert!(said.lines().any(|line| line.starts_with(verdict) && line.contains(key)), "{key}\n{said}");
    }
    assert!(import.summary.iter().any(|line| line.starts_with("lost: models.a.aliases[1]: ")), "{said}");
}

#[test]
fn a_provider_of_the_messages_api_becomes_an_upstream_of_it() {
    for address in ["https://a.example/anthropic", "https://a.example/anthropic/v1/messages"] {
        let text = r#"{"Providers":[{"name":"c","api_base_url":"@","api_key":"$K","models":["m"],"transformer":{"use":["Anthropic"]}}],"Router":{"default":"c,m"}}"#;
        let lua = import(&text.replace('@', address)).unwrap().lua;
        assert!(
            lua.contains(
                r#"url = "https://a.example/anthropic/v1", api_key = env "K", protocol = "messages""#
            ),
            "{lua}"
        );
    }
}

#[test]
fn other_files_are_errors_that_say_what_is_expected() {
    for (text, expected) in [
        (r#"{"Providers":[],"Router":{"default":"a,b"}}"#, "no provider can be served"),
        (r#"{"Providers":[{"name":"a","api_base_url":"x"}],"Router":{}}"#, "does not begin with http://"),
        (r#"{"Providers":{"a":1},"Router":{}}"#, "Providers must be a list"),
        (
            r#"{"Providers":[{"name":"a","api_base_url":"http://a"}],"Router":{}}"#,
            "write default: \"PROVIDER,MODEL\"",
        ),
        ("{\"Providers\": [\n{\"name\": \"a\n]}", "line 2"),
        (r#"{"Providers":[{"name":"a,b","api_base_url":"http://a"}],"Router":{}}"#, "has a comma"),
        ("models:\n  ' ': {cmd: x}\n", "expected models"),
        ("models: {}\n", "expected models"),
        (r#"{"Providers":[]}"#, "Providers is empty"),
        (r#"{"Providers":[{"name":"a","api_base_url":"http://a"}]}"#, "no Router; expected"),
        (r#"{"Router":{"default":"a,b"}}"#, "no Providers; expected"),
        ("{}", "expected a LiteLLM configuration"),
    ] {
        let error = import(text).map(|import| import.lua).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}\n{error}");
    }
    let many = (0..3000).map(|i| format!("  m{i}: {{cmd: x}}\n")).collect::<String>();
    assert!(import(&format!("models:\n{many}")).unwrap_err().message.contains("at most 2000"));
}

/// Every beginning of every file is an import or an error with words.
#[test]
fn cut_files_of_other_programs_never_panic() {
    for (text, _, _) in CCR {
        for (end, _) in text.char_indices() {
            if let Err(error) = import(text.split_at(end).0) {
                assert!(!error.message.is_empty());
            }
        }
    }
}
