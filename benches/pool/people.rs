//! The people: one thread keeps the sessions and the clock, and each request has a thread that waits for its answer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::Setting;
use crate::physics::cache::BLOCK;
use crate::physics::render;
use crate::physics::traffic::{Ask, Class, Planned, Session};
use crate::router::Kind;
use crate::wire::{Content, Letter};

/// The seconds after which Claude Code repeats a request that failed.
const RETRY: f64 = 0.5;

#[derive(Default)]
pub(crate) struct Outcome {
    /// The seconds to the first token of main conversations, in ascending order, on the boxes' clock.
    pub(crate) waits: Vec<f64>,
    pub(crate) turns: u64,
    pub(crate) requests: u64,
    pub(crate) failed: u64,
}

/// A request that has ended: the time to its first token and its text, if it went well.
struct Ended {
    ask: Ask,
    answer: Option<(Duration, String)>,
}

/// The texts of a conversation, and whether each is an answer.
type Texts = Vec<(bool, String)>;

struct People<'s> {
    setting: &'s Setting,
    kind: Kind,
    address: SocketAddr,
    began: Instant,
    sessions: Vec<Session>,
    planned: Vec<Planned>,
    texts: HashMap<u64, Texts>,
    heads: HashMap<u64, String>,
    ended: Sender<Ended>,
    outcome: Outcome,
}

/// Lets all sessions work for the time of the setting.
pub(crate) fn work(setting: &Setting, kind: Kind, address: SocketAddr) -> Outcome {
    let mut sessions: Vec<Session> =
        (0..setting.users).map(|person| Session::new(setting.seed, person, BLOCK)).collect();
    let planned = sessions.iter_mut().map(Session::begin).collect();
    let (ended, has_ended) = channel();
    let (texts, heads, outcome) = (HashMap::new(), HashMap::new(), Outcome::default());
    let began = Instant::now();
    let mut people =
        People { setting, kind, address, began, sessions, planned, texts, heads, ended, outcome };
    people.run(&has_ended);
    people.outcome.turns = people.sessions.iter().map(|session| session.turns).sum();
    people.outcome.waits.sort_by(f64::total_cmp);
    people.outcome
}

impl People<'_> {
    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * self.setting.pace
    }

    fn run(&mut self, has_ended: &Receiver<Ended>) {
        while self.now() < self.setting.seconds {
            let now = self.now();
            let due: Vec<Planned> = self.planned.extract_if(.., |planned| planned.at <= now).collect();
            due.into_iter().for_each(|planned| self.send(planned.ask));
            let next = self.planned.iter().map(|planned| planned.at).fold(self.setting.seconds, f64::min);
            let wait = Duration::from_secs_f64((next - self.now()).max(0.0) / self.setting.pace);
            if let Ok(ended) = has_ended.recv_timeout(wait) {
                self.take(ended);
            }
        }
    }

    /// Sends a request in a thread of its own.
    fn send(&mut self, ask: Ask) {
        let texts = self.texts.entry(ask.conversation).or_default();
        for (at, part) in ask.parts.iter().enumerate().skip(texts.len()) {
            let name = format!("{} {at}", ask.conversation);
            texts.push((part.is_answer, render::answer(&name, part.tokens)));
        }
        let head =
            self.heads.entry(ask.head).or_insert_with(|| render::answer(&ask.head.to_string(), ask.head));
        let content = Content { head, parts: texts, output: ask.job.output };
        let letter = Letter::new(self.kind.translates(), &headers(&ask), &content);
        let (address, ended) = (self.address, self.ended.clone());
        std::thread::spawn(move || {
            let answer = letter.send(address).ok();
            // After the end of the run nobody listens.
            let _ = ended.send(Ended { ask, answer });
        });
    }

    fn take(&mut self, Ended { ask, answer }: Ended) {
        let now = self.now();
        let Some((first, text)) = answer else {
            self.outcome.failed += 1;
            self.planned.push(Planned { at: now + RETRY, ask });
            return;
        };
        self.outcome.requests += 1;
        if ask.class == Class::Main {
            self.outcome.waits.push(first.as_secs_f64() * self.setting.pace);
        }
        self.texts.entry(ask.conversation).or_default().push((true, text));
        let session = &mut self.sessions[ask.person as usize];
        self.planned.extend(session.answered(now, ask.agent));
    }
}

/// The headers by which Claude Code names session, agent and class.
fn headers(ask: &Ask) -> String {
    let (class, first_party) = match ask.class {
        Class::Main => ("main", "main"),
        Class::SubAgent => ("subagent", "blocking-subagent"),
        Class::Compaction => ("compaction", "summary-extraction"),
    };
    let agent = ask.agent.map(|id| format!("x-claude-code-agent-id: {id}\r\n")).unwrap_or_default();
    format!(
        "x-claude-code-session-id: {:016x}\r\n{agent}x-claude-code-request-class: {class}\r\nx-claude-1p-request-class: {first_party}\r\n",
        ask.session
    )
}
