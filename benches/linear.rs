//! Every list that a client or an upstream can make long, for counting what its elements cost: `linear` names the cases
//! with their two numbers of elements, `linear NAME COUNT` runs one. `.ci/linear` compares the instructions of both numbers:
//! four times the elements may cost at most five times the instructions.
//!
//! A new list-valued field needs one line in [`REQUESTS`] or [`ANSWERS`].

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on has nothing better to do than to stop"
)]

use std::hint::black_box;

use sparkgap::anthropic::MessagesRequest;
use sparkgap::dialect::ServerKind;
use sparkgap::json::{Document, Parser};
use sparkgap::settings::Settings;
use sparkgap::sse::Decoder;
use sparkgap::translate::{Lessons, MessageFold, MessageStream, Plan, Target, chat_request};

/// The usual number of elements. A list with a limit of its own takes as many as that allows.
const MANY: usize = 40_000;

/// How many times fewer elements the other run has.
const FACTOR: usize = 4;

/// The limits of the Messages request, so that what is within them is measured and not the refusal.
const TOOLS_MAX: usize = 10_000;
const STOP_SEQUENCES_MAX: usize = 2500;
const IMAGES_MAX: usize = 600;
const SYSTEM_BLOCKS_MAX: usize = 10_000;

/// A name, the most elements, and the members of a request that has `n` of them.
type RequestCase = (&'static str, usize, fn(usize) -> String);

/// A name, the most elements, the members of the request, and the events of an answer that has `n` of them.
type AnswerCase = (&'static str, usize, fn(usize) -> String, fn(usize) -> String);

fn join(n: usize, element: impl Fn(usize) -> String) -> String {
    let elements: Vec<String> = (0..n).map(element).collect();
    elements.join(",")
}

/// A conversation of messages that are given as JSON.
fn messages(messages: &str) -> String {
    format!(r#""messages":[{messages}]"#)
}

fn one(role: &str, blocks: &str) -> String {
    format!(r#"{{"role":"{role}","content":[{blocks}]}}"#)
}

/// A user message of these blocks.
fn content(blocks: &str) -> String {
    messages(&one("user", blocks))
}

/// A question, an answer of these blocks, and a user message of those.
fn turn(answer: &str, user: &str) -> String {
    let said = r#"{"role":"user","content":"x"}"#;
    messages(&format!("{said},{},{}", one("assistant", answer), one("user", user)))
}

fn hello(more: &str) -> String {
    format!(r#"{},{more}"#, messages(r#"{"role":"user","content":"x"}"#))
}

fn tool(name: &str) -> String {
    format!(r#"{{"name":"{name}","input_schema":{{"type":"object"}}}}"#)
}

fn tools(n: usize) -> String {
    format!(r#""tools":[{}]"#, join(n, |i| tool(&format!("t{i:07}"))))
}

fn call(id: &str) -> String {
    format!(r#"{{"type":"tool_use","id":"{id}","name":"f","input":{{}}}}"#)
}

fn result(id: &str) -> String {
    format!(r#"{{"type":"tool_result","tool_use_id":"{id}","content":"r"}}"#)
}

fn system_change(block: &str) -> String {
    messages(&format!(r#"{},{{"role":"user","content":"x"}}"#, one("system", block)))
}

const IMAGE: &str = r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}"#;
const TEXT: &str = r#"{"type":"text","text":"y"}"#;

const REQUESTS: &[RequestCase] = &[
    ("messages", MANY, |n| {
        let pair = r#"{"role":"user","content":"x"},{"role":"assistant","content":"y"}"#;
        messages(&format!(r#"{},{{"role":"user","content":"x"}}"#, join(n / 2, |_| pair.to_string())))
    }),
    ("messages_of_the_user", MANY, |n| {
        messages(&join(n, |_| r#"{"role":"user","content":"x"}"#.to_string()))
    }),
    ("messages_of_the_model", MANY, |n| {
        let answers = join(n, |_| r#"{"role":"assistant","content":"y"}"#.to_string());
        messages(&format!(r#"{{"role":"user","content":"x"}},{answers},{{"role":"user","content":"x"}}"#))
    }),
    ("messages_of_the_system", MANY, |n| {
        let system = join(n, |_| r#"{"role":"system","content":"y"}"#.to_string());
        messages(&format!(r#"{{"role":"user","content":"x"}},{system}"#))
    }),
    ("messages_of_the_system_for_a_turn", MANY, |n| {
        let system =
            join(n, |_| r#"{"role":"system","content":"y","clear_at":"next_user_message"}"#.to_string());
        messages(&format!(r#"{{"role":"user","content":"x"}},{system},{{"role":"user","content":"x"}}"#))
    }),
    ("messages_of_model_and_system", MANY, |n| {
        let pair = r#"{"role":"assistant","content":"y"},{"role":"system","content":"y"}"#;
        messages(&format!(r#"{{"role":"user","content":"x"}},{}"#, join(n / 2, |_| pair.to_string())))
    }),
    ("messages_with_calls", MANY, |n| {
        let turns = join(n / 2, |i| {
            let id = format!("i{i:07}");
            format!("{},{}", one("assistant", &call(&id)), one("user", &result(&id)))
        });
        messages(&format!(r#"{{"role":"user","content":"x"}},{turns}"#))
    }),
    ("content", MANY, |n| content(&join(n, |_| TEXT.to_string()))),
    ("content_of_the_model", MANY, |n| turn(&join(n, |_| TEXT.to_string()), TEXT)),
    ("content_thinking", MANY, |n| {
        turn(&join(n, |_| r#"{"type":"thinking","thinking":"y","signature":""}"#.to_string()), TEXT)
    }),
    ("content_unknown", MANY, |n| content(&join(n, |i| format!(r#"{{"type":"k{i}","text":"y"}}"#)))),
    ("content_lost", MANY, |n| {
        content(&format!("{TEXT},{}", join(n, |i| format!(r#"{{"type":"k{i:07}"}}"#))))
    }),
    ("content_images", IMAGES_MAX, |n| content(&join(n, |_| IMAGE.to_string()))),
    ("content_images_refused", MANY, |n| content(&join(n, |_| IMAGE.to_string()))),
    ("content_documents", MANY, |n| {
        content(&join(n, |_| r#"{"type":"document","source":{"type":"text","data":"y"}}"#.to_string()))
    }),
    ("document_content", MANY, |n| {
        let inside = join(n, |i| if i.is_multiple_of(2) { TEXT.to_string() } else { IMAGE.to_string() });
        content(&format!(r#"{{"type":"document","source":{{"type":"content","content":[{inside}]}}}}"#))
    }),
    ("search_result_content", MANY, |n| {
        let inside = join(n, |_| TEXT.to_string());
        content(&format!(r#"{{"type":"search_result","title":"t","source":"s","content":[{inside}]}}"#))
    }),
    ("server_tool_result_content", MANY, |n| {
        let inside = join(n, |_| r#"{"title":"t","url":"u"}"#.to_string());
        turn(&format!(r#"{{"type":"web_search_tool_result","content":[{inside}]}}"#), TEXT)
    }),
    ("compactions", MANY, |n| turn(&join(n, |_| r#"{"type":"compaction","content":"y"}"#.to_string()), TEXT)),
    ("calls_and_results", MANY, |n| {
        let id = |i: usize| format!("i{i:07}");
        turn(&join(n, |i| call(&id(i))), &join(n, |i| result(&id(i))))
    }),
    ("calls_and_results_reversed", MANY, |n| {
        let id = |i: usize| format!("i{i:07}");
        turn(&join(n, |i| call(&id(i))), &join(n, |i| result(&id(n - 1 - i))))
    }),
    ("calls_and_other_results", MANY, |n| {
        turn(&join(n, |i| call(&format!("j{i:07}"))), &join(n, |i| result(&format!("i{i:07}"))))
    }),
    ("calls_of_one_id", MANY, |n| turn(&join(n, |_| call("i")), &join(n, |_| result("i")))),
    ("calls_of_one_id_and_a_long_result", MANY, |n| {
        let long = format!(r#"{{"type":"tool_result","tool_use_id":"i","content":"{}"}}"#, "r".repeat(n));
        turn(&join(n, |_| call("i")), &long)
    }),
    ("results_without_calls", MANY, |n| content(&join(n, |i| result(&format!("i{i:07}"))))),
    ("results_of_the_model", MANY, |n| {
        let id = |i: usize| format!("i{i:07}");
        let blocks = join(n, |i| format!("{},{}", call(&id(i)), result(&id(i))));
        turn(&blocks, TEXT)
    }),
    ("calls_without_results", MANY, |n| {
        messages(&format!(
            r#"{{"role":"user","content":"x"}},{}"#,
            one("assistant", &join(n, |i| call(&format!("i{i:07}"))))
        ))
    }),
    ("result_content", MANY, |n| {
        let inside = join(n, |_| TEXT.to_string());
        turn(&call("i"), &format!(r#"{{"type":"tool_result","tool_use_id":"i","content":[{inside}]}}"#))
    }),
    ("result_images_and_a_long_id", IMAGES_MAX, |n| {
        let (id, inside) = ("i".repeat(20 * n), join(n, |_| IMAGE.to_string()));
        turn(&call(&id), &format!(r#"{{"type":"tool_result","tool_use_id":"{id}","content":[{inside}]}}"#))
    }),
    ("call_input", MANY, |n| {
        let input = join(n, |i| format!(r#""k{i:07}":{i}"#));
        let block = format!(r#"{{"type":"tool_use","id":"i","name":"f","input":{{{input}}}}}"#);
        turn(&block, &result("i"))
    }),
    ("call_input_of_one_key", MANY, |n| {
        let input = join(n, |i| format!(r#""k":{i}"#));
        let block = format!(r#"{{"type":"tool_use","id":"i","name":"f","input":{{{input}}}}}"#);
        turn(&block, &result("i"))
    }),
    ("system", SYSTEM_BLOCKS_MAX, |n| hello(&format!(r#""system":[{}]"#, join(n, |_| TEXT.to_string())))),
    ("tools", TOOLS_MAX, |n| hello(&tools(n))),
    ("tools_refused", MANY, |n| hello(&tools(n))),
    ("tools_of_one_name", TOOLS_MAX, |n| hello(&format!(r#""tools":[{}]"#, join(n, |_| tool("f"))))),
    ("tools_and_a_choice", TOOLS_MAX, |n| {
        let name = format!("t{:07}", n - 1);
        hello(&format!(r#"{},"tool_choice":{{"type":"tool","name":"{name}"}}"#, tools(n)))
    }),
    ("server_tools", TOOLS_MAX, |n| {
        let server = join(n, |i| format!(r#"{{"type":"web_{i:07}","name":"w{i}"}}"#));
        hello(&format!(r#""tools":[{},{server}]"#, tool("f")))
    }),
    ("tool_additions", TOOLS_MAX, |n| {
        let added = |i: usize| {
            let definition = tool(&format!("t{i:07}"));
            format!(r#"{{"type":"tool_addition","tool":{{"definition":{definition}}}}}"#)
        };
        system_change(&join(n, added))
    }),
    ("tool_additions_of_one_name", MANY, |n| {
        let block = format!(r#"{{"type":"tool_addition","tool":{{"definition":{}}}}}"#, tool("f"));
        system_change(&join(n, |_| block.clone()))
    }),
    ("tool_removals", MANY, |n| {
        let removed = |i: usize| {
            format!(r#"{{"type":"tool_removal","tool":{{"type":"tool_reference","name":"t{i:07}"}}}}"#)
        };
        format!("{},{}", system_change(&join(n, removed)), tools(n.min(TOOLS_MAX)))
    }),
    ("tool_changes", MANY, |n| {
        let change = |i: usize| {
            let kind = if i.is_multiple_of(2) { "removal" } else { "addition" };
            let name = i / 2;
            format!(r#"{{"type":"tool_{kind}","tool":{{"type":"tool_reference","name":"t{name:07}"}}}}"#)
        };
        content(&format!(
            r#"{{"type":"compaction","content":"s","tool_changes":[{}]}},{TEXT}"#,
            join(n, change)
        ))
    }),
    ("tool_properties", MANY, |n| {
        let properties = join(n, |i| format!(r#""k{i:07}":{{"type":"integer"}}"#));
        let schema = format!(r#"{{"type":"object","properties":{{{properties}}}}}"#);
        hello(&format!(r#""tools":[{{"name":"f","input_schema":{schema}}}]"#))
    }),
    ("tool_types", MANY, |n| {
        let types = join(n, |_| r#""integer""#.to_string());
        let schema = format!(r#"{{"type":"object","properties":{{"k":{{"type":[{types}]}}}}}}"#);
        hello(&format!(r#""tools":[{{"name":"f","input_schema":{schema}}}]"#))
    }),
    ("tool_examples", MANY, |n| {
        let examples = join(n, |i| format!(r#"{{"k":{i}}}"#));
        hello(&format!(r#""tools":[{{"name":"f","input_schema":{{}},"input_examples":[{examples}]}}]"#))
    }),
    ("stop_sequences", STOP_SEQUENCES_MAX, |n| {
        hello(&format!(r#""stop_sequences":[{}]"#, join(n, |i| format!(r#""{i:07}""#))))
    }),
    ("stop_sequences_refused", MANY, |n| {
        hello(&format!(r#""stop_sequences":[{}]"#, join(n, |i| format!(r#""{i:07}""#))))
    }),
    ("chat_template_kwargs", MANY, |n| {
        hello(&format!(r#""chat_template_kwargs":{{{}}}"#, join(n, |i| format!(r#""k{i:07}":0"#))))
    }),
    ("chat_template_kwargs_of_one_key", MANY, |n| {
        hello(&format!(r#""chat_template_kwargs":{{{}}}"#, join(n, |i| format!(r#""k":{i}"#))))
    }),
    ("logit_bias", MANY, |n| hello(&format!(r#""logit_bias":{{{}}}"#, join(n, |i| format!(r#""{i}":1"#))))),
    ("response_schema", MANY, |n| {
        let properties = join(n, |i| format!(r#""k{i:07}":{{"type":"integer"}}"#));
        let schema = format!(r#"{{"type":"object","properties":{{{properties}}}}}"#);
        hello(&format!(r#""output_config":{{"format":{{"type":"json_schema","schema":{schema}}}}}"#))
    }),
    ("unknown_members", MANY, |n| hello(&join(n, |i| format!(r#""k{i:07}":0"#)))),
    ("repeated_members", MANY, |n| hello(&join(n, |_| r#""stream":true"#.to_string()))),
];

/// One event of an answer.
fn event(delta: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{{delta}}},\"finish_reason\":null}}]}}\n\n")
}

fn events(n: usize, delta: impl Fn(usize) -> String) -> String {
    (0..n).map(|i| event(&delta(i))).collect()
}

fn call_piece(inside: &str) -> String {
    format!(r#""tool_calls":[{{{inside}}}]"#)
}

/// The beginning of a call of `f`, whose arguments stay within a string.
fn open_call() -> String {
    event(&call_piece(r#""index":0,"id":"c","function":{"name":"f","arguments":"{\"k\":\""}"#))
}

fn plain(_: usize) -> String {
    hello(&format!(r#""tools":[{}]"#, tool("f")))
}

fn with_stop_sequences(_: usize) -> String {
    hello(&format!(
        r#""stop_sequences":[{}]"#,
        join(STOP_SEQUENCES_MAX, |i| format!(r#""{}{i:04}""#, "ab".repeat(8)))
    ))
}

fn with_a_long_stop_sequence(_: usize) -> String {
    hello(&format!(r#""stop_sequences":["{}b"]"#, "a".repeat(60_000)))
}

fn with_many_tools(_: usize) -> String {
    hello(&tools(TOOLS_MAX))
}

fn with_many_properties(n: usize) -> String {
    let properties = join(n, |i| format!(r#""k{i:07}":{{"type":"integer"}}"#));
    let schema = format!(r#"{{"type":"object","properties":{{{properties}}}}}"#);
    hello(&format!(r#""tools":[{{"name":"f","input_schema":{schema}}}]"#))
}

/// The client's own beginning of the answer, which llama.cpp repeats.
fn with_a_beginning(n: usize) -> String {
    messages(&format!(
        r#"{{"role":"user","content":"x"}},{{"role":"assistant","content":"{}"}}"#,
        "word ".repeat(n)
    ))
}

fn with_one_tool(_: usize) -> String {
    hello(&tools(1))
}

/// The beginning of a call in text, whose argument has not come.
const HALF_CALL: &str = r#"<tool_call>{\"name\":\"t0000000\",\"arguments\":{\"k\":"#;

/// Text that begins like this, then the same piece many times.
fn texts(begin: &str, n: usize, piece: &str) -> String {
    let text = |text: &str| format!(r#""content":"{text}""#);
    event(&text(begin)) + &events(n, |_| text(piece))
}

const ANSWERS: &[AnswerCase] = &[
    ("answer_text", MANY, plain, |n| events(n, |_| r#""content":"word ""#.to_string())),
    ("answer_text_among_stop_sequences", MANY, with_stop_sequences, |n| {
        events(n, |_| format!(r#""content":"{}""#, "ab".repeat(9)))
    }),
    ("answer_text_within_a_stop_sequence", MANY, with_a_long_stop_sequence, |n| {
        events(n, |_| r#""content":"aaaa""#.to_string())
    }),
    ("answer_white_space", MANY, plain, |n| events(n, |_| r#""content":" \n""#.to_string())),
    ("answer_repeats_the_beginning", MANY, with_a_beginning, |n| {
        events(n, |_| r#""content":"word ""#.to_string())
    }),
    ("answer_repeats_the_white_space", MANY, with_a_beginning, |n| {
        events(n, |_| r#""content":"  ""#.to_string())
    }),
    ("answer_blocks", MANY, plain, |n| {
        events(n, |i| format!(r#""{}":"word""#, if i.is_multiple_of(2) { "content" } else { "reasoning" }))
    }),
    ("answer_reasoning", MANY, plain, |n| events(n, |_| r#""reasoning":"word ""#.to_string())),
    ("answer_reasoning_between_marks", MANY, plain, |n| {
        event(r#""content":"<think>""#) + &events(n, |_| r#""content":"</thin""#.to_string())
    }),
    ("answer_refusal", MANY, plain, |n| events(n, |_| r#""refusal":"word ""#.to_string())),
    ("answer_calls", MANY, plain, |n| {
        events(n, |i| {
            call_piece(&format!(r#""index":{i},"id":"c{i}","function":{{"name":"f","arguments":"{{}}"}}"#))
        })
    }),
    ("answer_calls_without_index", MANY, plain, |n| {
        events(n, |i| call_piece(&format!(r#""id":"c{i}","function":{{"name":"f","arguments":"{{}}"}}"#)))
    }),
    ("answer_calls_in_turns", MANY, plain, |n| {
        events(n, |i| {
            call_piece(&format!(
                r#""index":{},"function":{{"name":"f","arguments":"{}"}}"#,
                i % 256,
                if i < 256 { r#"{\"k\":\""# } else { "abc" }
            ))
        })
    }),
    ("answer_calls_without_a_name", MANY, plain, |n| {
        events(n, |i| call_piece(&format!(r#""index":{i},"function":{{"arguments":"{{"}}"#)))
    }),
    ("answer_calls_in_one_event", MANY, plain, |n| {
        let calls = join(n, |i| {
            format!(r#"{{"index":{i},"id":"c{i}","function":{{"name":"f","arguments":"{{}}"}}}}"#)
        });
        event(&format!(r#""tool_calls":[{calls}]"#))
    }),
    ("answer_texts_in_one_event", MANY, plain, |n| {
        event(&format!(r#""content":[{}]"#, join(n, |_| TEXT.to_string())))
    }),
    ("answer_text_with_tags", MANY, with_one_tool, |n| texts("word ", n, "<tool_call>")),
    ("answer_text_with_other_tags", MANY / 2, with_one_tool, |n| {
        texts("word ", n, "<tool_call>word <invoke ")
    }),
    ("answer_text_with_parts_of_tags", MANY, with_one_tool, |n| texts("word ", n, "<tool_cal")),
    ("answer_text_with_one_bracket", MANY, with_one_tool, |n| texts("word ", n, "[<[<[<[<")),
    ("answer_text_with_names", MANY / 2, with_many_tools, |n| texts("word ", n, "<function=t0009999:")),
    ("answer_half_call", MANY, with_one_tool, |n| texts(&format!("{HALF_CALL}\\\""), n, "<tool_call>word ")),
    ("answer_half_call_nested", MANY, with_one_tool, |n| texts(HALF_CALL, n, "[[{\\\"k\\\":")),
    ("answer_half_call_of_members", MANY, with_one_tool, |n| {
        texts("<tool_call><function=t0000000>", n, "<parameter=k>v</parameter>")
    }),
    ("answer_half_call_of_text", MANY, with_one_tool, |n| {
        texts("<tool_call><function=t0000000><parameter=k>", n, "</parameter")
    }),
    ("answer_half_call_of_python", MANY, with_one_tool, |n| texts("[t0000000(k=", n, "[(")),
    ("answer_calls_in_text", MANY / 2, with_one_tool, |n| {
        texts("word ", n, &format!("{HALF_CALL}1}}}}</tool_call>"))
    }),
    ("answer_choices", MANY, plain, |n| {
        format!(
            "data: {{\"choices\":[{}]}}\n\n",
            join(n, |i| format!(r#"{{"index":{},"delta":{{}}}}"#, i + 1))
        )
    }),
    ("answer_name_in_pieces", MANY, with_many_tools, |n| {
        let first = event(&call_piece(r#""index":0,"id":"c","function":{"name":"t"}"#));
        let piece = |i: usize| call_piece(&format!(r#""index":0,"function":{{"name":"{}"}}"#, i % 10));
        first + &events(n, piece)
    }),
    ("answer_calls_among_many_tools", MANY, with_many_tools, |n| {
        let name = TOOLS_MAX - 1;
        events(n, |i| {
            call_piece(&format!(
                r#""index":{i},"id":"c{i}","function":{{"name":"t{name:07}","arguments":"{{}}"}}"#
            ))
        })
    }),
    ("answer_arguments", MANY, plain, |n| {
        open_call() + &events(n, |_| call_piece(r#""index":0,"function":{"arguments":"word "}"#))
    }),
    ("answer_arguments_with_text", MANY, plain, |n| {
        let held =
            |i: usize| format!(r#""{}":"word""#, if i.is_multiple_of(2) { "content" } else { "reasoning" });
        open_call() + &events(n, held)
    }),
    ("answer_argument_members", MANY, with_many_properties, |n| {
        let begin =
            event(&call_piece(r#""index":0,"id":"c","function":{"name":"f","arguments":"{\"k\":1"}"#));
        let member =
            |i: usize| call_piece(&format!(r#""index":0,"function":{{"arguments":",\"k{i:07}\":\"{i}\""}}"#));
        begin + &events(n, member) + &event(&call_piece(r#""index":0,"function":{"arguments":"}"}"#))
    }),
    ("answer_arguments_as_an_object", MANY, plain, |n| {
        let members = join(n, |i| format!(r#""k{i}":{i}"#));
        event(&call_piece(&format!(
            r#""index":0,"id":"c","function":{{"name":"f","arguments":{{{members}}}}}"#
        )))
    }),
    ("answer_arguments_after_the_end", MANY, plain, |n| {
        let whole =
            event(&call_piece(r#""index":0,"id":"c","function":{"name":"f","arguments":"{\"k\":1}"}"#));
        whole + &events(n, |_| call_piece(r#""index":0,"function":{"arguments":"{\"k\":1}"}"#))
    }),
    ("answer_usage", MANY, plain, |n| {
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":9}}\n\n".repeat(n)
    }),
    ("answer_finish", MANY, plain, |n| {
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n".repeat(n)
    }),
    ("answer_finish_among_stop_sequences", MANY, with_stop_sequences, |n| {
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\",\"stop_reason\":\"x\"}]}\n\n"
            .repeat(n)
    }),
    ("answer_comments", MANY, plain, |n| ": ping\n\n".repeat(n)),
    ("answer_lines_of_one_event", MANY, plain, |n| {
        format!("data: {{\"choices\":[\n{}data: ]}}\n\n", "data:  \n".repeat(n))
    }),
];

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(name) = arguments.next() else { return list() };
    let count: usize = arguments.next().unwrap().parse().unwrap();
    if let Some((.., members)) = REQUESTS.iter().find(|(known, ..)| *known == name) {
        // The one that takes most, and the one whose tools are renamed.
        let flavours = [ServerKind::Vllm, ServerKind::OpenAi];
        measured(Work::Requests(flavours.map(|flavour| (body(&members(count)), flavour)).into()));
    } else {
        let (.., members, events) = ANSWERS.iter().find(|(known, ..)| *known == name).unwrap();
        let plan = plan(&body(&members(count)));
        measured(Work::Answer(Box::new(plan), events(count)));
    }
}

fn list() {
    let requests = REQUESTS.iter().map(|(name, many, _)| (name, many));
    for (name, many) in requests.chain(ANSWERS.iter().map(|(name, many, ..)| (name, many))) {
        println!("{name} {} {many}", many / FACTOR);
    }
}

fn body(members: &str) -> Vec<u8> {
    format!(r#"{{"model":"m","max_tokens":100,{members}}}"#).into_bytes()
}

enum Work {
    Requests(Vec<(Vec<u8>, ServerKind)>),
    Answer(Box<Plan>, String),
}

/// The only function whose instructions are counted: `.ci/linear` knows it by this name.
#[inline(never)]
fn measured(work: Work) {
    match work {
        Work::Requests(requests) => {
            for (body, flavour) in requests {
                black_box(translate(body, flavour));
            }
        }
        Work::Answer(plan, answer) => _ = black_box(relay(*plan, &answer)),
    }
}

/// A request's way: parse, read, translate, write. One that is refused ends where it is refused.
fn translate(body: Vec<u8>, flavour: ServerKind) -> Vec<u8> {
    let mut out = Vec::new();
    let mut document = Document::from(body);
    let body = document.parse().unwrap();
    let settings = Settings::default();
    let target =
        Target { model: "m", flavour, window: None, lessons: Lessons::default(), settings: &settings };
    if let Ok(request) = MessagesRequest::read(&body)
        && let Ok(chat) = chat_request(&request, &target)
    {
        chat.body.write(&mut out);
        black_box(chat.plan);
    }
    out
}

fn plan(body: &[u8]) -> Plan {
    let mut document = Document::from(body.to_vec());
    let body = document.parse().unwrap();
    let settings = Settings::default();
    let target = Target {
        model: "m",
        flavour: ServerKind::LlamaCpp,
        window: None,
        lessons: Lessons::default(),
        settings: &settings,
    };
    chat_request(&MessagesRequest::read(&body).unwrap(), &target).unwrap().plan
}

/// An answer's way, to a client that streams and to one that does not.
fn relay(plan: Plan, answer: &str) -> Vec<u8> {
    let mut stream = MessageStream::new(plan, "msg_000000000000000000000000".to_string());
    let (mut decoder, mut parser) = (Decoder::default(), Parser::default());
    let (mut out, mut fold) = (Vec::new(), MessageFold::default());
    let ends =
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    for piece in answer.as_bytes().chunks(8192).chain([ends.as_bytes()]) {
        decoder.feed(piece);
        while let Some(event) = decoder.next_event().unwrap() {
            let _ = stream.data(&mut parser, event.data, event.is_error, &mut |event| {
                event.encode(&mut out);
                fold.event(event);
            });
        }
        out.clear();
    }
    stream
        .end(&mut |event| {
            event.encode(&mut out);
            fold.event(event);
        })
        .unwrap();
    fold.finish(&mut out);
    out
}
