//! The effect of the written hooks on requests.

use std::path::PathBuf;

use mlua::{Function, Lua, Table, Value};

use sparkgap::config::Config;
use sparkgap::hooks::{Hooks, LoadOptions};
use sparkgap::route;

use super::support;

struct File {
    lua: Lua,
    table: Table,
}

impl File {
    fn new(yaml: &str) -> File {
        let lua = Lua::new();
        let table = support::load(&lua, &super::translate(yaml).unwrap().lua);
        File { lua, table }
    }

    /// A request that goes to this upstream.
    fn request(&self, model: &str, upstream: &str) -> Table {
        let request = self.lua.create_table().unwrap();
        request.set("model", model).unwrap();
        request.set("upstream", upstream).unwrap();
        request.set("ctx", self.lua.create_table().unwrap()).unwrap();
        request
    }

    /// The model that `on_error` chooses.
    fn on_error(&self, request: &Table, status: u16, message: &str) -> Option<String> {
        let error = self.lua.create_table().unwrap();
        error.set("status", status).unwrap();
        error.set("message", message).unwrap();
        let hook: Function = self.table.get("on_error").unwrap();
        let decision: Value = hook.call((error, request)).unwrap();
        decision.as_table().map(|table| table.get("model").unwrap())
    }

    fn on_upstream_request(&self, request: &Table, body: &str) -> Table {
        let body: Table = self.lua.load(body).eval().unwrap();
        let hook: Function = self.table.get("on_upstream_request").unwrap();
        hook.call::<()>((&body, request)).unwrap();
        body
    }
}

/// The configuration that sparkgap makes of the file.
fn config(yaml: &str) -> Config {
    let lua = super::translate(yaml).unwrap().lua;
    let options = LoadOptions { texts: vec![("config.yaml".to_owned(), lua)], ..LoadOptions::default() };
    Hooks::load(&[] as &[PathBuf], Vec::new(), options).unwrap().config
}

/// The members of the alias for a name, then its backups, each as `upstream model`.
fn members(config: &Config, name: &str) -> (Vec<String>, Vec<String>) {
    let alias = route::find(&config.aliases, name).unwrap();
    let shown = |member: &route::AliasMember| {
        format!("{} {}", member.upstream, alias.model_for(Some(member), name).unwrap())
    };
    (alias.members.iter().map(shown).collect(), alias.backup.iter().map(shown).collect())
}

/// Entries for the server and the model of the same name: `name server settings` each.
fn entries(list: &[(&str, &str, &str)]) -> String {
    let entry = |(name, server, more): &(&str, &str, &str)| {
        format!(
            "- {{model_name: '{name}', litellm_params: {{model: openai/{server}-m, api_base: 'http://{server}:1/v1', api_key: none{more}}}}}\n"
        )
    };
    format!("model_list:\n{}", list.iter().map(entry).collect::<String>())
}

#[test]
fn entries_of_one_name_are_a_pool_with_backups() {
    for (list, pool, backup) in [
        (vec![("a", "one", ""), ("a", "two", ", weight: 3")], vec!["two two-m"], vec!["one one-m"]),
        (vec![("a", "one", ""), ("a", "two", "")], vec!["one one-m", "two two-m"], vec![]),
        (vec![("a", "one", ", rpm: 9"), ("a", "two", "")], vec!["one one-m", "two two-m"], vec![]),
        (
            vec![
                ("a", "one", ", order: 3"),
                ("a", "two", ", order: '2'"),
                ("a", "six", ", order: 1"),
                ("a", "ten", ", order: 1.0"),
            ],
            vec!["six six-m", "ten ten-m"],
            vec!["two two-m", "one one-m"],
        ),
        // Entries that are the same count once.
        (vec![("a", "one", ""), ("a", "one", ", temperature: 1")], vec!["one one-m"], vec![]),
    ] {
        let found = members(&config(&entries(&list)), "a");
        assert_eq!(
            (found.0, found.1),
            (pool.iter().map(|s| s.to_string()).collect(), backup.iter().map(|s| s.to_string()).collect()),
            "{list:?}"
        );
    }
}

#[test]
fn fallbacks_follow_the_backups_of_a_name() {
    let yaml = entries(&[
        ("a", "one", ", order: 1"),
        ("a", "two", ", order: 2"),
        ("b", "six", ""),
        ("c", "ten", ""),
        ("d", "one", ""),
    ]);
    let yaml = format!(
        "{yaml}litellm_settings: {{fallbacks: [{{a: [b]}}, {{b: [c, a]}}], default_fallbacks: [d]}}\n"
    );
    let config = config(&yaml);
    // `d` is the same server and model as the first entry of `a`.
    assert_eq!(members(&config, "a").1, ["two two-m", "six six-m", "ten ten-m"]);
    assert_eq!(members(&config, "b").1, ["ten ten-m", "one one-m", "two two-m"]);
    assert_eq!(members(&config, "c").1, ["one one-m"]);
    assert!(members(&config, "d").1.is_empty());
}

#[test]
fn a_second_model_of_a_server_is_an_upstream_with_the_same_address() {
    let yaml = "
model_list:
  - {model_name: big, litellm_params: {model: ollama/big, api_base: 'http://box:1', max_parallel_requests: 2}}
  - {model_name: small, litellm_params: {model: ollama/small, api_base: 'http://box:1', max_parallel_requests: 3}}
  - {model_name: other, litellm_params: {model: ollama/other, api_base: 'http://box:1'}}
litellm_settings: {default_fallbacks: [small]}
";
    let config = config(yaml);
    assert_eq!(members(&config, "big"), (vec!["box big".to_owned()], vec!["box-2 small".to_owned()]));
    assert_eq!(members(&config, "other").1, ["box-2 small"]);
    let upstreams: Vec<_> =
        config.upstreams.iter().map(|it| (it.name.as_str(), it.url.as_str(), it.max_in_flight)).collect();
    assert_eq!(upstreams, [("box", "http://box:1/v1", Some(3)), ("box-2", "http://box:1/v1", Some(3))]);
}

#[test]
fn a_prompt_that_is_too_long_goes_to_the_next_model_and_nothing_else_does() {
    let yaml = entries(&[
        ("a", "one", ""),
        ("*", "two", ", temperature: 0.5"),
        ("long", "six", ", temperature: 0.1"),
        ("wide", "ten", ""),
    ]);
    let file =
        File::new(&format!("{yaml}litellm_settings: {{context_window_fallbacks: [{{a: [long, wide]}}]}}\n"));
    let too_long = "prompt is too long: 9 tokens > 8 maximum";
    let request = file.request("a[1m]", "one");
    assert_eq!(file.on_error(&request, 400, "messages: empty"), None);
    assert_eq!(file.on_error(&request, 502, "refused"), None);
    let body = file.on_upstream_request(&request, "return {}");
    assert!(body.is_empty());
    assert_eq!(file.on_error(&request, 400, too_long).as_deref(), Some("long"));
    request.set("upstream", "six").unwrap();
    let body = file.on_upstream_request(&request, "return {}");
    assert_eq!(body.get::<f64>("temperature").unwrap(), 0.1);
    assert_eq!(file.on_error(&request, 400, too_long).as_deref(), Some("wide"));
    assert_eq!(file.on_error(&request, 400, too_long), None);
    // A name that no other rule precedes has the pattern's.
    let body = file.on_upstream_request(&file.request("any", "two"), "return {}");
    assert_eq!(body.get::<f64>("temperature").unwrap(), 0.5);
    assert_eq!(file.on_error(&file.request("any", "two"), 400, too_long), None);
}

#[test]
fn a_backup_keeps_the_parameters_of_its_entry() {
    let yaml = entries(&[("a", "one", ", temperature: 0.7"), ("b", "two", ", top_p: 0.9")]);
    let file = File::new(&format!("{yaml}litellm_settings: {{fallbacks: [{{a: [b]}}]}}\n"));
    let body = file.on_upstream_request(&file.request("a", "one"), "return {}");
    assert_eq!((body.get::<f64>("temperature").unwrap(), body.contains_key("top_p").unwrap()), (0.7, false));
    let body = file.on_upstream_request(&file.request("a", "two"), "return {}");
    assert_eq!((body.get::<f64>("top_p").unwrap(), body.contains_key("temperature").unwrap()), (0.9, false));
}

#[test]
fn defaults_yield_to_the_client_and_extra_body_does_not() {
    let file = File::new(
        "
model_list:
  - model_name: a
    litellm_params:
      model: openai/m
      api_base: http://one:1/v1
      temperature: 0.5
      stop: [x, y]
      extra_body: {top_k: 20, chat_template_kwargs: {enable_thinking: false}, empty: []}
",
    );
    let request = file.request("a", "one");
    let body =
        file.on_upstream_request(&request, "return { top_k = 1, chat_template_kwargs = { kept = true } }");
    assert_eq!(body.get::<f64>("temperature").unwrap(), 0.5);
    assert_eq!(body.get::<Vec<String>>("stop").unwrap(), ["x", "y"]);
    assert_eq!(body.get::<i64>("top_k").unwrap(), 20);
    let kwargs: Table = body.get("chat_template_kwargs").unwrap();
    assert!(kwargs.get::<bool>("kept").unwrap() && !kwargs.get::<bool>("enable_thinking").unwrap());
    let body = file.on_upstream_request(&request, "return { temperature = 1.0 }");
    assert_eq!(body.get::<f64>("temperature").unwrap(), 1.0);
    let body = file.on_upstream_request(&file.request("other", "one"), "return {}");
    assert!(body.is_empty());
}

#[test]
fn patterns_fill_in_the_model() {
    let config = config(
        "
model_list:
  - {model_name: '*', litellm_params: {model: openai/*, api_base: 'http://one:1/v1'}}
  - {model_name: 'my/*-v*', litellm_params: {model: 'openai/x-*_*', api_base: 'http://two:1/v1'}}
  - {model_name: fixed, litellm_params: {model: openai/f, api_base: 'http://three:1/v1'}}
  - {model_name: 'a-*-*', litellm_params: {model: 'openai/only-*', api_base: 'http://two:1/v1'}}
",
    );
    for (model, expected) in [
        ("anything", "one anything"),
        ("my/big-v2", "two x-big_2"),
        ("fixed", "three f"),
        ("a-b-c", "two a-b-c"),
    ] {
        assert_eq!(members(&config, model).0, [expected], "{model}");
    }
}

#[test]
fn a_variable_that_is_not_set_costs_one_value_and_is_named_with_its_line() {
    const YAML: &str = "model_list:
- model_name: a
  litellm_params:
    model: openai/m
    api_base: http://one:1/v1
    api_key: none
    top_p: 0.3
    temperature: os.environ/T
    timeout: os.environ/TO
    max_parallel_requests: os.environ/PA
    extra_body:
      list: [os.environ/LX, {deep: os.environ/DX}, x]
      kept: os.environ/K
      tail: 1
      chat_template_kwargs: {kind: os.environ/K}
";
    let import = super::translate(YAML).unwrap();
    let said = import.report.iter().map(|line| format!("{line}\n")).collect::<String>();
    for (variable, line) in [("T", 8), ("TO", 9), ("PA", 10), ("LX", 12), ("DX", 12), ("K", 13)] {
        let named = said.lines().any(|said| {
            said.contains(&format!("line {line}, "))
                && said.contains(&format!("the environment variable {variable} is not set"))
        });
        assert!(named, "{variable}\n{said}");
    }
    assert!(import.summary.iter().any(|line| line.contains("variable T is not set")), "{:?}", import.summary);
    let file = File::new(YAML);
    file.lua.load("env = function(name) return name == 'DX' and 'd' or nil end").exec().unwrap();
    let body = file.on_upstream_request(
        &file.request("a", "one"),
        "return { kept = 'mine', chat_template_kwargs = { kind = 'k' } }",
    );
    assert_eq!(body.get::<f64>("top_p").unwrap(), 0.3);
    assert_eq!(body.get::<i64>("tail").unwrap(), 1);
    assert_eq!(body.get::<String>("kept").unwrap(), "mine");
    assert!(!body.contains_key("temperature").unwrap());
    let kwargs: Table = body.get("chat_template_kwargs").unwrap();
    assert_eq!(kwargs.get::<String>("kind").unwrap(), "k");
    let list: Table = body.get("list").unwrap();
    assert_eq!(list.raw_len(), 2);
    assert_eq!(list.get::<Table>(1).unwrap().get::<String>("deep").unwrap(), "d");
}

#[test]
fn a_default_fallback_answers_for_names_that_are_left_out() {
    for setting in ["default_fallbacks: [local, other]", "fallbacks: [{'*': [local, other]}]"] {
        let mut yaml = entries(&[("local", "one", ""), ("other", "two", ""), ("gpt-*", "six", "")]);
        for name in ["claude-sonnet-4", "claude-sonnet-4", "claude-*", "gpt-4"] {
            yaml.push_str(&format!("- {{model_name: '{name}', litellm_params: {{model: bedrock/x}}}}\n"));
        }
        let yaml = format!("{yaml}litellm_settings: {{{setting}}}\n");
        let config = config(&yaml);
        for name in ["claude-sonnet-4", "claude-opus-4"] {
            let expected = (vec!["one one-m".to_owned()], vec!["two two-m".to_owned()]);
            assert_eq!(members(&config, name), expected, "{setting} {name}");
        }
        assert_eq!(members(&config, "gpt-4").0, ["six six-m"]);
        assert_eq!(members(&config, "other").1, ["one one-m"]);
        let report = super::translate(&yaml).unwrap().report;
        assert!(report.iter().any(|line| line.note.contains("answers for claude-sonnet-4")), "{report:?}");
    }
    // A fallback that is left out itself answers for nothing.
    let yaml = format!(
        "{}- {{model_name: x, litellm_params: {{model: bedrock/x}}}}\nlitellm_settings: {{default_fallbacks: [x, 7, gone]}}\n",
        entries(&[("a", "one", "")])
    );
    assert!(route::find(&config(&yaml).aliases, "x").is_none());
}

#[test]
fn one_variable_for_two_apis_makes_two_upstreams() {
    let yaml = "model_list:
  - model_name: chat
    litellm_params: { model: openai/m, api_base: os.environ/BOX, api_key: none }
  - model_name: messages
    litellm_params: { model: anthropic/m, api_base: os.environ/BOX, api_key: none }
";
    let lua = super::translate(yaml).unwrap().lua;
    let upstreams: Vec<&str> = lua.lines().filter(|line| line.contains("url = env \"BOX\"")).collect();
    assert_eq!(upstreams.len(), 2, "{lua}");
    assert!(!upstreams[0].contains("protocol") && upstreams[1].contains("protocol = \"messages\""), "{lua}");
}

#[test]
fn an_upstream_of_another_protocol_keeps_the_model_of_its_entry() {
    let yaml = "model_list:
  - model_name: a
    litellm_params: { model: anthropic/claude-x, api_base: 'http://one:1', api_key: none }
  - model_name: a
    litellm_params: { model: openai/claude-x, api_base: 'http://two:1/v1', api_key: none }
";
    let config = config(yaml);
    let alias = route::find(&config.aliases, "a").unwrap();
    for member in &alias.members {
        assert_eq!(config.model_of(alias, member), Some("claude-x"), "{member:?}");
    }
    assert_eq!(alias.members.len(), 2);
}

#[test]
fn a_mode_without_a_value_is_reported_as_empty() {
    let yaml = "model_list:
  - model_name: a
    litellm_params: { model: openai/m, api_base: \"http://box:1/v1\", api_key: none }
    model_info: { mode: }
";
    let report = super::translate(yaml).unwrap().report;
    let line = report.iter().find(|line| line.key == "model_list[0].model_info.mode").unwrap();
    assert!(line.note.starts_with("empty: "), "{line}");
}
