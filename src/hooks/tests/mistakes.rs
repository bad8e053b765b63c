//! Mistakes in the owner's files, and the report of each.

use super::*;

/// The report of the mistakes in a file of this text.
fn report(text: &str) -> String {
    let folder = Folder::new(&[("10-test.lua", text)]);
    match Hooks::load(std::slice::from_ref(&folder.0), Vec::new(), options()) {
        Ok(_) => "loaded".to_owned(),
        Err(error) => error.to_string().replace(&format!("{}/", folder.0.display()), ""),
    }
}

/// The text that `UP` stands for in the cases.
const UP: &str = "upstreams = { spark = { url = 'http://a' } }";

/// Each file, and a part of the report on it.
const CASES: &[(&str, &str)] = &[
    ("return {", "10-test.lua:1: unexpected symbol near <eof>"),
    ("return {\n\n  aliases = = 1 }", "10-test.lua:3: unexpected symbol near '='"),
    ("local x = nil\nreturn { api = x.y }", "10-test.lua:2: attempt to index a nil value (local 'x')"),
    ("error('not today')", "10-test.lua:1: not today"),
    ("error({ code = 5 })", "10-test.lua:1: table: 0x"),
    (
        "\nlocal s = ('x'):rep({})",
        "10-test.lua:2: string.rep: attempt to perform arithmetic on a table value",
    ),
    ("while true do end", "10-test.lua:1: time limit: the hook took too long"),
    ("local s = 'x' while true do s = s .. s end", "10-test.lua: not enough memory"),
    ("return 5", "10-test.lua: expected one table to be returned (return { … }), got the number 5"),
    ("x = 1", "10-test.lua: expected one table to be returned (return { … }), got nothing"),
    ("return { api = 2 }", "10-test.lua:1: api: this version of sparkgap has hook API 1, got the number 2"),
    ("return {\n on_requst = print }", "10-test.lua:2: unknown key 'on_requst'; did you mean 'on_request'?"),
    ("return { frobnicate = 1 }", "10-test.lua:1: unknown key 'frobnicate'; known are: api, upstreams,"),
    ("return { 5 }", "10-test.lua: unexpected item [the number 1]: it has named keys only"),
    ("return { upstreams = 'x' }", "10-test.lua:1: upstreams: expected a table of upstreams such as"),
    ("return { upstreams = { 'x' } }", "10-test.lua:1: upstreams: each one has a name"),
    (
        "return { upstreams = {\n spark = 'http://a' } }",
        "10-test.lua:2: upstreams.spark: expected a table such as { url = \"http://…\" }, got the string \"http://a\"",
    ),
    ("return { upstreams = {\n spark = {} } }", "10-test.lua:2: upstreams.spark.url: is missing"),
    (
        "return { upstreams = { spark = {\n url = 5 } } }",
        "10-test.lua:2: upstreams.spark.url: expected a string such as \"http://192.168.68.155:8888/v1\", got the number 5",
    ),
    (
        "return { upstreams = { spark = {\n url = 'a:80' } } }",
        "10-test.lua:2: upstreams.spark.url: \"a:80\" does not begin with http:// or https://",
    ),
    (
        "return { upstreams = { spark = { url = 'http://a',\n modle = 'x' } } }",
        "10-test.lua:2: unknown key in upstreams.spark 'modle'; did you mean 'model'?",
    ),
    (
        "return { upstreams = { spark = { url = 'http://a',\n wake = 'aa:bb:cc:dd:ee' } } }",
        "10-test.lua:2: upstreams.spark.wake: expected the hardware address of its network card, such as \"aa:bb:cc:dd:ee:ff\", \
         or with the address that the packet goes to: \"aa:bb:cc:dd:ee:ff@192.168.68.255:9\", got \"aa:bb:cc:dd:ee\"",
    ),
    (
        "return { upstreams = { spark = { url = 'http://a', wake = true } } }",
        "wake: expected the hardware address",
    ),
    (
        "return { upstreams = { spark = { url = 'http://a', cluster = 'ray' } } }",
        "cluster: expected one of \"llm-d\", \"smg\", \"dynamo\", \"production-stack\", got the string \"ray\"",
    ),
    (
        "return { upstreams = { spark = { url = 'http://a', thinking = 'maybe' } } }",
        "thinking: expected one of \"off\", \"on\", \"auto\", got the string \"maybe\"",
    ),
    (
        "return { upstreams = { spark = { url = 'http://a', max_tokens = '5' } } }",
        "max_tokens: expected a whole number from 1 to 1000000000, got the string \"5\"",
    ),
    (
        "return { upstreams = { spark = { url = 'http://a', max_in_flight = 0 } } }",
        "max_in_flight: expected a whole number from 1 to 4294967295, got the number 0",
    ),
    (
        "return { upstreams = { spark = { url = 'http://a', vision = 1 } } }",
        "vision: expected true or false, got the number 1",
    ),
    (
        "return { upstreams = { spark = { url = 'http://a', flavour = 'vlm' } } }",
        "flavour: expected one of \"vllm\",",
    ),
    (
        "return { upstreams = { spark = { url = 'http://a', headers = { 'x' } } } }",
        "headers: expected a table such as { [\"x-team\"] = \"blue\" }, got the number 1",
    ),
    (
        "return { upstreams = { spark = { url = 'http://a', headers = { host = 'b' } } } }",
        "headers: \"host\": sparkgap sets this header itself",
    ),
    (
        "return { upstreams = { spark = { url = 'http://a', api_key = 'k', headers = { Authorization = 'b' } } } }",
        "headers: \"Authorization\": api_key is sent in this header",
    ),
    (
        "return { upstreams = { spark = { url = 'http://a', headers = { ['X-A'] = 'b', ['x-a'] = 'c' } } } }",
        "it stands twice, as capitals make no difference",
    ),
    (
        "return { upstreams = { spark = { url = 'http://a', headers = { x = ('y'):rep(4097) } } } }",
        "headers: \"x\": its value has 4097 bytes; 4096 is the most",
    ),
    (
        "return { upstreams = { spark = { url = 'http://a',\n http_proxy = 'proxy:3128' } } }",
        "10-test.lua:2: upstreams.spark.http_proxy: expected the address of a proxy",
    ),
    (
        "return { upstreams = { spark = { url = 'http://a', tls_verify = 0 } } }",
        "tls_verify: expected true or false, got the number 0",
    ),
    (
        "return { UP, aliases = { 'x' } }",
        "alias 1: expected { \"pattern\", upstream = \"…\" }, got the string \"x\"",
    ),
    ("return { UP, aliases = { { upstream = 'spark' } } }", "alias 1: its first item is the pattern"),
    (
        "return { UP, aliases = { { 'a ', upstream = 'spark' } } }",
        "alias 1: the pattern \"a \" can match no model name",
    ),
    (
        "return { UP, aliases = {\n { '*', upstrem = 'spark' } } }",
        "10-test.lua:2: unknown key in alias 1 'upstrem'; did you mean 'upstream'?",
    ),
    (
        "return { UP, aliases = {\n { '*', upstream = 'sprk' } } }",
        "10-test.lua:2: alias 1 (\"*\"): no upstream 'sprk'; did you mean 'spark'?",
    ),
    (
        "return { UP, aliases = {\n { '*', upstream = { 'spark', { 'b', modle = 'x' } } } } }",
        "10-test.lua:2: unknown key in an item of upstream 'modle'; did you mean 'model'?",
    ),
    (
        "return { UP, aliases = {\n { '*', upstream = 'spark', backup = { 'spark' } } } }",
        "10-test.lua:2: alias 1.backup: names the upstream 'spark', which `upstream` names already; name it once",
    ),
    ("return { UP, aliases = { { '*', 'spark' } } }", "unexpected item [the number 2] in alias 1"),
    ("return { UP, aliases = { x = {} } }", "aliases: expected a list"),
    (
        "return { UP, on_request = 5 }",
        "on_request: expected a function, or { policy = \"closed\", run = function … end }, got the number 5",
    ),
    ("return { UP, on_request = { policy = 'closed' } }", "on_request.run: expected a function, got nothing"),
    (
        "return { UP, policy = 'shut' }",
        "policy: expected one of \"open\", \"closed\", got the string \"shut\"",
    ),
    ("return { UP, on_event_types = { 5 } }", "on_event_types: expected strings, got the number 5"),
    (
        "return { UP, on_event_types = { 'texts' } }",
        "on_event_types: there is no event type 'texts'; did you mean 'text'?",
    ),
    (
        "return { UP,\n on_load = function(cfg)\n error('no ' .. #cfg.upstreams) end }",
        "10-test.lua:3: on_load: no 1",
    ),
    ("return {}", "10-test.lua: no upstream: give --upstream URL"),
    (
        "local a = require 'x'",
        "10-test.lua:1: attempt to call a nil value (global 'require'); hooks have no modules",
    ),
    ("local f = io.open 'x'", "(global 'io'); hooks have no files"),
    ("local k = os.getenv 'X'", "(field 'getenv'); use env \"NAME\""),
    ("if 1 != 2 then end", "near '!'; Lua writes `~=` for `!=`"),
    ("if a && b then end", "Lua writes `and` for `&&`"),
    (
        "return { UP, aliases = {\n { 'claude-.*haiku.*', upstream = 'spark' } } }",
        "10-test.lua:2: alias 1: the pattern \"claude-.*haiku.*\" is a regular expression, which no name matches; here * alone \
         matches any run of characters: \"claude-*haiku*\"",
    ),
    ("\u{1b}LuaS", "10-test.lua: attempt to load a binary chunk"),
];

#[test]
fn every_mistake_names_file_line_and_expected_form() {
    let mut failures = Vec::new();
    for (text, expected) in CASES {
        let text = text.replace("UP", UP);
        let report = report(&text);
        if !report.contains(expected) {
            failures.push(format!("{text}\n  said: {report}\n  not:  {expected}\n"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let report = report(
        "return { apy = 1,\n upstreams = { a = { url = 'x', vison = true }, b = {} },\n aliases = { {} , { '*', upstream = 5 } },\n on_log = 1 }",
    );
    assert_eq!(report.lines().count(), 7, "{report}");
}

#[test]
fn the_word_for_no_key_excludes_no_other_key() {
    for settings in ["headers = { Authorization = 'Basic b' }", "protocol = 'messages', auth = 'client'"] {
        for key in ["none", ""] {
            let text = format!(
                "return {{ upstreams = {{ spark = {{ url = 'http://a', api_key = '{key}', {settings} }} }} }}"
            );
            assert_eq!(load(&text).unwrap().config.upstreams[0].api_key, None, "{text}");
        }
    }
}

#[test]
fn a_name_is_given_once() {
    let file = "return { upstreams = { spark = { url = 'http://a' } } }";
    let error = load_files(&[("1.lua", file), ("2.lua", file)]).err().unwrap().to_string();
    assert!(
        error.contains("2.lua:1: upstreams.spark: an upstream of this name exists already, from "),
        "{error}"
    );
    assert!(error.ends_with("1.lua; give one of them another name"), "{error}");
}

#[test]
fn a_folder_without_files_and_a_missing_file_are_mistakes() {
    let folder = Folder::new(&[]);
    let load =
        |path: PathBuf| Hooks::load(&[path], vec![upstream("main")], options()).err().unwrap().to_string();
    assert!(load(folder.0.clone()).contains("no *.lua file"));
    assert!(load(folder.0.join("x.lua")).contains("No such file"));
}

#[test]
fn the_default_upstream_is_first() {
    let names = |files: &[(&str, &str)], given: &[&str]| {
        let folder = Folder::new(files);
        let given = given.iter().map(|name| upstream(name)).collect();
        let loaded = Hooks::load(std::slice::from_ref(&folder.0), given, options()).unwrap();
        let names: Vec<String> = loaded.config.upstreams.iter().map(|u| u.name.clone()).collect();
        names.join(" ")
    };
    let two = "upstreams = { b = { url = 'http://b' }, a = { url = 'http://a' } }";
    let plain = format!("return {{ {two} }}");
    let star = format!("return {{ {two}, aliases = {{ {{ '*', upstream = 'b' }} }} }}");
    assert_eq!(names(&[("1.lua", &plain)], &[]), "a b");
    assert_eq!(names(&[("1.lua", &star)], &[]), "b a");
    assert_eq!(names(&[("1.lua", &star)], &["z", "y"]), "z y a b");
    assert_eq!(names(&[("1.lua", "return {}")], &["y", "a"]), "y a");
}
