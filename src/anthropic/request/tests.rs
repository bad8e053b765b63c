//! Tests of the limits of lists, and of the tool changes in system messages.

use super::*;
use crate::json::parse;

/// Reads a request with these members, and returns the number of messages or the error's text.
fn read(members: &str) -> Result<usize, String> {
    let mut bytes = format!(r#"{{"model":"m","max_tokens":9,{members}}}"#).into_bytes();
    let body = parse(&mut bytes).unwrap();
    MessagesRequest::read(&body).map(|request| request.messages.len()).map_err(|error| error.message)
}

fn list_of(n: usize, element: &str) -> String {
    format!("[{}]", vec![element; n].join(","))
}

/// Members that complete a request with one list.
fn with_messages(members: &str) -> String {
    format!(r#""messages":[{{"role":"user","content":"x"}}],{members}"#)
}

fn with_content(n: usize, block: &str) -> String {
    format!(r#""messages":[{{"role":"user","content":{}}}]"#, list_of(n, block))
}

#[test]
fn each_list_is_taken_up_to_its_limit() {
    const MESSAGE: &str = r#"{"role":"user","content":"x"}"#;
    const TEXT: &str = r#"{"type":"text","text":"x"}"#;
    const IMAGE: &str = r#"{"type":"image","source":{"type":"url","url":"x"}}"#;
    const TOOL: &str = r#"{"name":"f","input_schema":{}}"#;
    type Case = (usize, fn(usize) -> String, &'static str);
    let cases: [Case; 5] = [
        (
            MESSAGES_MAX,
            |n| format!(r#""messages":{}"#, list_of(n, MESSAGE)),
            "messages: List should have at most 100000 items after validation, not 100001",
        ),
        (
            CONTENT_BLOCKS_MAX,
            |n| with_content(n, TEXT),
            "messages.0.content: A request should have at most 200000 content blocks",
        ),
        (IMAGES_MAX, |n| with_content(n, IMAGE), "messages: too many images and documents: 601 + 0 > 600"),
        (
            SYSTEM_BLOCKS_MAX,
            |n| with_messages(&format!(r#""system":{}"#, list_of(n, TEXT))),
            "system: List should have at most 10000 items after validation, not 10001",
        ),
        (
            TOOLS_MAX,
            |n| with_messages(&format!(r#""tools":{}"#, list_of(n, TOOL))),
            "tools: List should have at most 10000 items after validation, not 10001",
        ),
    ];
    for (limit, members, error) in cases {
        assert!(read(&members(limit)).is_ok(), "{error}");
        assert_eq!(read(&members(limit + 1)).unwrap_err(), error);
    }
}

#[test]
fn blocks_and_images_are_counted_over_the_whole_request() {
    let image = r#"{"type":"image","source":{"type":"url","url":"x"}}"#;
    let result =
        |n: usize| format!(r#"{{"type":"tool_result","tool_use_id":"i","content":{}}}"#, list_of(n, image));
    let message = |n: usize| format!(r#"{{"role":"user","content":[{image},{}]}}"#, result(n - 1));
    let request = |n: usize| format!(r#""messages":[{},{}]"#, message(300), message(n));
    assert_eq!(read(&request(300)), Ok(2));
    assert_eq!(read(&request(301)).unwrap_err(), "messages: too many images and documents: 601 + 0 > 600");
}

#[test]
fn stop_sequences_have_a_number_and_a_size() {
    let request = |n: usize, size: usize| {
        let sequences: Vec<String> = (0..n).map(|i| format!(r#""{i:0size$}""#)).collect();
        with_messages(&format!(r#""stop_sequences":[{}]"#, sequences.join(",")))
    };
    assert!(read(&request(STOP_SEQUENCES_MAX, 5)).is_ok());
    assert_eq!(
        read(&request(STOP_SEQUENCES_MAX + 1, 5)).unwrap_err(),
        "stop_sequences: List should have at most 2500 items after validation, not 2501"
    );
    assert!(read(&request(4, STOP_SEQUENCES_SIZE_MAX / 4)).is_ok());
    assert_eq!(
        read(&request(4, STOP_SEQUENCES_SIZE_MAX / 4 + 1)).unwrap_err(),
        "stop_sequences: All stop sequences together should have at most 65536 bytes, not 65540"
    );
}

#[test]
fn blank_names_and_ids_are_replaced_for_call_and_result_alike() {
    let mut bytes = br#"{"model":"m","max_tokens":9,"messages":[
        {"role":"assistant","content":[{"type":"tool_use","id":" ","name":""},{"type":"tool_use","id":"a","name":"f"}]},
        {"role":"user","content":[{"type":"tool_result","tool_use_id":""},{"type":"tool_result","tool_use_id":"a"}]}]}"#
        .to_vec();
    let body = parse(&mut bytes).unwrap();
    let request = MessagesRequest::read(&body).unwrap();
    let blocks = request.messages.iter().flat_map(|message| &message.content);
    let names = blocks.map(|block| match block {
        Block::ToolUse { id, name, .. } => format!("{id} {name}"),
        Block::ToolResult(result) => result.id.to_string(),
        _ => String::new(),
    });
    assert_eq!(names.collect::<Vec<_>>(), ["call00000 unnamed_tool", "a f", "call00000", "a"]);
}

#[test]
fn images_in_documents_are_checked_and_counted() {
    let image = r#"{"type":"image","source":{"type":"url","url":"x"}}"#;
    let document = |n: usize, image: &str| {
        let source = format!(r#"{{"type":"content","content":{}}}"#, list_of(n, image));
        format!(r#""messages":[{{"role":"user","content":[{{"type":"document","source":{source}}}]}}]"#)
    };
    assert_eq!(read(&document(IMAGES_MAX, image)), Ok(1));
    assert_eq!(
        read(&document(IMAGES_MAX + 1, image)).unwrap_err(),
        "messages: too many images and documents: 601 + 0 > 600"
    );
    assert_eq!(
        read(&document(1, r#"{"type":"image"}"#)).unwrap_err(),
        "messages.0.content.0.source.content.0.source: Field required"
    );
}

/// The tools in effect. `changes` are applied in order: `+name` adds a definition, `&name` adds a reference, `-name`
/// removes a tool. The description of each definition is its number.
fn in_effect(declared: &str, changes: &str) -> String {
    let tool = |name: &str, number: usize| {
        format!(r#"{{"name":"{name}","description":"{number}","input_schema":{{}}}}"#)
    };
    let tools: Vec<String> = declared.split_whitespace().map(|name| tool(name, 0)).collect();
    let change = |(number, word): (usize, &str)| {
        let (sign, name) = word.split_at(1);
        let reference = format!(r#"{{"type":"tool_reference","name":"{name}"}}"#);
        let (kind, tool) = match sign {
            "+" => ("tool_addition", format!(r#"{{"definition":{}}}"#, tool(name, number + 1))),
            "&" => ("tool_addition", reference),
            _ => ("tool_removal", reference),
        };
        format!(r#"{{"type":"{kind}","tool":{tool}}}"#)
    };
    let changes: Vec<String> = changes.split_whitespace().enumerate().map(change).collect();
    let mut bytes = format!(
        r#"{{"model":"m","max_tokens":9,"tools":[{}],"messages":[{{"role":"user","content":"x"}},{{"role":"system","content":[{}]}}]}}"#,
        tools.join(","),
        changes.join(",")
    )
    .into_bytes();
    let body = parse(&mut bytes).unwrap();
    let request = MessagesRequest::read(&body).unwrap();
    let shown = |tool: &Tool<'_>| format!("{}{}", tool.name, tool.description.unwrap_or_default());
    request.tools.iter().map(shown).collect::<Vec<_>>().join(" ")
}

#[test]
fn tools_are_added_replaced_and_removed_in_order() {
    for (declared, changes, expected) in [
        ("a b", "", "a0 b0"),
        ("a b", "+c", "a0 b0 c1"),
        ("a b", "+a", "a1 b0"),
        ("a b", "-a", "b0"),
        ("a b", "-a &a", "a0 b0"),
        ("a b", "-a +a", "a2 b0"),
        ("a b", "+c +d +c", "a0 b0 c3 d2"),
        ("a b", "-c", "a0 b0"),
        ("a b", "-c +c", "a0 b0 c2"),
        // If tools share a name, an addition replaces the first of them, and a removal removes all.
        ("a b a", "+a", "a1 b0 a0"),
        ("a b a", "-a", "b0"),
        ("", "+a +b -a", "b2"),
    ] {
        assert_eq!(in_effect(declared, changes), expected, "{declared}: {changes}");
    }
}
