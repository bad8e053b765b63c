//! The 24 tools that the tasks offer, each with the schema that a coding agent would give it. A model must choose among
//! as many as it has in practice.

use std::fmt::Write as _;

/// A tool: its name, its description, and its members as `name:type`. A `?` behind the name marks one that may be left out;
/// a type that begins with a brace is a schema of its own.
type ToolRow = (&'static str, &'static str, &'static [&'static str]);

const TODOS: &str = r#"todos:{"type":"array","items":{"type":"object","properties":{"content":{"type":"string"},"status":{"type":"string","enum":["pending","in_progress","completed"]},"tags":{"type":"array","items":{"type":"string"}}},"required":["content","status"],"additionalProperties":false}}"#;
const QUESTIONS: &str = r#"questions:{"type":"array","items":{"type":"object","properties":{"question":{"type":"string"},"options":{"type":"array","items":{"type":"object","properties":{"label":{"type":"string"},"description":{"type":"string"}},"required":["label"]}},"multiSelect":{"type":"boolean"}},"required":["question","options"]}}"#;
const FILTER: &str = r#"filter:{"type":"object","properties":{"author":{"type":"string"},"labels":{"type":"array","items":{"type":"string"}},"closed":{"type":"boolean"}},"required":["labels"]}"#;

const TOOLS: [ToolRow; 24] = [
    (
        "Bash",
        "Runs a shell command and returns its output.",
        &["command:string", "description?:string", "timeout?:integer", "run_in_background?:boolean"],
    ),
    ("Read", "Reads a file.", &["file_path:string", "offset?:integer", "limit?:integer"]),
    ("Write", "Writes a file, replacing what was there.", &["file_path:string", "content:string"]),
    (
        "Edit",
        "Replaces a text in a file.",
        &["file_path:string", "old_string:string", "new_string:string", "replace_all?:boolean"],
    ),
    ("Glob", "Finds files by a pattern such as **/*.rs.", &["pattern:string", "path?:string"]),
    (
        "Grep",
        "Searches the contents of files by a regular expression.",
        &["pattern:string", "path?:string", "glob?:string", "-i?:boolean"],
    ),
    ("TodoWrite", "Replaces the list of tasks of this session.", &[TODOS]),
    ("WebFetch", "Fetches a web page and answers a question on it.", &["url:string", "prompt:string"]),
    ("WebSearch", "Searches the web.", &["query:string"]),
    (
        "Agent",
        "Starts an agent for a larger piece of work.",
        &["description:string", "prompt:string", "subagent_type?:string"],
    ),
    (
        "NotebookEdit",
        "Changes a cell of a notebook.",
        &["notebook_path:string", "new_source:string", "cell_id?:string"],
    ),
    ("AskUserQuestion", "Asks the user one or more questions with options to choose from.", &[QUESTIONS]),
    ("ExitPlanMode", "Ends the planning.", &["plan:string"]),
    ("EnterPlanMode", "Begins to plan.", &[]),
    ("TaskStop", "Stops a command in the background.", &["task_id:string"]),
    ("Monitor", "Watches the output of a command in the background.", &["task_id:string", "pattern?:string"]),
    ("Skill", "Runs a skill.", &["skill:string", "args?:string"]),
    ("CronCreate", "Runs a prompt at given times.", &["schedule:string", "prompt:string"]),
    ("CronList", "Lists what runs at given times.", &[]),
    ("CronDelete", "Ends what runs at given times.", &["id:string"]),
    ("EnterWorktree", "Makes a worktree of the repository.", &["name:string"]),
    ("SendMessage", "Sends a message to another agent.", &["to:string", "text:string"]),
    ("mcp__tracker__list_issues", "Lists issues of the tracker.", &[FILTER, "limit?:integer"]),
    (
        "mcp__tracker__create_issue",
        "Files an issue in the tracker.",
        &["title:string", "body:string", "priority?:integer"],
    ),
];

/// `tools` of a request, as JSON.
pub(super) fn tools_json() -> String {
    let mut json = String::from("[");
    for (name, description, members) in TOOLS {
        let (mut properties, mut required) = (String::new(), String::new());
        for (key, kind) in members.iter().filter_map(|member| member.split_once(':')) {
            let comma = if properties.is_empty() { "" } else { "," };
            let schema =
                if kind.starts_with('{') { kind.to_owned() } else { format!(r#"{{"type":"{kind}"}}"#) };
            let _ = write!(properties, r#"{comma}"{}":{schema}"#, key.trim_end_matches('?'));
            if !key.ends_with('?') {
                let comma = if required.is_empty() { "" } else { "," };
                let _ = write!(required, r#"{comma}"{key}""#);
            }
        }
        let comma = if json.len() == 1 { "" } else { "," };
        let _ = write!(
            json,
            r#"{comma}{{"name":"{name}","description":"{description}","input_schema":{{"type":"object","properties":{{{properties}}},"required":[{required}],"additionalProperties":false}}}}"#
        );
    }
    json.push(']');
    json
}
