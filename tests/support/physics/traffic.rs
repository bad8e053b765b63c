//! People who work with Claude Code, drawn from a seed: the requests that they cause, and when.
//!
//! A person asks, the model calls tools, each result makes the conversation longer, and the answer ends the turn. Some
//! turns hand work to sub-agents, which have conversations of their own and run side by side. A conversation that has
//! grown too long is summed up and begins anew. All conversations of one kind begin with the same tools and system
//! prompt, which is why their prompts look alike to a router that compares beginnings.

use std::collections::BTreeMap;

use super::engine::{Job, chain};

/// The tokens of tools and system prompt of each main conversation.
pub const MAIN_HEAD: u64 = 14_000;
/// The same for a sub-agent, which has fewer tools.
pub const AGENT_HEAD: u64 = 9_000;
/// A conversation is summed up when it is longer than this.
const COMPACT_ABOVE: u64 = 110_000;

/// Numbers that look random, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(chain(seed, 0x5eed))
    }

    /// A number from 0 up to 1.
    pub fn unit(&mut self) -> f64 {
        self.0 = chain(self.0, 1);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// A whole number of this range, both ends included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + (self.unit() * (most - least + 1) as f64) as u64
    }

    /// A time or size whose mean is this: many are short, few are long.
    pub fn around(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

/// The class that Claude Code names in `x-claude-code-request-class`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Main,
    SubAgent,
    Compaction,
}

/// A message of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub is_answer: bool,
    pub tokens: u64,
}

/// A request to the model.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The number of the person.
    pub person: u64,
    /// The id of the session, as in `x-claude-code-session-id`.
    pub session: u64,
    /// `None`: the main conversation.
    pub agent: Option<u64>,
    pub class: Class,
    /// The conversation: another one after it was summed up.
    pub conversation: u64,
    /// The tokens of tools and system prompt, which all conversations of this kind share.
    pub head: u64,
    /// The messages behind the head.
    pub parts: Vec<Part>,
    pub job: Job,
}

/// A request that will be sent at this time.
#[derive(Clone, Debug)]
pub struct Planned {
    pub at: f64,
    pub ask: Ask,
}

struct Conversation {
    seed: u64,
    head: u64,
    parts: Vec<Part>,
    tokens: u64,
    blocks: Vec<u64>,
}

impl Conversation {
    fn new(seed: u64, head: u64) -> Conversation {
        Conversation { seed, head, parts: Vec::new(), tokens: head, blocks: Vec::new() }
    }

    fn say(&mut self, is_answer: bool, tokens: u64) {
        self.parts.push(Part { is_answer, tokens });
        self.tokens += tokens;
    }

    /// A request that continues it with an answer of this length.
    fn job(&mut self, output: u64, block: u64) -> Job {
        let blocks = ((self.tokens + output) / block) as usize;
        while self.blocks.len() < blocks {
            let at = self.blocks.len() as u64;
            let is_head = (at + 1) * block <= self.head;
            let owner = if is_head { self.head } else { self.seed };
            self.blocks.push(chain(self.blocks.last().copied().unwrap_or(0), chain(owner, at)));
        }
        Job { blocks: self.blocks[..blocks].to_vec(), prompt: self.tokens, output }
    }
}

struct Agent {
    conversation: Conversation,
    /// The number of tool calls that are still to come in this turn.
    calls_left: u64,
    /// The tokens of the answer that it waits for.
    asked: u64,
}

/// One Claude Code and the person who uses it.
pub struct Session {
    person: u64,
    id: u64,
    /// The tokens of a block of the boxes' memory.
    block: u64,
    dice: Dice,
    main: Agent,
    agents: BTreeMap<u64, Agent>,
    next_id: u64,
    is_compacting: bool,
    /// The tokens that sub-agents have reported and the main conversation has not read.
    reported: u64,
    /// The turns of the person that were answered.
    pub turns: u64,
}

impl Session {
    pub fn new(seed: u64, person: u64, block: u64) -> Session {
        let id = chain(seed, person);
        let conversation = Conversation::new(chain(id, 0), MAIN_HEAD);
        let main = Agent { conversation, calls_left: 0, asked: 0 };
        let agents = BTreeMap::new();
        Session {
            person,
            id,
            block,
            dice: Dice::new(id),
            main,
            agents,
            next_id: 1,
            is_compacting: false,
            reported: 0,
            turns: 0,
        }
    }

    /// The first request.
    pub fn begin(&mut self) -> Planned {
        let own = self.dice.between(1500, 6000);
        self.main.conversation.say(false, own);
        let at = self.dice.unit() * 120.0;
        self.person_asks(at)
    }

    /// The answer to the request of this agent has ended. Returns the requests that follow.
    pub fn answered(&mut self, now: f64, agent: Option<u64>) -> Vec<Planned> {
        match agent {
            None => self.main_answered(now),
            Some(id) => self.agent_answered(now, id).into_iter().collect(),
        }
    }

    fn person_asks(&mut self, at: f64) -> Planned {
        let words = self.dice.between(30, 600);
        self.main.conversation.say(false, words);
        self.main.calls_left = self.dice.between(2, 16);
        self.ask_main(at, Class::Main)
    }

    fn main_answered(&mut self, now: f64) -> Vec<Planned> {
        self.main.conversation.say(true, self.main.asked);
        if self.is_compacting {
            self.is_compacting = false;
            self.restart_conversation();
        } else if self.main.calls_left > 0 {
            self.main.calls_left -= 1;
            if self.dice.chance(0.08) {
                return self.spawn_agents(now);
            }
            let result = self.tool_result();
            self.main.conversation.say(false, result);
            let at = now + self.dice.around(2.0);
            return vec![self.ask_main(at, Class::Main)];
        } else {
            self.turns += 1;
            if self.main.conversation.tokens > COMPACT_ABOVE {
                self.is_compacting = true;
                self.main.conversation.say(false, 700);
                return vec![self.ask_main(now, Class::Compaction)];
            }
        }
        let at = now + 5.0 + self.dice.around(55.0);
        vec![self.person_asks(at)]
    }

    fn restart_conversation(&mut self) {
        let old = &self.main.conversation;
        let (own, summary) = (old.parts[0].tokens, self.main.asked);
        self.main.conversation = Conversation::new(chain(old.seed, 1), MAIN_HEAD);
        self.main.conversation.say(false, own + summary);
    }

    fn spawn_agents(&mut self, now: f64) -> Vec<Planned> {
        let count = self.dice.between(1, 4);
        let spawn = |_| {
            let id = self.next_id;
            self.next_id += 1;
            let seed = chain(self.main.conversation.seed, id);
            let mut agent = Agent {
                conversation: Conversation::new(seed, AGENT_HEAD),
                calls_left: self.dice.between(4, 14),
                asked: 0,
            };
            agent.conversation.say(false, self.dice.between(200, 900));
            self.agents.insert(id, agent);
            self.ask_agent(now, id)
        };
        (0..count).map(spawn).collect()
    }

    fn agent_answered(&mut self, now: f64, id: u64) -> Option<Planned> {
        let result = self.tool_result();
        let at = now + self.dice.around(2.0);
        let agent = self.agents.get_mut(&id)?;
        agent.conversation.say(true, agent.asked);
        if agent.calls_left > 0 {
            agent.calls_left -= 1;
            agent.conversation.say(false, result);
            return Some(self.ask_agent(at, id));
        }
        self.reported += agent.asked;
        self.agents.remove(&id);
        if !self.agents.is_empty() {
            return None;
        }
        self.main.conversation.say(false, std::mem::take(&mut self.reported));
        Some(self.ask_main(now, Class::Main))
    }

    fn tool_result(&mut self) -> u64 {
        (60.0 + self.dice.around(1100.0)).min(8000.0) as u64
    }

    /// The tokens of an answer: mostly a call of a tool, sometimes a text or a file.
    fn answer(&mut self) -> u64 {
        (40.0 + self.dice.around(160.0)).min(2000.0) as u64
    }

    fn ask_main(&mut self, at: f64, class: Class) -> Planned {
        let output = if class == Class::Compaction { 1500 } else { self.answer() };
        let ask = ask((self.person, self.id), None, class, &mut self.main, (output, self.block));
        Planned { at, ask }
    }

    fn ask_agent(&mut self, at: f64, id: u64) -> Planned {
        let output = self.answer();
        let agent = self.agents.get_mut(&id).unwrap();
        let ask = ask((self.person, self.id), Some(id), Class::SubAgent, agent, (output, self.block));
        Planned { at, ask }
    }
}

fn ask(
    (person, session): (u64, u64),
    id: Option<u64>,
    class: Class,
    agent: &mut Agent,
    (output, block): (u64, u64),
) -> Ask {
    agent.asked = output;
    let job = agent.conversation.job(output, block);
    let Conversation { seed, head, parts, .. } = &agent.conversation;
    Ask { person, session, agent: id, class, conversation: *seed, head: *head, parts: parts.clone(), job }
}
