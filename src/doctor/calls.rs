//! The judgement of tool calls: whether the server recognizes them, whether sparkgap would find those that it does not, and
//! whether `strict` holds a model to a tool's schema. No I/O.

use super::judge::{doubtful, fine, unanswered, wrong};
use super::verdict::{ServerFacts, Verdict};
use super::{fixes, questions};
use crate::json;
use crate::openai::Repair;
use crate::probe::{Answer, Trouble};
use crate::rescue::{
    CallDetector, CallFamily, DROPPED_TOKENS_MIN, FoundArguments, FoundCall, OfferedTools, Release,
};

pub(super) const FORCED_CALL: &str = "forced tool call";
pub(super) const AUTO_CALL: &str = "auto tool call";
pub(super) const STRICT: &str = "strict tools";

/// Markup of tool calls that the server's parser left in the text.
const CALL_MARKUP: [&str; 6] = [
    "<tool_call",
    "<function=",
    "[TOOL_CALLS]",
    "<|tool_call",
    "<|python_tag|>",
    "\"name\": \"get_weather\"",
];

/// The answer to a question with a tool, and what it is judged by.
#[derive(Clone, Copy)]
pub(super) struct CallAnswer<'a> {
    pub(super) answer: &'a Result<Answer, Trouble>,
    /// The repairs that the question needed.
    pub(super) repairs: &'a [Repair],
    /// True if calls in text are passed on as calls (`rescue_tool_calls`).
    pub(super) rescues: bool,
}

/// Checks that a required call comes back as a tool call.
pub(super) fn forced_call(asked: CallAnswer<'_>, server: &ServerFacts) -> Verdict {
    let CallAnswer { answer, repairs, .. } = asked;
    match answer {
        Ok(_) if repairs.contains(&Repair::NoChoice) => doubtful(
            FORCED_CALL,
            "the server takes no forced tool_choice; sparkgap leaves it out, so the model may answer without a call",
            None,
        ),
        Err(trouble) => match refusal(trouble, server) {
            Some(words) => refused_call(FORCED_CALL, words, server),
            None => unanswered(FORCED_CALL, trouble),
        },
        Ok(answer) => match called(answer) {
            Called::Well => fine(FORCED_CALL, "comes back as a tool call"),
            Called::Badly(how) => wrong(FORCED_CALL, how, fixes::tool_parser(server, None)),
            Called::Found(family) => found_call(FORCED_CALL, family, asked, server),
            Called::Empty => {
                let (text, fix) = empty_call(answer, server);
                wrong(FORCED_CALL, text, fix)
            }
            Called::AsText | Called::Not => wrong(
                FORCED_CALL,
                "the answer is text, although a call was required",
                fixes::tool_parser(server, None),
            ),
        },
    }
}

/// Checks that a call that the model chooses to make comes back as a tool call.
pub(super) fn auto_call(asked: CallAnswer<'_>, server: &ServerFacts) -> Verdict {
    match asked.answer {
        Err(trouble) => match refusal(trouble, server) {
            Some(words) => refused_call(AUTO_CALL, words, server),
            None => unanswered(AUTO_CALL, trouble),
        },
        Ok(answer) => match called(answer) {
            Called::Well => fine(AUTO_CALL, "comes back parsed"),
            Called::Badly(how) => wrong(AUTO_CALL, how, fixes::tool_parser(server, None)),
            Called::Found(family) => found_call(AUTO_CALL, family, asked, server),
            Called::AsText => wrong(
                AUTO_CALL,
                "the model called the tool, but the call came back as text, in a form that sparkgap does not find: the tool parser is off, or another model's",
                fixes::tool_parser(server, None),
            ),
            Called::Empty => {
                let (text, fix) = empty_call(answer, server);
                doubtful(AUTO_CALL, text, Some(fix))
            }
            Called::Not => doubtful(
                AUTO_CALL,
                "the model did not call the tool: it may be too small for Claude Code, or the tool parser is another model's",
                Some(fixes::tool_parser(server, None)),
            ),
        },
    }
}

/// True if the server has counted an answer and shown nothing of it: its parser may have dropped a call.
pub(super) fn may_be_dropped(answer: &Result<Answer, Trouble>, server: &ServerFacts) -> bool {
    answer.as_ref().is_ok_and(|answer| hides_tokens(answer, server))
}

fn hides_tokens(answer: &Answer, server: &ServerFacts) -> bool {
    server.flavour.dialect().shows_calls_as_text
        && answer.is_blank()
        && answer.counts.completion >= DROPPED_TOKENS_MIN
}

/// The words and the fix for an answer without content. Only the count of its tokens lets the tool parser be the cause.
fn empty_call(answer: &Answer, server: &ServerFacts) -> (String, String) {
    let count = answer.counts.completion;
    if hides_tokens(answer, server) {
        let text = format!(
            "the answer is empty, though the server counts {count} tokens: its tool parser may have dropped them"
        );
        return (text, fixes::tool_parser(server, None));
    }
    ("the answer is empty".into(), "see the server's log".into())
}

/// The verdict on an answer that may be dropped, by the answer to the same question with the call as text. `None`: the call
/// did not come as text either.
pub(super) fn dropped_call(as_text: CallAnswer<'_>, server: &ServerFacts) -> Option<Verdict> {
    let Called::Found(family) = called(as_text.answer.as_ref().ok()?) else { return None };
    let fix = fixes::tool_parser(server, Some(family));
    let what = format!(
        "the server drops the model's call, as its tool parser is another model's: the form is '{}'",
        family.name
    );
    Some(if as_text.rescues {
        let how = "sparkgap notices it at the first lost answer, and has later calls come as text, where it finds them";
        doubtful(AUTO_CALL, format!("{what}. {how}"), Some(fix))
    } else {
        wrong(AUTO_CALL, what, fix)
    })
}

/// The verdict on a call that the server did not recognize, and that is in the text.
fn found_call(
    check: &'static str,
    family: &'static CallFamily,
    asked: CallAnswer<'_>,
    server: &ServerFacts,
) -> Verdict {
    let fix = fixes::tool_parser(server, Some(family));
    let why = if asked.repairs.contains(&Repair::CallsAsText) {
        "the server has no tool parser, so sparkgap has calls come as text"
    } else {
        "the server does not recognize the model's call: its tool parser is off, or another model's"
    };
    let what = format!("{why}. The form is '{}'", family.name);
    if asked.rescues {
        let how = "sparkgap finds it and passes it on as a call, but only once it is whole";
        doubtful(check, format!("{what}; {how}"), Some(fix))
    } else {
        wrong(check, format!("{what}; rescue_tool_calls = false leaves it in the text"), fix)
    }
}

/// Checks whether `strict` holds a model to a tool's schema, by the answers to a question that tempts it to break the schema:
/// without and with `strict`. `repairs` are those of the latter. `None`: there is no call to judge.
pub(super) fn strict(
    loose: &Result<Answer, Trouble>,
    strict: &Result<Answer, Trouble>,
    repairs: &[Repair],
) -> Option<Verdict> {
    if repairs.contains(&Repair::Without("strict".into())) {
        return Some(fine(STRICT, "the server refuses strict; sparkgap leaves it out"));
    }
    let keeps = |answer: &Result<Answer, Trouble>| {
        let (_, arguments) = answer.as_ref().ok()?.calls.first()?;
        let mut bytes = arguments.clone().into_bytes();
        let unit =
            json::parse(&mut bytes).ok()?.get("unit").and_then(|unit| unit.as_str().map(str::to_owned));
        Some(unit.is_some_and(|unit| questions::UNITS.contains(&unit.as_str())))
    };
    Some(match (keeps(loose), keeps(strict)?) {
        (_, false) => {
            doubtful(STRICT, "no effect: the model may break the schema of a tool with strict", None)
        }
        (Some(false), true) => fine(STRICT, "strict holds the model to the schema of a tool"),
        (_, true) => fine(STRICT, "not known: the model kept to the schema without strict, too"),
    })
}

/// Words in refusals of servers that were started without a parser for calls, in small letters.
const NO_PARSER: [&str; 5] =
    ["tool-call-parser", "tool choice requires", "--jinja", "does not support tools", "tool parser"];

/// The verdict on a refused question with a tool. Only the server's own words tell a missing parser from another cause.
fn refused_call(check: &'static str, words: &str, server: &ServerFacts) -> Verdict {
    let said = words.to_lowercase();
    if NO_PARSER.iter().any(|part| said.contains(part)) {
        let text = format!("the server refuses it, as it has no tool parser: {words}");
        return wrong(check, text, fixes::tool_parser(server, None));
    }
    let fix = "the refusal names its cause; a member of the request can be taken out by on_upstream_request in a Lua file";
    wrong(check, format!("the server refuses a question with a tool: {words}"), fix)
}

/// The error text of a server that refuses such a request; `None` if the trouble is another one.
fn refusal<'t>(trouble: &'t Trouble, server: &ServerFacts) -> Option<&'t str> {
    match trouble {
        Trouble::Refused(400 | 404 | 422 | 501, words) => Some(words),
        Trouble::Refused(500, words) if server.flavour.dialect().refuses_with_500 => Some(words),
        Trouble::Refused(..) | Trouble::Failure(_) | Trouble::Broken(_) => None,
    }
}

/// The result of offering a tool.
enum Called {
    Well,
    Badly(String),
    /// In the text, where sparkgap finds it.
    Found(&'static CallFamily),
    AsText,
    Not,
    Empty,
}

fn called(answer: &Answer) -> Called {
    let Some((name, arguments)) = answer.calls.first() else {
        if let Some(family) = call_in(&answer.text) {
            return Called::Found(family);
        }
        if answer.is_blank() {
            return Called::Empty;
        }
        let is_markup = CALL_MARKUP.iter().any(|mark| answer.text.contains(mark));
        return if is_markup { Called::AsText } else { Called::Not };
    };
    if name != questions::TOOL {
        return Called::Badly(format!("the call is of '{name}', a tool that was not offered"));
    }
    let mut bytes = arguments.clone().into_bytes();
    match json::parse(&mut bytes) {
        Ok(arguments) if arguments.get("city").is_some() => Called::Well,
        Ok(_) => Called::Badly(format!("the call lacks its argument: {arguments}")),
        Err(_) => Called::Badly(format!("the call's arguments are not valid JSON: {arguments}")),
    }
}

/// The tool of the question, under the names that models give it.
struct OfferedWeather;

impl OfferedTools for OfferedWeather {
    fn offers(&self, name: &str) -> bool {
        name.contains(questions::TOOL)
    }

    fn may_offer(&self, beginning: &str) -> bool {
        let local = beginning.strip_prefix("functions.").unwrap_or(beginning);
        let is_space = "functions.".starts_with(beginning);
        is_space || questions::TOOL.starts_with(local) || local.starts_with(questions::TOOL)
    }
}

/// The form of the call that ends this text, as sparkgap would find it there.
fn call_in(text: &str) -> Option<&'static CallFamily> {
    let mut detector = CallDetector::new(false);
    if detector.push(text, &OfferedWeather) == Release::Ready {
        detector.clear_ready();
    }
    let (calls, family) = detector.calls()?;
    let has_city = |call: &FoundCall| match &call.arguments {
        FoundArguments::Json(text) => text.contains("\"city\""),
        FoundArguments::Texts(texts) => texts.iter().any(|(key, _)| key == "city"),
    };
    calls.iter().all(has_city).then_some(family)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::ServerKind;
    use crate::doctor::verdict::Level;

    const CITY: &str = r#"{"city":"Paris"}"#;

    fn server() -> ServerFacts {
        ServerFacts { flavour: ServerKind::Vllm, model: "qwen3".into() }
    }

    fn answer(text: &str, calls: &[(&str, &str)]) -> Result<Answer, Trouble> {
        let calls = calls.iter().map(|(name, arguments)| (name.to_string(), arguments.to_string())).collect();
        Ok(Answer { text: text.into(), calls, ..Answer::default() })
    }

    fn shown(verdict: &Verdict) -> String {
        format!("{} {} {}", verdict.level.name(), verdict.text, verdict.fix.as_deref().unwrap_or(""))
    }

    fn auto(answer: &Result<Answer, Trouble>, server: &ServerFacts) -> Verdict {
        auto_call(CallAnswer { answer, repairs: &[], rescues: true }, server)
    }

    fn forced(answer: &Result<Answer, Trouble>, server: &ServerFacts) -> Verdict {
        forced_call(CallAnswer { answer, repairs: &[], rescues: true }, server)
    }

    #[test]
    fn each_kind_of_tool_call_gets_its_verdict() {
        let refused =
            || Err(Trouble::Refused(400, "\"auto\" tool choice requires --enable-auto-tool-choice".into()));
        for (answer, expected, text) in [
            (answer("", &[("get_weather", CITY)]), Level::Fine, "parsed"),
            (
                answer("<tool_call>\n<function=get_weather>", &[]),
                Level::Wrong,
                "--tool-call-parser qwen3_coder",
            ),
            (answer("It rains.", &[]), Level::Doubtful, "did not call"),
            (answer("", &[]), Level::Doubtful, "the answer is empty see the server's log"),
            (answer("", &[("get_weather", "{\"city\"")]), Level::Wrong, "not valid JSON"),
            (answer("", &[("get_weather", "{}")]), Level::Wrong, "lacks its argument"),
            (answer("", &[("other", CITY)]), Level::Wrong, "not offered"),
            (refused(), Level::Wrong, "--enable-auto-tool-choice --tool-call-parser"),
            (Err(Trouble::Broken("EngineCore".into())), Level::Wrong, "no answer: EngineCore"),
        ] {
            let verdict = auto(&answer, &server());
            assert!(verdict.level == expected && shown(&verdict).contains(text), "{verdict:?}");
        }
        let llama = ServerFacts { flavour: ServerKind::LlamaCpp, ..server() };
        let no_jinja = Err(Trouble::Refused(500, "tools param requires --jinja flag".into()));
        for verdict in [auto(&no_jinja, &llama), forced(&no_jinja, &llama)] {
            assert!(verdict.fix.is_some_and(|fix| fix.contains("with --jinja")), "{}", verdict.text);
        }
        let rubbish = format!("{{\n\n\u{1b}[2J{}", "21 degrees.\n".repeat(100));
        let text = auto(&answer("", &[("get_weather", &rubbish)]), &server()).text;
        assert!(text.starts_with("the call's arguments are not valid JSON: { [2J21 degrees. 21"), "{text}");
        assert!(text.chars().count() == 300 && !text.contains(char::is_control), "{text}");
        assert_eq!(forced(&answer("", &[("get_weather", CITY)]), &server()).level, Level::Fine);
        for bad in [answer("It rains.", &[]), refused(), answer("", &[("get_weather", "")])] {
            assert_eq!(forced(&bad, &server()).level, Level::Wrong);
        }
    }

    #[test]
    fn a_call_in_the_text_is_tried_and_its_form_names_the_parser() {
        let json = "I look.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>";
        let kimi = "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{\"city\": \"Paris\"}<|tool_call_end|><|tool_calls_section_end|>";
        for (text, form, flag) in [
            (json, "'hermes'", "--tool-call-parser hermes"),
            (kimi, "'kimi_k2'", "--tool-call-parser kimi_k2"),
        ] {
            let found = answer(text, &[]);
            for verdict in [auto(&found, &server()), forced(&found, &server())] {
                assert_eq!(verdict.level, Level::Doubtful, "{verdict:?}");
                let said = shown(&verdict);
                assert!(said.contains(form) && said.contains("finds it") && said.contains(flag), "{said}");
            }
            let off = auto_call(CallAnswer { answer: &found, repairs: &[], rescues: false }, &server());
            assert!(off.level == Level::Wrong && off.text.contains("rescue_tool_calls"), "{off:?}");
            let repairs = [Repair::CallsAsText];
            let asked = CallAnswer { answer: &found, repairs: &repairs, rescues: true };
            assert!(auto_call(asked, &server()).text.contains("has no tool parser"));
        }
        // A call of another tool, one without its argument, and one that text follows are only text.
        for text in [
            json.replace("get_weather", "other"),
            json.replace("city", "town"),
            format!("{json} That is how."),
        ] {
            assert_ne!(auto(&answer(&text, &[]), &server()).level, Level::Fine);
            assert!(!shown(&auto(&answer(&text, &[]), &server())).contains("finds it"), "{text}");
        }
    }

    #[test]
    fn a_dropped_call_shows_in_the_count() {
        let mut blank = Answer::default();
        blank.counts.completion = 22;
        assert!(may_be_dropped(&Ok(blank.clone()), &server()));
        let told = shown(&forced(&Ok(blank.clone()), &server()));
        assert!(told.contains("counts 22 tokens") && told.contains("--tool-call-parser"), "{told}");
        let told = shown(&forced(&answer("", &[]), &server()));
        assert_eq!(told, "fail the answer is empty see the server's log", "no cause was shown");
        let other = ServerFacts { flavour: ServerKind::OpenAi, ..server() };
        assert!(!may_be_dropped(&Ok(blank), &other), "its thinking is counted and not shown");
        for (text, completion) in [("Hm.", 22), ("", 3)] {
            let mut other = Answer { text: text.into(), ..Answer::default() };
            other.counts.completion = completion;
            assert!(!may_be_dropped(&Ok(other), &server()), "{text}");
        }
        let found = answer(
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
            &[],
        );
        let asked = |rescues| CallAnswer { answer: &found, repairs: &[], rescues };
        let verdict = dropped_call(asked(true), &server()).unwrap();
        assert!(
            verdict.level == Level::Doubtful && shown(&verdict).contains("parser qwen3_coder"),
            "{verdict:?}"
        );
        assert_eq!(dropped_call(asked(false), &server()).unwrap().level, Level::Wrong);
        let text = answer("It rains.", &[]);
        assert_eq!(dropped_call(CallAnswer { answer: &text, repairs: &[], rescues: true }, &server()), None);
    }

    #[test]
    fn strict_bites_if_it_alone_keeps_the_schema() {
        let call = |arguments: &str| answer("", &[("get_weather", arguments)]);
        let (kept, broken) = (r#"{"city":"Paris","unit":"celsius"}"#, r#"{"city":"Paris","unit":"kelvin"}"#);
        let told =
            |loose: &str, bound: &str| strict(&call(loose), &call(bound), &[]).map(|verdict| shown(&verdict));
        assert!(told(broken, kept).unwrap().starts_with("ok strict holds"));
        assert!(told(CITY, kept).unwrap().starts_with("ok strict holds"));
        assert!(told(kept, kept).unwrap().starts_with("ok not known"));
        assert!(told(broken, broken).unwrap().starts_with("warn no effect"));
        assert_eq!(strict(&call(broken), &answer("no", &[]), &[]), None);
        let without = [Repair::Without("strict".into())];
        assert!(strict(&call(kept), &call(kept), &without).unwrap().text.contains("refuses strict"));
    }

    #[test]
    fn a_choice_that_is_left_out_forces_no_call() {
        let (text, repairs) = (answer("It rains.", &[]), [Repair::NoChoice]);
        let verdict = forced_call(CallAnswer { answer: &text, repairs: &repairs, rescues: true }, &server());
        assert!(verdict.level == Level::Doubtful && verdict.fix.is_none(), "{verdict:?}");
    }

    #[test]
    fn a_missing_parser_is_told_only_if_the_server_says_so() {
        let refused =
            Err(Trouble::Refused(400, "chat_template is not supported for Mistral tokenizers.".into()));
        for verdict in [auto(&refused, &server()), forced(&refused, &server())] {
            let told = shown(&verdict);
            assert!(verdict.level == Level::Wrong && !told.contains("parser"), "{told}");
            assert!(told.contains("Mistral tokenizers") && told.contains("on_upstream_request"), "{told}");
        }
    }
}
