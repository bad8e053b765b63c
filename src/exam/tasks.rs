//! The table of tasks: three of each kind. Each can be solved by any model that follows a plain instruction, so a failure
//! tells of the way between model and client, or of a model that is too weak for such work.

use super::task::AimValue::{Count, Has, Is};
use super::task::ExamAim::{Calls, Json, StopsBefore, Text};
use super::task::ExamTask;

/// The number of tasks.
pub const TASK_COUNT: usize = 30;

const ONE: &str = "one call";
const PARALLEL: &str = "parallel calls";
const NESTED: &str = "nested arguments";
const QUOTES: &str = "quotes and newlines";
const ERROR: &str = "after an error";
const THINKING: &str = "with thinking";
const HISTORY: &str = "long history";
const NONE: &str = "no call";
const OUTPUT: &str = "structured output";
const STOP: &str = "stop";

/// Members of requests in which the model thinks.
const THINKS: &str = r#","thinking":{"type":"adaptive"},"output_config":{"effort":"low"}"#;

/// A task with a question alone.
const fn ask(
    name: &'static str,
    kind: &'static str,
    messages: &'static str,
    expected: super::task::ExamAim,
) -> ExamTask {
    ExamTask { name, kind, messages, earlier_turns: 0, more: "", expected }
}

/// The same task behind this many turns of work.
const fn behind(earlier_turns: usize, task: ExamTask) -> ExamTask {
    ExamTask { earlier_turns, ..task }
}

/// The same task with further members of the request.
const fn with(more: &'static str, task: ExamTask) -> ExamTask {
    ExamTask { more, ..task }
}

/// All tasks.
pub(super) const TASKS: [ExamTask; TASK_COUNT] = [
    ask(
        "read",
        ONE,
        r#"{"role":"user","content":"Read the file /srv/app/main.rs with the Read tool."}"#,
        Calls(&[("Read", &[("file_path", Is(r#""/srv/app/main.rs""#))])]),
    ),
    ask(
        "command",
        ONE,
        r#"{"role":"user","content":"Run the command `git status --short` with the Bash tool."}"#,
        Calls(&[("Bash", &[("command", Has("git status --short"))])]),
    ),
    ask(
        "number",
        ONE,
        r#"{"role":"user","content":"Read lines 120 to 139 of /srv/app/log.txt: call Read with offset 120 and limit 20."}"#,
        Calls(&[(
            "Read",
            &[("file_path", Is(r#""/srv/app/log.txt""#)), ("offset", Is("120")), ("limit", Is("20"))],
        )]),
    ),
    ask(
        "two-reads",
        PARALLEL,
        r#"{"role":"user","content":"Read /srv/a.txt and /srv/b.txt. Call the Read tool twice in one answer, in parallel."}"#,
        Calls(&[
            ("Read", &[("file_path", Is(r#""/srv/a.txt""#))]),
            ("Read", &[("file_path", Is(r#""/srv/b.txt""#))]),
        ]),
    ),
    ask(
        "three-reads",
        PARALLEL,
        r#"{"role":"user","content":"Read /x/1.md, /x/2.md and /x/3.md. Make all three calls of the Read tool at once, in one answer."}"#,
        Calls(&[
            ("Read", &[("file_path", Is(r#""/x/1.md""#))]),
            ("Read", &[("file_path", Is(r#""/x/2.md""#))]),
            ("Read", &[("file_path", Is(r#""/x/3.md""#))]),
        ]),
    ),
    ask(
        "two-tools",
        PARALLEL,
        r#"{"role":"user","content":"In one answer, make two calls in parallel: Grep for the pattern TODO, and Bash with the command `date`."}"#,
        Calls(&[("Grep", &[("pattern", Is(r#""TODO""#))]), ("Bash", &[("command", Has("date"))])]),
    ),
    ask(
        "todos",
        NESTED,
        r#"{"role":"user","content":"Call TodoWrite with exactly two todos: \"build\" with the status completed, and \"test\" with the status pending."}"#,
        Calls(&[(
            "TodoWrite",
            &[
                ("todos", Count(2)),
                ("todos.0.content", Is(r#""build""#)),
                ("todos.0.status", Is(r#""completed""#)),
                ("todos.1.status", Is(r#""pending""#)),
            ],
        )]),
    ),
    ask(
        "question",
        NESTED,
        r#"{"role":"user","content":"Ask me with AskUserQuestion: one question \"Which port?\", with the two options 8080 and 9090 as labels."}"#,
        Calls(&[(
            "AskUserQuestion",
            &[
                ("questions", Count(1)),
                ("questions.0.options", Count(2)),
                ("questions.0.options.0.label", Has("8080")),
                ("questions.0.options.1.label", Has("9090")),
            ],
        )]),
    ),
    ask(
        "filter",
        NESTED,
        r#"{"role":"user","content":"List the issues of the tracker that have the labels bug and urgent and are not closed: call mcp__tracker__list_issues with these two labels and closed false."}"#,
        Calls(&[(
            "mcp__tracker__list_issues",
            &[("filter.labels", Is(r#"["bug","urgent"]"#)), ("filter.closed", Is("false"))],
        )]),
    ),
    ask(
        "quotes",
        QUOTES,
        r#"{"role":"user","content":"Run exactly this command with Bash: echo \"it's \\\"fine\\\"\""}"#,
        Calls(&[("Bash", &[("command", Has(r#"echo "it's \"fine\"""#))])]),
    ),
    ask(
        "newlines",
        QUOTES,
        r#"{"role":"user","content":"Write the file /tmp/n.txt with the Write tool. Its content is three lines: one, two and three, each a line of its own."}"#,
        Calls(&[("Write", &[("file_path", Is(r#""/tmp/n.txt""#)), ("content", Has("one\ntwo\nthree"))])]),
    ),
    ask(
        "code",
        QUOTES,
        r#"{"role":"user","content":"With the Edit tool, in /srv/m.py replace the text `x = \"<a>\"` by `x = '{\"k\": 1}'`."}"#,
        Calls(&[("Edit", &[("old_string", Has(r#"x = "<a>""#)), ("new_string", Has(r#"x = '{"k": 1}'"#))])]),
    ),
    ask(
        "missing-file",
        ERROR,
        r#"{"role":"user","content":"Show me the file /srv/readme. If it is missing, read /srv/README.md instead."},
{"role":"assistant","content":[{"type":"tool_use","id":"toolu_01","name":"Read","input":{"file_path":"/srv/readme"}}]},
{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_01","is_error":true,"content":"File does not exist."}]}"#,
        Calls(&[("Read", &[("file_path", Is(r#""/srv/README.md""#))])]),
    ),
    ask(
        "bad-input",
        ERROR,
        r#"{"role":"user","content":"Find all Rust files with Glob."},
{"role":"assistant","content":[{"type":"tool_use","id":"toolu_01","name":"Glob","input":{"glob":"**/*.rs"}}]},
{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_01","is_error":true,"content":"InputValidationError: Glob failed: the required parameter `pattern` is missing, an unexpected parameter `glob` was provided"}]}"#,
        Calls(&[("Glob", &[("pattern", Has("*.rs"))])]),
    ),
    ask(
        "exit-code",
        ERROR,
        r#"{"role":"user","content":"Run `make`. If it fails, run `make clean` and nothing else."},
{"role":"assistant","content":[{"type":"text","text":"I run make."},{"type":"tool_use","id":"toolu_01","name":"Bash","input":{"command":"make"}}]},
{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_01","is_error":true,"content":"Exit code 2\nmake: *** [all] Error 1"}]}"#,
        Calls(&[("Bash", &[("command", Is(r#""make clean""#))])]),
    ),
    with(
        THINKS,
        ask(
            "thought-call",
            THINKING,
            r#"{"role":"user","content":"Which of the tools reads a file? Use it on /etc/hostname."}"#,
            Calls(&[("Read", &[("file_path", Is(r#""/etc/hostname""#))])]),
        ),
    ),
    with(
        THINKS,
        ask(
            "thought-sum",
            THINKING,
            r#"{"role":"user","content":"Use no tool. What is 17 + 25? End with the number."}"#,
            Text(&["42"]),
        ),
    ),
    with(
        THINKS,
        ask(
            "thought-result",
            THINKING,
            r#"{"role":"user","content":"Which kernel runs here? Use Bash with `uname -r`, then tell me."},
{"role":"assistant","content":[{"type":"thinking","thinking":"I run uname.","signature":""},{"type":"tool_use","id":"toolu_01","name":"Bash","input":{"command":"uname -r"}}]},
{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_01","content":"6.12.9-arm64"}]}"#,
            Text(&["6.12.9"]),
        ),
    ),
    behind(
        20,
        ask(
            "history-call",
            HISTORY,
            r#"{"role":"user","content":"Now read /srv/app/last.rs with the Read tool."}"#,
            Calls(&[("Read", &[("file_path", Is(r#""/srv/app/last.rs""#))])]),
        ),
    ),
    behind(
        20,
        ask(
            "history-fact",
            HISTORY,
            r#"{"role":"user","content":"Use no tool. By the results above, what does module_7.rs return? Answer with the number."}"#,
            Text(&["707"]),
        ),
    ),
    behind(
        30,
        ask(
            "history-parallel",
            HISTORY,
            r#"{"role":"user","content":"Read /z/1.rs and /z/2.rs: two calls of the Read tool in one answer."}"#,
            Calls(&[
                ("Read", &[("file_path", Is(r#""/z/1.rs""#))]),
                ("Read", &[("file_path", Is(r#""/z/2.rs""#))]),
            ]),
        ),
    ),
    ask(
        "greeting",
        NONE,
        r#"{"role":"user","content":"Do not use any tool. Answer with the word hello."}"#,
        Text(&["hello"]),
    ),
    ask(
        "syntax",
        NONE,
        r#"{"role":"user","content":"Do not use any tool. Which keyword begins a function in Rust? Answer with the keyword alone."}"#,
        Text(&["fn"]),
    ),
    ask(
        "report",
        NONE,
        r#"{"role":"user","content":"Count the files with `ls | wc -l`, then tell me the number and stop."},
{"role":"assistant","content":[{"type":"tool_use","id":"toolu_01","name":"Bash","input":{"command":"ls | wc -l"}}]},
{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_01","content":"37"}]}"#,
        Text(&["37"]),
    ),
    with(
        r#","output_config":{"format":{"type":"json_schema","schema":{"type":"object","properties":{"title":{"type":"string"},"isNewTopic":{"type":"boolean"}},"required":["title","isNewTopic"],"additionalProperties":false}}}"#,
        ask(
            "title",
            OUTPUT,
            r#"{"role":"user","content":"A title of two words for a chat about fixing a bug in a parser. It is a new topic."}"#,
            Json("isNewTopic", "true"),
        ),
    ),
    with(
        r#","output_config":{"format":{"type":"json_schema","schema":{"type":"object","properties":{"port":{"type":"integer"}},"required":["port"],"additionalProperties":false}}}"#,
        ask(
            "port",
            OUTPUT,
            r#"{"role":"user","content":"On which port does https listen by default?"}"#,
            Json("port", "443"),
        ),
    ),
    with(
        r#","tool_choice":{"type":"tool","name":"WebSearch"}"#,
        ask(
            "forced",
            OUTPUT,
            r#"{"role":"user","content":"Search the web for: rust 2027"}"#,
            Calls(&[("WebSearch", &[("query", Has("rust"))])]),
        ),
    ),
    with(
        r#","stop_sequences":["</block>"]"#,
        ask(
            "block",
            STOP,
            r#"{"role":"user","content":"Use no tool. Answer with exactly this: <block>no</block>"}"#,
            StopsBefore("</block>"),
        ),
    ),
    with(
        r#","stop_sequences":["four"]"#,
        ask(
            "count",
            STOP,
            r#"{"role":"user","content":"Use no tool. Count from one to six, in lower-case words."}"#,
            StopsBefore("four"),
        ),
    ),
    ask(
        "short",
        STOP,
        r#"{"role":"user","content":"Use no tool. Answer with the single word done, and nothing else."}"#,
        Text(&["done"]),
    ),
];
