//! Generated conversations: each cause is made to happen, and gets its name; turns that only continue raise no alarm.

use super::*;
use crate::json::{Object, Value};

/// Turns of each kind.
const CONVERSATIONS: u64 = 100;

/// About the bytes of a token.
const TOKEN_SIZE: u64 = 4;

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn text(&mut self, words: u64) -> String {
        (0..words).map(|_| format!("w{:04} ", self.below(10_000))).collect()
    }
}

/// A body in parts, to change one of them.
#[derive(Clone)]
struct Body {
    model: String,
    effort: &'static str,
    thinks: bool,
    tools: Vec<(String, String)>,
    system: String,
    messages: Vec<(&'static str, String)>,
}

impl Body {
    fn new(numbers: &mut Numbers) -> Body {
        let tools = (0..5 + numbers.below(10)).map(|i| (format!("Tool{i}"), numbers.text(80))).collect();
        let system = numbers.text(1500);
        let mut body =
            Body { model: "qwen3".into(), effort: "high", thinks: true, tools, system, messages: vec![] };
        (0..1 + numbers.below(5)).for_each(|_| body.extend(numbers));
        body
    }

    /// One more turn: the call of a tool, its result, and the user's next words.
    fn extend(&mut self, numbers: &mut Numbers) {
        for role in ["user", "assistant", "tool"] {
            let text = numbers.text(400);
            self.messages.push((role, text));
        }
    }

    fn chain(&self) -> Chain {
        let tool = |(name, text): &(String, String)| {
            let function =
                Value::object([("name", name.clone().into()), ("description", text.clone().into())]);
            Value::object([("type", "function".into()), ("function", function)])
        };
        let message = |role: &'static str, text: &str| {
            Value::object([("role", role.into()), ("content", text.to_owned().into())])
        };
        let messages = std::iter::once(message("system", &self.system));
        let messages = messages.chain(self.messages.iter().map(|(role, text)| message(role, text)));
        let mut body = Object::new();
        body.push("model", self.model.clone());
        body.push("messages", messages.collect::<Vec<_>>());
        body.push("tools", self.tools.iter().map(tool).collect::<Vec<_>>());
        body.push("reasoning_effort", self.effort);
        body.push("chat_template_kwargs", Value::object([("enable_thinking", self.thinks.into())]));
        let body = Value::from(body);
        let mut out = Vec::new();
        let chain = ChainBuilder::write(&body, &mut out);
        assert_eq!(out, body.to_json().into_bytes(), "the bytes are those of a plain write");
        chain
    }

    fn tokens(&self) -> u64 {
        let texts = self.tools.iter().map(|(_, text)| text).chain([&self.system]);
        let texts = texts.chain(self.messages.iter().map(|(_, text)| text));
        texts.map(|text| text.len() as u64).sum::<u64>() / TOKEN_SIZE
    }
}

/// The tokens that a server finds in its cache, which holds the earlier body up to the first change.
fn cached(before: &Body, found: &Comparison) -> u64 {
    before.tokens() * found.common / found.total
}

fn reading(body: &Body, cached: Option<u64>) -> Reading {
    Reading { prompt: body.tokens(), cached, upstream: 1, generation: 1 }
}

/// Makes a change to the next turn of many conversations, and judges each.
fn judged(change: impl Fn(&mut Numbers, &mut Body)) -> Vec<PrefixVerdict> {
    let mut numbers = Numbers(0x5eed);
    let one = |_| {
        let before = Body::new(&mut numbers);
        let mut now = before.clone();
        now.extend(&mut numbers);
        change(&mut numbers, &mut now);
        assert!(now.chain().shared(&before.chain()).is_some(), "one conversation");
        let found = now.chain().compare(&before.chain());
        judge(&found, &reading(&before, Some(0)), &reading(&now, Some(cached(&before, &found))))
    };
    (0..CONVERSATIONS).map(one).collect()
}

fn causes(verdicts: &[PrefixVerdict], expected: Option<Cause>) -> usize {
    verdicts.iter().filter(|verdict| verdict.cause == expected).count()
}

#[test]
fn unchanged_conversations_raise_no_alarm() {
    let verdicts = judged(|_, _| {});
    assert_eq!(causes(&verdicts, None), 100);
    assert!(verdicts.iter().all(|verdict| verdict.at.is_none() && verdict.lost == Some(0)));
    // The end of the conversation was taken back.
    let verdicts = judged(|_, body| body.messages.truncate(body.messages.len() - 4));
    assert_eq!(causes(&verdicts, None), 100);
}

#[test]
fn a_changed_tool_is_named() {
    let verdicts = judged(|numbers, body| {
        let at = usize::try_from(numbers.below(5)).unwrap();
        body.tools[at].1.push('x');
    });
    assert_eq!(causes(&verdicts, Some(Cause::Tools)), 100);
    for verdict in &verdicts {
        let Some(ChangePlace::Tool { number, name }) = &verdict.at else { panic!("{verdict:?}") };
        assert_eq!(name.as_deref(), Some(format!("Tool{}", number - 1).as_str()));
    }
    let removed = judged(|_, body| _ = body.tools.remove(2));
    assert_eq!(causes(&removed, Some(Cause::Tools)), 100);
    assert!(removed.iter().all(|it| it.at.as_ref().unwrap().to_string() == "tool 3 (Tool2)"));
    let added = judged(|_, body| body.tools.insert(1, ("mcp\u{1b}[0m".into(), "new".into())));
    assert!(added.iter().all(|it| it.at.as_ref().unwrap().to_string() == "tool 2 (mcp\\u{1b}[0m)"));
}

#[test]
fn a_changed_system_prompt_is_placed() {
    let verdicts = judged(|_, body| {
        let at = 5000;
        body.system.replace_range(at..=at, "#");
    });
    assert_eq!(causes(&verdicts, Some(Cause::System)), 100);
    for verdict in &verdicts {
        let Some(ChangePlace::System { character }) = verdict.at else { panic!("{verdict:?}") };
        assert!((5000 - 256..=5000 + 40).contains(&character), "{character}");
    }
}

#[test]
fn a_rewritten_message_is_named() {
    let verdicts = judged(|_, body| body.messages[2].1.insert(0, 'x'));
    // A conversation of one turn loses too little for a miss.
    let missed = verdicts.iter().filter(|it| it.lost.is_some_and(|lost| lost >= 2000)).count();
    assert_eq!(causes(&verdicts, Some(Cause::Messages)), missed);
    assert!(missed > 50, "{missed}");
    let at = verdicts.iter().filter_map(|it| it.at.as_ref()).map(ToString::to_string);
    assert!(at.into_iter().all(|at| at == "message 3 (tool_result)"));
    let compacted = judged(|numbers, body| body.messages = vec![("user", numbers.text(2000))]);
    assert!(compacted.iter().all(|it| it.cause == Some(Cause::Messages) || it.lost.unwrap() < 2000));
}

/// The verdict on a turn of which nothing was cached, after a change of the comparison or of the facts.
fn emptied(change: impl Fn(&mut Body, &mut Reading)) -> Vec<PrefixVerdict> {
    let mut numbers = Numbers(77);
    let one = |_| {
        let before = Body::new(&mut numbers);
        let mut now = before.clone();
        now.extend(&mut numbers);
        let mut read = reading(&now, Some(0));
        change(&mut now, &mut read);
        judge(&now.chain().compare(&before.chain()), &reading(&before, Some(0)), &read)
    };
    (0..CONVERSATIONS).map(one).collect()
}

#[test]
fn what_is_not_in_the_body_is_named_too() {
    for (cause, verdicts) in [
        (Cause::Evicted, emptied(|_, _| {})),
        (Cause::Model, emptied(|body, _| body.model.push('x'))),
        (Cause::Effort, emptied(|body, _| body.effort = "low")),
        (Cause::Thinking, emptied(|body, _| body.thinks = false)),
        (Cause::BoxMoved, emptied(|_, read| read.upstream = 2)),
        (Cause::BoxRestarted, emptied(|_, read| read.generation = 2)),
        (Cause::NotReported, emptied(|_, read| read.cached = None)),
        // A message was rewritten as well, which does not explain that nothing before it was kept.
        (
            Cause::BoxMoved,
            emptied(|body, read| {
                body.messages[0].1.push('x');
                read.upstream = 2;
            }),
        ),
        (
            Cause::Model,
            emptied(|body, _| {
                body.tools[0].1.push('x');
                body.model.push('x');
            }),
        ),
        (
            Cause::Tools,
            emptied(|body, _| {
                body.tools[0].1.push('x');
                body.effort = "low";
            }),
        ),
    ] {
        assert_eq!(causes(&verdicts, Some(cause)), 100, "{cause:?}: {:?}", verdicts.first());
    }
}

#[test]
fn small_losses_are_no_miss() {
    let found = Comparison { common: 1, total: 1, ..Comparison::default() };
    let turn = |prompt, cached| Reading { prompt, cached, upstream: 1, generation: 1 };
    let cause = |left, cached, prompt| judge(&found, &turn(left, None), &turn(prompt, Some(cached))).cause;
    assert_eq!(cause(100_000, 95_000, 101_000), None, "95 % are kept");
    assert_eq!(cause(100_000, 94_999, 101_000), Some(Cause::Evicted));
    assert_eq!(cause(3_000, 1_001, 4_000), None, "fewer than 2,000 tokens");
    assert_eq!(cause(3_000, 1_000, 4_000), Some(Cause::Evicted));
    assert_eq!(cause(100_000, 0, 1_500), None, "the prompt has no more to lose");
    assert_eq!(cause(u64::MAX, 0, u64::MAX), Some(Cause::Evicted), "no overflow");
    let silent = judge(&found, &turn(1_000, None), &turn(2_000, None));
    assert_eq!((silent.cause, silent.lost, silent.miss()), (None, None, None));
}

#[test]
fn other_requests_of_a_session_are_not_turns_of_it() {
    let mut numbers = Numbers(9);
    let (main, mut title) = (Body::new(&mut numbers), Body::new(&mut numbers));
    title.tools.clear();
    assert_eq!(title.chain().shared(&main.chain()), None);
    assert_eq!(main.chain().shared(&title.chain()), None);
    let mut many = main.clone();
    many.messages = (0..5000).map(|_| ("user", String::from("x"))).collect();
    assert_eq!(many.chain().shared(&many.chain()), None, "too many parts to be judged");
    assert!(many.chain().size() < 70_000, "{}", many.chain().size());
    let mut rest = Vec::new();
    let odd = ChainBuilder::write(&Value::from("no object"), &mut rest);
    assert_eq!((rest.as_slice(), odd.shared(&odd)), (&b"\"no object\""[..], None));
}

#[test]
fn causes_are_in_the_order_of_their_discriminants() {
    for (i, cause) in Cause::ALL.into_iter().enumerate() {
        assert_eq!(cause as usize, i);
    }
    assert_eq!(Grouped(1_234_567).to_string() + &Grouped(12).to_string(), "1,234,56712");
}
