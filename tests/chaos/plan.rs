//! The plan of one request: the events on both of its sides.

use serde_json::{Value, json};

/// Splitmix64: a sequence of numbers from one number.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// The end of the upstream's answer. The numbers are the pieces that are sent before it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ending {
    Whole {
        says_done: bool,
    },
    /// The body ends.
    Short(usize),
    /// The connection ends.
    Closed(usize),
    /// The connection is reset.
    Reset(usize),
    /// Nothing more comes, until the proxy gives up.
    Stall(usize),
    /// An event comes that is not valid JSON, and then the end of the body.
    Garbage(usize),
    /// Half of a piece of JSON comes, and then the end of the body.
    Half(usize),
    /// An HTTP error.
    Status(u16),
    /// The answer is not HTTP.
    NoHttp,
    /// The connection ends without an answer.
    Dead,
    /// The upstream never answers.
    Silent,
    /// A status that says that nothing was begun comes first, and then the complete answer.
    Mended {
        status: u16,
    },
    /// Pieces come until one side leaves.
    Endless,
}

/// The client's part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Role {
    Reads,
    ReadsSlowly,
    /// Leaves when it has read this many bytes of the answer.
    Leaves(usize),
    /// Leaves when it has sent this share of its request, in percent.
    LeavesEarly(usize),
    /// Sends bytes that are not a valid request.
    Babbles,
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) model: &'static str,
    pub(crate) is_streamed: bool,
    pub(crate) text: Vec<String>,
    /// The pieces of a tool call's arguments; empty: no call.
    pub(crate) arguments: Vec<String>,
    pub(crate) ending: Ending,
    pub(crate) role: Role,
    pub(crate) keeps_connection: bool,
}

const WORDS: [&str; 8] =
    ["a", "Wort", "mit \"quotes\"", "\n", "été", "🙂 ", "\\", "a somewhat longer piece of text "];

impl Plan {
    pub(crate) fn draw(seed: u64) -> Plan {
        let mut dice = Dice::new(seed);
        let text: Vec<String> =
            (0..1 + dice.below(40)).map(|i| format!("{}{i}", dice.pick(&WORDS))).collect();
        let arguments = if dice.chance(25) { arguments(&mut dice) } else { Vec::new() };
        let role = match dice.below(100) {
            0..60 => Role::Reads,
            60..70 => Role::ReadsSlowly,
            70..92 => Role::Leaves(dice.below(4000)),
            92..96 => Role::LeavesEarly(dice.below(100)),
            _ => Role::Babbles,
        };
        let pieces = text.len() + arguments.len();
        let ending = match role {
            Role::Leaves(_) => {
                dice.pick(&[Ending::Endless, Ending::Endless, Ending::Silent, Ending::Stall(1)])
            }
            _ => ending(&mut dice, pieces),
        };
        Plan {
            seed,
            model: match dice.below(100) {
                0 => "dead-1",
                1..20 => "few-1",
                20..35 => "pair-1",
                35..50 => "trio-1",
                _ => "claude-sonnet-5",
            },
            is_streamed: dice.chance(75),
            text,
            arguments,
            ending,
            role,
            keeps_connection: dice.chance(70),
        }
    }

    /// The members of the pool that the request goes to, by their numbers; none: it goes to one upstream.
    pub(crate) fn pool(&self) -> &'static [u64] {
        match self.model {
            "pair-1" => &[1, 2],
            "trio-1" => &[1, 2, 3],
            _ => &[],
        }
    }

    /// The end of the answer of this upstream. Each member of a pool draws its own; most of them are whole, so that the
    /// members are not all out most of the time.
    pub(crate) fn ending_at(&self, upstream: u64) -> Ending {
        if upstream == 0 || matches!(self.role, Role::Leaves(_)) {
            return self.ending.clone();
        }
        let mut dice = Dice::new(self.seed ^ (upstream << 56));
        if dice.chance(60) {
            return Ending::Whole { says_done: true };
        }
        ending(&mut dice, self.text.len() + self.arguments.len())
    }

    /// The request's body.
    pub(crate) fn request(&self) -> Value {
        let mut body = json!({"model": self.model, "max_tokens": 100, "messages": [{"role": "user", "content": format!("seed={};", self.seed)}]});
        if self.is_streamed {
            body["stream"] = true.into();
        }
        if !self.arguments.is_empty() {
            body["tools"] = json!([{"name": "Bash", "input_schema": {"type": "object"}}]);
        }
        body
    }

    /// The plan that an upstream's request belongs to; `None` if a client made the request up.
    pub(crate) fn of(body: &str) -> Option<Plan> {
        let (_, rest) = body.split_once("seed=")?;
        rest.split(';').next()?.parse().ok().map(Plan::draw)
    }

    /// The chunks of the answer, one for each piece.
    pub(crate) fn chunks(&self) -> Vec<Value> {
        let delta = super::upstream::delta;
        let text = self.text.iter().map(|text| delta(json!({"content": text})));
        let call = self.arguments.iter().enumerate().map(|(i, piece)| {
            let mut call = json!({"index": 0, "function": {"arguments": piece}});
            if i == 0 {
                call["id"] = format!("call-{}", self.seed).into();
                call["type"] = "function".into();
                call["function"]["name"] = "Bash".into();
            }
            delta(json!({"tool_calls": [call]}))
        });
        text.chain(call).collect()
    }

    pub(crate) fn finish(&self) -> &'static str {
        if self.arguments.is_empty() { "stop" } else { "tool_calls" }
    }

    pub(crate) fn whole_text(&self) -> String {
        self.text.concat()
    }

    pub(crate) fn input(&self) -> Option<Value> {
        (!self.arguments.is_empty()).then(|| serde_json::from_str(&self.arguments.concat()).unwrap())
    }
}

fn arguments(dice: &mut Dice) -> Vec<String> {
    let words: Vec<String> = (0..1 + dice.below(10)).map(|_| dice.pick(&WORDS).to_owned()).collect();
    let json = json!({"command": words.concat(), "timeout": dice.below(1000), "words": words}).to_string();
    let mut pieces = vec![String::new()];
    for c in json.chars() {
        if dice.chance(15) {
            pieces.push(String::new());
        }
        pieces.last_mut().unwrap().push(c);
    }
    pieces
}

fn ending(dice: &mut Dice, pieces: usize) -> Ending {
    let some = dice.below(pieces + 1);
    match dice.below(100) {
        0..50 => Ending::Whole { says_done: dice.chance(80) },
        50..57 => Ending::Short(some),
        57..62 => Ending::Closed(some),
        62..67 => Ending::Reset(some),
        67 => Ending::Stall(some),
        68..72 => Ending::Garbage(some),
        72..76 => Ending::Half(some),
        76..86 => Ending::Status(dice.pick(&[500, 503, 429, 400, 502, 401, 404])),
        86..89 => Ending::NoHttp,
        89..92 => Ending::Dead,
        92 => Ending::Silent,
        _ => Ending::Mended { status: dice.pick(&[503, 529]) },
    }
}
