//! The effect of the written hooks on requests.

use std::collections::BTreeMap;

use mlua::{Function, Lua, Table, Value};

use sparkgap::hash::Fnv;

use super::support;

struct File {
    lua: Lua,
    table: Table,
}

/// The upstream and the model that a hook chose, if it did.
type Choice = Option<(String, Option<String>)>;

impl File {
    fn new(yaml: &str) -> File {
        let lua = Lua::new();
        let hash = lua.create_function(|_, text: String| Ok(Fnv::EMPTY.push(text.as_bytes()).mixed() >> 32));
        lua.globals().set("hash", hash.unwrap()).unwrap();
        let table = support::load(&lua, &super::translate(yaml).unwrap().lua);
        File { lua, table }
    }

    fn request(&self, model: &str, session: &str) -> Table {
        let request = self.lua.create_table().unwrap();
        request.set("model", model).unwrap();
        request.set("session", session).unwrap();
        request.set("client_ip", "10.0.0.7").unwrap();
        request.set("ctx", self.lua.create_table().unwrap()).unwrap();
        request
    }

    fn choice(value: &Value) -> Choice {
        let table = value.as_table()?;
        Some((table.get("upstream").unwrap(), table.get("model").unwrap()))
    }

    fn on_request(&self, request: &Table) -> Choice {
        let hook: Function = self.table.get("on_request").unwrap();
        Self::choice(&hook.call(request).unwrap())
    }

    fn on_error(&self, request: &Table, status: u16, message: &str) -> Option<String> {
        let error = self.lua.create_table().unwrap();
        error.set("status", status).unwrap();
        error.set("message", message).unwrap();
        let hook: Function = self.table.get("on_error").unwrap();
        Self::choice(&hook.call((error, request)).unwrap()).map(|(upstream, _)| upstream)
    }

    fn on_upstream_request(&self, request: &Table, body: &str) -> Table {
        let body: Table = self.lua.load(body).eval().unwrap();
        let hook: Function = self.table.get("on_upstream_request").unwrap();
        hook.call::<()>((&body, request)).unwrap();
        body
    }
}

const TWO: &str = "
model_list:
  - {model_name: a, litellm_params: {model: openai/big, api_base: 'http://one:1/v1', weight: 3}}
  - {model_name: a, litellm_params: {model: openai/small, api_base: 'http://two:1/v1', weight: 1, temperature: 0.5}}
  - {model_name: b, litellm_params: {model: openai/last, api_base: 'http://three:1/v1'}}
  - {model_name: long, litellm_params: {model: openai/wide, api_base: 'http://four:1/v1'}}
litellm_settings:
  fallbacks: [{a: [b]}]
  context_window_fallbacks: [{a: [long]}]
";

#[test]
fn sessions_are_shared_out_by_weight_and_stay() {
    let file = File::new(TWO);
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for i in 0..4000 {
        let request = file.request("a", &format!("0b6d9c1e-{i:04x}-4f0e-9a51-{:012x}", i * 7919));
        let choice = file.on_request(&request).unwrap();
        assert_eq!(file.on_request(&request).unwrap(), choice);
        assert_eq!(choice.1.as_deref(), Some(if choice.0 == "one" { "big" } else { "small" }));
        *counts.entry(choice.0).or_default() += 1;
    }
    assert!((2800..3200).contains(&counts["one"]), "{counts:?}");
    assert_eq!(counts["one"] + counts["two"], 4000);
    assert_eq!(file.on_request(&file.request("unknown", "s")), None);
}

/// Sessions that are addresses of a LAN: with plain FNV-1a, 30 of them went to one of two equal boxes.
#[test]
fn sessions_that_differ_in_their_last_digits_are_shared_out() {
    let file = File::new(&TWO.replace("weight: 3", "weight: 1"));
    let to_one = |i| file.on_request(&file.request("a", &format!("192.168.68.{i}"))).unwrap().0 == "one";
    let count = (10..40).filter(|i| to_one(*i)).count();
    assert!((9..=21).contains(&count), "{count} of 30");
}

#[test]
fn errors_go_through_the_group_and_its_fallbacks_once() {
    let file = File::new(TWO);
    let request = file.request("a", "some session");
    let (first, _) = file.on_request(&request).unwrap();
    let second = file.on_error(&request, 502, "refused").unwrap();
    assert_ne!(first, second);
    assert_eq!(file.on_error(&request, 429, "busy").as_deref(), Some("three"));
    let body = file.on_upstream_request(&request, "return { model = 'x' }");
    assert_eq!(body.get::<String>("model").unwrap(), "last");
    assert_eq!(file.on_error(&request, 502, "refused"), None);
}

#[test]
fn a_wrong_request_is_not_tried_elsewhere_but_a_long_one_is() {
    let file = File::new(TWO);
    let request = file.request("a", "s");
    assert_eq!(file.on_error(&request, 400, "messages: empty"), None);
    assert_eq!(
        file.on_error(&request, 400, "prompt is too long: 9 tokens > 8 maximum").as_deref(),
        Some("four")
    );
    let body = file.on_upstream_request(&request, "return { model = 'x' }");
    assert_eq!(body.get::<String>("model").unwrap(), "wide");
    assert_eq!(file.on_error(&request, 400, "prompt is too long: 9 tokens > 8 maximum"), None);
    // A group without such fallbacks has the general ones.
    let request = file.request("b", "s");
    assert_eq!(file.on_error(&request, 400, "prompt is too long: 9 tokens > 8 maximum"), None);
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
    let request = file.request("a", "s");
    let body =
        file.on_upstream_request(&request, "return { top_k = 1, chat_template_kwargs = { kept = true } }");
    assert_eq!(body.get::<f64>("temperature").unwrap(), 0.5);
    assert_eq!(body.get::<Vec<String>>("stop").unwrap(), ["x", "y"]);
    assert_eq!(body.get::<i64>("top_k").unwrap(), 20);
    let kwargs: Table = body.get("chat_template_kwargs").unwrap();
    assert!(kwargs.get::<bool>("kept").unwrap() && !kwargs.get::<bool>("enable_thinking").unwrap());
    let body = file.on_upstream_request(&request, "return { temperature = 1.0 }");
    assert_eq!(body.get::<f64>("temperature").unwrap(), 1.0);
    let body = file.on_upstream_request(&file.request("other", "s"), "return {}");
    assert!(body.is_empty());
}

#[test]
fn patterns_fill_in_the_model() {
    let file = File::new(
        "
model_list:
  - {model_name: '*', litellm_params: {model: openai/*, api_base: 'http://one:1/v1'}}
  - {model_name: 'my/*-v*', litellm_params: {model: 'openai/x-*_*', api_base: 'http://two:1/v1'}}
  - {model_name: fixed, litellm_params: {model: openai/f, api_base: 'http://three:1/v1'}}
  - {model_name: 'a-*-*', litellm_params: {model: 'openai/only-*', api_base: 'http://two:1/v1'}}
",
    );
    for (model, upstream, expected) in [
        ("anything", "one", "anything"),
        ("my/big-v2", "two", "x-big_2"),
        ("fixed", "three", "f"),
        ("a-b-c", "two", "a-b-c"),
    ] {
        let choice = file.on_request(&file.request(model, "s"));
        assert_eq!(choice, Some((upstream.to_owned(), Some(expected.to_owned()))), "{model}");
    }
}
