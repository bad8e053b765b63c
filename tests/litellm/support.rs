//! A stand-in for sparkgap's Lua, and a second way to read the leaves of the YAML.

use mlua::{Lua, Table, Value};
use saphyr_parser::{Event, Parser};

/// Runs a file as sparkgap would, with `env` and `json`.
pub(crate) fn load(lua: &Lua, text: &str) -> Table {
    let env = lua.create_function(|_, name: String| Ok(format!("http://value-of-{name}/v1"))).unwrap();
    lua.globals().set("env", env).unwrap();
    lua.load("json = { null = {}, array = function(t) return t or {} end }").exec().unwrap();
    lua.load(text).eval().unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Checks that the table has only keys that sparkgap knows, that aliases name existing upstreams, and that addresses
/// are URLs.
pub(crate) fn check_shape(text: &str, case: &str) {
    let lua = Lua::new();
    let table = load(&lua, text);
    for pair in table.pairs::<String, Value>() {
        let (key, value) = pair.unwrap();
        match key.as_str() {
            "api" => assert_eq!(value.as_i64(), Some(1)),
            "upstreams" | "aliases" => assert!(value.is_table(), "{case}: {key}"),
            "on_upstream_request" | "on_error" => {
                assert!(value.is_function(), "{case}: {key}")
            }
            _ => panic!("{case}: unknown key {key}"),
        }
    }
    let upstreams: Table = table.get("upstreams").unwrap();
    for pair in upstreams.pairs::<String, Table>() {
        let (name, upstream) = pair.unwrap();
        assert!(!name.is_empty());
        for pair in upstream.pairs::<String, String>() {
            let (key, value) = pair.unwrap();
            match key.as_str() {
                "max_in_flight" | "window" | "timeout" => {
                    assert!(value.parse::<u32>().is_ok_and(|max| max > 0), "{case}: {value}")
                }
                "url" => assert!(value.starts_with("http"), "{case}: {name}: {value}"),
                "api_key" => {}
                "protocol" => assert_eq!(value, "messages", "{case}: {name}"),
                "flavour" => {
                    assert!(sparkgap::dialect::ServerKind::from_name(&value).is_some(), "{case}: {value}")
                }
                _ => panic!("{case}: {name}: unknown key {key}"),
            }
        }
    }
    let aliases: Vec<Table> =
        table.get::<Table>("aliases").unwrap().sequence_values().map(Result::unwrap).collect();
    assert!(!aliases.is_empty(), "{case}");
    for alias in aliases {
        assert!(sparkgap::route::is_name(&alias.get::<String>(1).unwrap()));
        let mut named = names(alias.get("upstream").unwrap());
        assert!(!named.is_empty(), "{case}: an alias without an upstream");
        named.extend(names(alias.get("backup").unwrap()));
        for (i, upstream) in named.iter().enumerate() {
            assert!(upstreams.contains_key(upstream.as_str()).unwrap(), "{case}: no upstream {upstream}");
            assert!(!named[..i].contains(upstream), "{case}: {upstream} twice");
        }
    }
}

/// The names under `upstream` or `backup`.
fn names(value: Value) -> Vec<String> {
    match value {
        Value::Nil => Vec::new(),
        Value::Table(list) => list
            .sequence_values::<Value>()
            .map(|item| match item.unwrap() {
                Value::Table(item) => item.get(1).unwrap(),
                name => name.to_string().unwrap(),
            })
            .collect(),
        name => vec![name.to_string().unwrap()],
    }
}

/// The paths of all leaves, read from the parser's events without the importer's tree.
pub(crate) fn leaves(yaml: &str) -> Vec<String> {
    let mut events = Parser::new_from_str(yaml).map(|event| event.unwrap().0);
    let mut found = Vec::new();
    while let Some(event) = events.next() {
        if !matches!(
            event,
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::StreamEnd
        ) {
            walk(event, "", &mut events, &mut found);
        }
    }
    found
}

fn walk<'y>(
    event: Event<'y>,
    path: &str,
    events: &mut dyn Iterator<Item = Event<'y>>,
    found: &mut Vec<String>,
) {
    let before = found.len();
    match event {
        Event::MappingStart(..) => loop {
            let key = match events.next().unwrap() {
                Event::MappingEnd => break,
                Event::Scalar(key, ..) => key,
                other => panic!("{other:?}"),
            };
            let path = match (path.is_empty(), key.contains(['.', '[', ']', '"'])) {
                (true, false) => key.to_string(),
                (false, false) => format!("{path}.{key}"),
                (_, true) => format!("{path}[{key:?}]"),
            };
            walk(events.next().unwrap(), &path, events, found);
        },
        Event::SequenceStart(..) => {
            for i in 0.. {
                match events.next().unwrap() {
                    Event::SequenceEnd => break,
                    item => walk(item, &format!("{path}[{i}]"), events, found),
                }
            }
        }
        Event::Scalar(..) => {}
        other => panic!("{other:?}"),
    }
    if found.len() == before {
        found.push(path.to_owned());
    }
}
